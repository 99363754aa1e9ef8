"""The last step of the ladder, run only in a worker process: expressions whose values agree to 60 digits are proved equal.

First the values are compared once more, to 1,000 bits. Then sympy looks for a proof, on trees built object by object from
our own (never from a text: sympy reads strings by `eval`). Where sympy finds none in its share of the time, agreement to
900 bits at every point is accepted only where nothing could hide from them: at three points at least (one for constants)
no sum holds a term that is too small to be seen, and no function is taken of a number so small or so large that its value
says nothing (cos 10⁻¹⁵⁰, tanh 700).

sympy is imported inside functions, so that only a worker loads it, while it waits for its first case.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from fractions import Fraction
from types import FrameType
from typing import Any

from lco.verifier.numbers.numeric import Evaluator, Value, distance, magnitude
from lco.verifier.numbers.points import points
from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, RefusedError, UndefinedError, UnreadableError, has_i

_BITS = 1_000
_AGREEMENT = 900
_HIDDEN = 300  # bits below the largest term at which a term counts as hidden
_LARGEST = 60  # bits before and behind the point of what functions are taken of
_LARGEST_EXPONENT = 7  # the same of exponents: e^128 and its reciprocal still show among 900 bits
_EXPONENTIAL = frozenset(("sinh", "cosh", "tanh", "coth", "sech", "csch"))
_SYMPY_SECONDS = 0.6  # of CPU time


class _OutOfTimeError(Exception):
    """sympy has had its share."""


class _Watchful(Evaluator):
    """Remembers the smallest term of any sum, and whether every function was taken of a number of ordinary size."""

    smallest = 10**9
    tame = True

    def _sum(self, values: list[Value]) -> Value:
        for value in values:
            if magnitude(value) > -(10**8):
                self.smallest = min(self.smallest, magnitude(value))
        return super()._sum(values)

    def _function(self, name: str, values: list[Value]) -> Value:
        self._look_at(values, _LARGEST_EXPONENT if name in _EXPONENTIAL else _LARGEST)
        result = super()._function(name, values)
        self._look_at([result], _LARGEST)
        return result

    def exponential(self, exponent: Value) -> Value:
        self._look_at([exponent], _LARGEST_EXPONENT)
        return super().exponential(exponent)

    def _power(self, node: Node, base: Value, exponent: Value) -> Value:
        written = rational(node.args[1])
        if written is None or written.denominator != 1:
            self._look_at([exponent], _LARGEST_EXPONENT)
        return super()._power(node, base, exponent)

    def _look_at(self, values: list[Value], largest: int) -> None:
        sizes = [magnitude(value) for value in values]
        if any(size > largest or -(10**8) < size < -_LARGEST for size in sizes):
            self.tame = False


def prove(gold: Node, answer: Node, names: frozenset[str]) -> bool:
    """Whether two expressions whose values agree are equal."""
    clear = 0  # points at which nothing is too small to be seen
    real = bool(names) and not has_i(gold) and not has_i(answer)
    for point in points(names):
        left, right = (_Watchful(_BITS, point, real) for _ in range(2))
        try:
            one, other = left.value(gold), right.value(answer)
        except UndefinedError:
            continue
        scale = max(left.scale, right.scale, magnitude(one), magnitude(other))
        if distance(one, other, _BITS) > scale - _AGREEMENT:
            return False
        clear += min(left.smallest, right.smallest) >= scale - _HIDDEN and left.tame and right.tame
    return _by_sympy(gold, answer, real) or clear >= (3 if names else 1)


def _by_sympy(gold: Node, answer: Node, real: bool) -> bool:
    """Whether sympy reduces the difference to zero in its share of the time."""
    previous = signal.signal(signal.SIGVTALRM, _ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SYMPY_SECONDS)
    try:
        import sympy

        build = _Builder(real)
        difference = build.tree(gold) - build.tree(answer)
        attempts: tuple[Callable[[Any], Any], ...] = (
            sympy.expand,
            lambda tree: sympy.expand(tree.rewrite(sympy.exp)),
            sympy.radsimp,
            sympy.trigsimp,
            sympy.simplify,
        )
        return any(attempt(difference) == 0 for attempt in attempts)
    except (
        _OutOfTimeError,
        UnreadableError,
        RefusedError,
        ArithmeticError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def _ring(number: int, frame: FrameType | None) -> None:
    raise _OutOfTimeError


class _Builder:
    """Builds sympy's trees from ours."""

    def __init__(self, real: bool) -> None:
        self.real = real
        self._names: dict[str, int] = {}

    def tree(self, node: Node) -> Any:
        """The sympy expression of a node."""
        import sympy

        kind = node.kind
        if kind == "num":
            value: Fraction = node.value
            return sympy.Rational(value.numerator, value.denominator)
        if kind == "sym":
            return self._symbol(node.value)
        if kind == "const":
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}.get(node.value, sympy.zoo)
        parts = [self.tree(part) for part in node.args]
        if kind == "add":
            return sympy.Add(*parts)
        if kind == "mul":
            return sympy.Mul(*parts)
        if kind == "neg":
            return -parts[0]
        if kind == "div":
            return parts[0] / parts[1]
        if kind == "pow":
            return sympy.Pow(parts[0], parts[1])
        if kind == "root":
            return sympy.real_root(parts[0], node.value) if node.value % 2 else sympy.root(parts[0], node.value)
        if kind == "degree":
            return parts[0] * sympy.pi / 180
        if kind == "percent":
            return parts[0] / 100
        if kind == "fact":
            return sympy.factorial(parts[0])
        if kind == "binom":
            return sympy.binomial(parts[0], parts[1])
        if kind == "fn":
            return self._function(node.value, parts)
        raise UnreadableError(f"{kind} is not for sympy")

    def _symbol(self, name: str) -> Any:
        """A letter. Its name is never ours: sympy gets x0, x1, … so that no text from outside reaches it."""
        import sympy

        index = self._names.setdefault(name, len(self._names))
        return sympy.Symbol(f"x{index}", real=True)

    def _function(self, name: str, parts: list[Any]) -> Any:
        import sympy

        table = {
            "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
            "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot,
            "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth,
            "ln": sympy.log, "log": sympy.log,
            "abs": sympy.Abs, "floor": sympy.floor, "ceil": sympy.ceiling, "min": sympy.Min, "max": sympy.Max,
        }  # fmt: skip
        if name == "logb":
            return sympy.log(parts[1]) / sympy.log(parts[0])
        if name not in table:
            raise UnreadableError(f"{name} is not for sympy")
        return table[name](*parts)
