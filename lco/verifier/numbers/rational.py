"""Exact values of expressions that are plainly rational, with every size bounded before it is computed."""

from __future__ import annotations

import math
from fractions import Fraction

from lco.verifier.tree import Node, RefusedError, UndefinedError

MAX_BITS = 20_000  # of a numerator or denominator
MAX_FACTORIAL = 1_500


def rational(node: Node) -> Fraction | None:
    """The value of the expression if it is built of rational steps only, else None.

    Raises UndefinedError for a division by zero. A number too large to be written out gives None: modular arithmetic
    may
    still decide about it.
    """
    kind = node.kind
    if kind == "num":
        value = node.value
        return value if isinstance(value, Fraction) else None
    if kind == "neg":
        inner = rational(node.args[0])
        return None if inner is None else -inner
    if kind in ("const", "sym", "call", "degree", "pm"):
        return None
    if kind not in ("add", "mul", "div", "pow", "root", "fact", "binom", "percent", "fn"):
        return None
    values = []
    for part in node.args:
        value = rational(part)
        if value is None:
            return None
        values.append(value)
    result = _combine(node, values)
    if result is not None and max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
        return None
    return result


def _combine(node: Node, values: list[Fraction]) -> Fraction | None:
    kind = node.kind
    if kind == "add":
        return sum(values, Fraction(0))
    if kind == "mul":
        return _product(values)
    if kind == "div":
        if values[1] == 0:
            raise UndefinedError("division by zero")
        return values[0] / values[1]
    if kind == "pow":
        return power(values[0], values[1])
    if kind == "root":
        return exact_root(values[0], node.value)
    if kind == "percent":
        return values[0] / 100
    if kind in ("fact", "binom"):
        return _counted(kind, values)
    return _function(str(node.value), values)


def _product(values: list[Fraction]) -> Fraction | None:
    result = Fraction(1)
    for value in values:
        result *= value
        if result.numerator.bit_length() > MAX_BITS:
            return None
    return result


def power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """base**exponent if it is rational and of bearable size."""
    if exponent.denominator != 1:
        if exponent.denominator > 100:
            return None
        root = exact_root(base, exponent.denominator)
        return None if root is None else power(root, Fraction(exponent.numerator))
    count = exponent.numerator
    if base == 0:
        if count < 0:
            raise UndefinedError("zero to a negative power")
        if count == 0:
            raise UndefinedError("zero to the power of zero")
        return Fraction(0)
    if base in (1, -1):
        return base if count % 2 else Fraction(1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base**count if abs(count) * bits <= MAX_BITS else None


def exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The real root if it is rational: roots of negative numbers only for odd degrees."""
    if value < 0:
        if degree % 2 == 0:
            return None
        root = exact_root(-value, degree)
        return None if root is None else -root
    top, bottom = _integer_root(value.numerator, degree), _integer_root(value.denominator, degree)
    return None if top is None or bottom is None else Fraction(top, bottom)


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
    elif value < 2:
        root = value
    else:  # Newton's iteration from above
        root = 1 << -(-value.bit_length() // degree)
        while True:
            step = ((degree - 1) * root + value // root ** (degree - 1)) // degree
            if step >= root:
                break
            root = step
    return root if root**degree == value else None


def _counted(kind: str, values: list[Fraction]) -> Fraction | None:
    if any(value.denominator != 1 or value < 0 for value in values):
        raise UndefinedError(f"{kind} of something that is no natural number")
    if max(values) > MAX_FACTORIAL:
        raise RefusedError("too_large", f"{'factorial' if kind == 'fact' else 'binomial'} of {_short(max(values))}")
    if kind == "fact":
        return Fraction(math.factorial(values[0].numerator))
    return Fraction(math.comb(values[0].numerator, values[1].numerator))


def _short(value: Fraction) -> str:
    return str(value) if value.numerator.bit_length() < 100 else "a huge number"


def _function(name: str, values: list[Fraction]) -> Fraction | None:
    if name == "abs":
        return abs(values[0])
    if name == "floor":
        return Fraction(math.floor(values[0]))
    if name == "ceil":
        return Fraction(math.ceil(values[0]))
    if name == "min":
        return min(values)
    if name == "max":
        return max(values)
    if name in ("ln", "log", "sin", "tan", "arcsin", "arctan", "logb"):
        return _plain_zero(name, values)
    return None


def _plain_zero(name: str, values: list[Fraction]) -> Fraction | None:
    if name in ("ln", "log") and values[0] == 0:
        raise UndefinedError("logarithm of zero")
    if name in ("ln", "log"):
        return Fraction(0) if values[0] == 1 else None
    if name != "logb":
        return Fraction(0) if values[0] == 0 else None
    base, value = values
    if base <= 0 or base == 1 or value <= 0:
        raise UndefinedError("no such logarithm")
    small, large = (base, value) if base > 1 else (1 / base, 1 / value)
    for exponent in range(-64, 65) if large.numerator.bit_length() + large.denominator.bit_length() < 400 else ():
        if power(small, Fraction(exponent)) == large:
            return Fraction(exponent)
    return None
