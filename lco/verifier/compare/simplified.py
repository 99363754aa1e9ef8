"""Whether an answer leaves arithmetic undone; asked only where the task says that answers must be simplified."""

from __future__ import annotations

import math

from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, walk

_LONG = 10**12  # a value beyond this may stay a power, factorial or product


def is_simplified(node: Node) -> bool:
    """No sum, product, power or function of plain numbers is left, and fractions are in lowest terms.

    Decimals, lowest-terms fractions, mixed numbers, scientific notation and powers too long to write out are results.
    """
    return all(_is_result(part) for part in walk(node) if part.kind not in ("row", "text"))


def _is_result(node: Node) -> bool:
    kind = node.kind
    if kind == "div":
        top, bottom = (rational(part) for part in node.args)
        if top is None or bottom is None:
            return True
        whole = top.denominator == bottom.denominator == 1
        return whole and bottom > 1 and math.gcd(top.numerator, bottom.numerator) == 1
    if kind in ("add", "mul", "pow", "fact", "binom", "root", "fn"):
        value = rational(node)
        if value is None:
            return not _several_numbers(node)
        return abs(value) > _LONG or _is_mixed(node) or _is_scientific(node)
    return True


def _several_numbers(node: Node) -> bool:
    """`2 + 3 + x` and `2·3·x` leave work undone."""
    return node.kind in ("add", "mul") and sum(rational(part) is not None for part in node.args) > 1


def _is_mixed(node: Node) -> bool:
    return node.kind == "add" and len(node.args) == 2 and node.args[0].kind == "num" and node.args[1].kind == "div"


def _is_scientific(node: Node) -> bool:
    if node.kind == "pow":
        return node.args[0].kind == "num" and node.args[0].value == 10
    return node.kind == "mul" and len(node.args) == 2 and node.args[1].kind == "pow" and _is_scientific(node.args[1])
