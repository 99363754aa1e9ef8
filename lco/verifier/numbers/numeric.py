"""Values to many digits, at a point.

The work is done by mpmath's `libmp`, whose functions take the precision as an argument and keep no context: safe under
threads, and independent of what anyone else has set. A value is either a real (a 4-tuple) or a complex number (a pair).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mpmath import libmp
from mpmath.libmp import libmpc, libmpf

from lco.verifier.numbers.rational import MAX_FACTORIAL
from lco.verifier.tree import Node, RefusedError, UndefinedError, UnreadableError

Real = tuple[Any, ...]
Value = tuple[Any, ...]
MAX_EXPONENT_BITS = 40  # of an exponent
MAX_ANGLE_BITS = 120  # of the argument of a sine

_REAL: dict[str, Callable[..., Real]] = {
    "sin": libmp.mpf_sin, "cos": libmp.mpf_cos, "tan": libmp.mpf_tan, "arctan": libmp.mpf_atan,
    "sinh": libmp.mpf_sinh, "cosh": libmp.mpf_cosh, "tanh": libmp.mpf_tanh, "arcsinh": libmp.mpf_asinh,
}  # fmt: skip
_COMPLEX: dict[str, Callable[..., Value]] = {
    "sin": libmp.mpc_sin, "cos": libmp.mpc_cos, "tan": libmp.mpc_tan, "arctan": libmp.mpc_atan,
    "sinh": libmp.mpc_sinh, "cosh": libmp.mpc_cosh, "tanh": libmp.mpc_tanh, "arcsin": libmp.mpc_asin,
    "arccos": libmp.mpc_acos, "arcsinh": libmp.mpc_asinh, "arccosh": libmp.mpc_acosh, "arctanh": libmp.mpc_atanh,
}  # fmt: skip
_LIMITED: dict[str, Callable[..., Real]] = {
    "arcsin": libmp.mpf_asin,
    "arccos": libmp.mpf_acos,
    "arctanh": libmp.mpf_atanh,
}
_RECIPROCAL = {"cot": "tan", "sec": "cos", "csc": "sin", "coth": "tanh", "sech": "cosh", "csch": "sinh"}
_RECIPROCAL_ARGUMENT = {"arcsec": "arccos", "arccsc": "arcsin"}


def is_complex(value: Value) -> bool:
    """Whether the value carries an imaginary part."""
    return len(value) == 2


def magnitude(value: Value) -> int:
    """The binary exponent of |value|: |value| < 2**magnitude; very small for zero."""
    if is_complex(value):
        return max(magnitude(value[0]), magnitude(value[1]))
    return value[2] + value[3] if value[1] else -(10**9)


class Evaluator:
    """Evaluates expressions at one precision and one point.

    real: an expression over real letters: a step that leaves the reals has no value there. Constants may be complex.
    scale: the largest magnitude that went into a sum; what is lost to cancellation is measured against it.
    """

    def __init__(self, prec: int, point: Mapping[str, Fraction], real: bool) -> None:
        self.prec = prec
        self.point = point
        self.real = real
        self.scale = -(10**9)

    def value(self, node: Node) -> Value:
        """The value of the expression at the point."""
        kind = node.kind
        if kind == "num":
            return self._fraction(node.value)
        if kind == "sym":
            return self._fraction(self.point[node.value])
        if kind == "const":
            return self._constant(node.value)
        if kind == "neg":
            return self._negative(self.value(node.args[0]))
        if kind in ("fact", "binom"):
            return self._counted(node)
        if kind == "pow" and node.args[0] == Node("const", "e"):
            return self.exponential(self.value(node.args[1]))
        values = [self.value(part) for part in node.args]
        if kind == "add":
            return self._sum(values)
        if kind == "mul":
            result = values[0]
            for factor in values[1:]:
                result = self.times(result, factor)
            return result
        if kind == "div":
            return self.over(values[0], values[1])
        if kind == "pow":
            return self._power(node, values[0], values[1])
        if kind == "root":
            return self._root(values[0], node.value)
        if kind == "percent":
            return self.over(values[0], libmp.from_int(100))
        if kind == "degree":
            return self.over(self.times(values[0], libmp.mpf_pi(self.prec)), libmp.from_int(180))
        if kind == "call":
            return self._unknown(node.value, values)
        if kind == "fn":
            return self._function(node.value, values)
        raise UnreadableError(f"{kind} has no value")

    def _fraction(self, value: Fraction) -> Real:
        return libmp.from_rational(value.numerator, value.denominator, self.prec)

    def _constant(self, name: str) -> Value:
        if name == "pi":
            return libmp.mpf_pi(self.prec)
        if name == "e":
            return libmp.mpf_e(self.prec)
        if name == "i":
            return (libmpf.fzero, libmpf.fone)
        raise UndefinedError("infinity inside an expression")

    @staticmethod
    def _negative(value: Value) -> Value:
        return libmp.mpc_neg(value) if is_complex(value) else libmp.mpf_neg(value)

    def _complex(self, value: Value) -> Value:
        return value if is_complex(value) else (value, libmpf.fzero)

    def _settle(self, value: Value) -> Value:
        """A complex number whose imaginary part is exactly zero is real."""
        return value[0] if is_complex(value) and not value[1][1] else value

    def _sum(self, values: list[Value]) -> Value:
        total = values[0]
        for value in values:
            self.scale = max(self.scale, magnitude(value))
        for value in values[1:]:
            if is_complex(total) or is_complex(value):
                total = libmp.mpc_add(self._complex(total), self._complex(value), self.prec, "n")
            else:
                total = libmp.mpf_add(total, value, self.prec, "n")
        return self._settle(total)

    def times(self, one: Value, other: Value) -> Value:
        """A product."""
        if is_complex(one) or is_complex(other):
            return self._settle(libmp.mpc_mul(self._complex(one), self._complex(other), self.prec, "n"))
        return libmp.mpf_mul(one, other, self.prec, "n")

    def over(self, one: Value, other: Value) -> Value:
        """A quotient; a divisor that is zero as far as the precision tells has none."""
        if magnitude(other) < self.scale - self.prec + 20 or magnitude(other) < -(10**8):
            raise UndefinedError("division by zero")
        if is_complex(one) or is_complex(other):
            return self._settle(libmp.mpc_div(self._complex(one), self._complex(other), self.prec, "n"))
        return libmp.mpf_div(one, other, self.prec, "n")

    def _counted(self, node: Node) -> Value:
        """Factorials and binomials, at natural numbers only."""
        numbers = []
        for part in node.args:
            value = self.value(part)
            if is_complex(value) or magnitude(value) > 60:
                raise RefusedError("too_large", "a factorial or binomial of a huge number")
            whole = int(libmp.to_int(value, "n"))
            if libmp.mpf_cmp(libmp.from_int(whole), value) or whole < 0:
                raise UndefinedError("a factorial of something that is no natural number")
            if whole > MAX_FACTORIAL:
                raise RefusedError("too_large", f"a factorial or binomial of {whole}")
            numbers.append(whole)
        result = libmp.ifac(numbers[0])
        if node.kind == "binom":
            top, bottom = numbers
            result = 0 if bottom > top else result // (libmp.ifac(bottom) * libmp.ifac(top - bottom))
        return libmp.from_int(result, self.prec, "n")

    def exponential(self, exponent: Value) -> Value:
        """e to a power."""
        if magnitude(exponent) > MAX_EXPONENT_BITS:
            raise RefusedError("too_large", "an exponent is too large")
        if is_complex(exponent):
            return self._settle(libmp.mpc_exp(exponent, self.prec, "n"))
        return libmp.mpf_exp(exponent, self.prec, "n")

    def _power(self, node: Node, base: Value, exponent: Value) -> Value:
        if magnitude(exponent) > MAX_EXPONENT_BITS or magnitude(base) > 2**MAX_EXPONENT_BITS:
            raise RefusedError("too_large", "an exponent is too large")
        if not magnitude(base) > -(10**8):
            return self._power_of_zero(exponent)
        if is_complex(base) or is_complex(exponent):
            return self._settle(libmp.mpc_pow(self._complex(base), self._complex(exponent), self.prec, "n"))
        if base[0] == 0 or exponent[2] >= 0:  # positive base or whole exponent
            return libmp.mpf_pow(base, exponent, self.prec, "n")
        return self._power_of_negative(node.args[1], base, exponent)

    def _power_of_zero(self, exponent: Value) -> Value:
        if is_complex(exponent) or exponent[0] or not exponent[1]:
            raise UndefinedError("zero to a power that is not positive")
        return libmpf.fzero

    def _power_of_negative(self, written: Node, base: Value, exponent: Value) -> Value:
        """(-8)^{1/3} is the real root where the exponent is a fraction with an odd denominator."""
        from lco.verifier.numbers.rational import rational

        exact = rational(written)
        if exact is not None and exact.denominator % 2:
            root = libmp.mpf_nthroot(libmp.mpf_neg(base), exact.denominator, self.prec, "n")
            power = libmp.mpf_pow_int(root, exact.numerator, self.prec, "n")
            return libmp.mpf_neg(power) if exact.numerator % 2 else power
        if self.real:
            raise UndefinedError("a power that is not real")
        return self._settle(libmp.mpc_pow(self._complex(base), self._complex(exponent), self.prec, "n"))

    def _root(self, value: Value, degree: int) -> Value:
        if is_complex(value):
            if degree == 2:
                return libmp.mpc_sqrt(value, self.prec, "n")
            return libmp.mpc_nthroot(value, degree, self.prec, "n")
        if value[0] == 0:
            return libmp.mpf_nthroot(value, degree, self.prec, "n") if value[1] else value
        if degree % 2:
            return libmp.mpf_neg(libmp.mpf_nthroot(libmp.mpf_neg(value), degree, self.prec, "n"))
        if self.real:
            raise UndefinedError("a root that is not real")
        if degree == 2:
            return (libmpf.fzero, libmp.mpf_sqrt(libmp.mpf_neg(value), self.prec, "n"))
        return libmp.mpc_nthroot(self._complex(value), degree, self.prec, "n")

    def _unknown(self, name: str, values: list[Value]) -> Value:
        """A function nobody defined: any fixed smooth function will do, as long as its name decides which."""
        total: Value = libmp.from_int(zlib.crc32(name.encode()) % 1009 + 3)
        for index, value in enumerate(values):
            total = self._sum([total, self.times(value, libmp.from_int(3 * index + 2))])
        return self._sum([self._function("sin", [self.over(total, libmp.from_int(37))]), libmp.from_int(2)])

    def _function(self, name: str, values: list[Value]) -> Value:
        value = values[0]
        if name in _RECIPROCAL:
            return self.over(libmpf.fone, self._function(_RECIPROCAL[name], values))
        if name in _RECIPROCAL_ARGUMENT:
            return self._function(_RECIPROCAL_ARGUMENT[name], [self.over(libmpf.fone, value)])
        if name == "arccot":
            return self._sum(
                [
                    self.over(libmp.mpf_pi(self.prec), libmp.from_int(2)),
                    self._negative(self._function("arctan", values)),
                ]
            )
        if name in ("ln", "logb"):
            return self._logarithm(name, values)
        if name in ("abs", "floor", "ceil", "min", "max"):
            return self._stepped(name, values)
        if magnitude(value) > (MAX_ANGLE_BITS if name in ("sin", "cos", "tan") else MAX_EXPONENT_BITS):
            raise RefusedError("too_large", f"{name} of a huge number")
        if not is_complex(value):
            if name in _REAL:
                return _REAL[name](value, self.prec, "n")
            try:
                if name == "arccosh":
                    return libmp.mpf_acosh(value, self.prec, "n")
                return _LIMITED[name](value, self.prec, "n")
            except libmp.ComplexResult:
                if self.real:
                    raise UndefinedError(f"{name} outside its domain") from None
        return self._settle(_COMPLEX[name](self._complex(value), self.prec, "n"))

    def _logarithm(self, name: str, values: list[Value]) -> Value:
        def natural(value: Value) -> Value:
            if not magnitude(value) > -(10**8):
                raise UndefinedError("logarithm of zero")
            if not is_complex(value) and value[0] == 0:
                return libmp.mpf_log(value, self.prec, "n")
            if self.real:
                raise UndefinedError("logarithm of a negative number")
            return self._settle(libmp.mpc_log(self._complex(value), self.prec, "n"))

        if name == "logb":
            return self.over(natural(values[1]), natural(values[0]))
        return natural(values[0])

    def _stepped(self, name: str, values: list[Value]) -> Value:
        if name == "abs":
            return libmpc.mpc_abs(values[0], self.prec, "n") if is_complex(values[0]) else libmp.mpf_abs(values[0])
        if any(map(is_complex, values)):
            raise UndefinedError(f"{name} of a complex number")
        if name in ("floor", "ceil"):
            if magnitude(values[0]) > self.prec - 40:
                raise RefusedError("too_large", f"{name} of a huge number")
            # What lies within rounding of a whole number is that number: floor(2.9999…) of √9 is 3.
            near = libmp.from_int(int(libmp.to_int(values[0], "n")))
            if magnitude(libmp.mpf_sub(values[0], near, self.prec, "n")) < -self.prec // 2:
                return near
            return (libmp.mpf_floor if name == "floor" else libmp.mpf_ceil)(values[0], self.prec, "n")
        best = values[0]
        for value in values[1:]:
            order = libmp.mpf_cmp(value, best)
            best = value if (order < 0) == (name == "min") and order else best
        return best


def distance(one: Value, other: Value, prec: int) -> int:
    """The magnitude of the difference."""
    if is_complex(one) or is_complex(other):
        pair = [value if is_complex(value) else (value, libmpf.fzero) for value in (one, other)]
        return magnitude(libmp.mpc_sub(pair[0], pair[1], prec, "n"))
    return magnitude(libmp.mpf_sub(one, other, prec, "n"))


def within(value: Value, reference: Value, tolerance: float) -> bool:
    """Whether |value - reference| ≤ tolerance·|reference|, with a hair's breadth for the rounding of the tolerance."""
    pair = [item if is_complex(item) else (item, libmpf.fzero) for item in (value, reference)]
    error = libmpc.mpc_abs(libmp.mpc_sub(pair[0], pair[1], 100, "n"), 100, "n")
    allowed = libmp.mpf_mul(libmpc.mpc_abs(pair[1], 100, "n"), libmp.from_float(tolerance * (1 + 1e-9)), 100, "n")
    return libmp.mpf_cmp(error, allowed) <= 0
