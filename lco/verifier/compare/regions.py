"""Sets of real numbers as intervals: `(1,2]`, `1 < x ≤ 2`, `x ∈ (1,2]` and `{x | 1 < x ≤ 2}` are one thing.

A region is a tuple of pieces in rising order that do not touch. Ends are compared as expressions; to put them in order
their values are enough. Regions whose ends are not plain real constants are left to the comparison part by part.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from lco.verifier.numbers.ladder import infinite
from lco.verifier.tree import INFINITY, MINUS_INFINITY, Node, UndefinedError, UnreadableError, is_scalar, symbols

_REGIONAL = frozenset(("union", "builder", "minus", "reals", "intersection"))
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


class Piece(NamedTuple):
    """An interval; a single point has equal closed ends."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


Region = tuple[Piece, ...]
_EVERYTHING = Piece(MINUS_INFINITY, False, INFINITY, False)


def is_regional(node: Node) -> bool:
    """Whether the node is written as a set of real numbers: an inequality, a union, a set builder."""
    if node.kind == "rel":
        return _is_inequality(node)
    if node.kind == "list":
        return node.value in ("and", "or") and all(part.kind == "rel" and _is_inequality(part) for part in node.args)
    return node.kind in _REGIONAL


def _is_inequality(node: Node) -> bool:
    return any(operator not in "=≈" for operator in node.value)


def region(node: Node, same: Callable[[Node, Node], bool]) -> Region | None:
    """The region a node describes, or None if it describes none; `same` decides whether two ends are equal."""
    pieces = _pieces(node)
    if pieces is None:
        return None
    try:
        return _merge(pieces, same)
    except (UndefinedError, UnreadableError):
        return None


def _pieces(node: Node) -> list[Piece] | None:
    kind = node.kind
    if kind == "reals":
        return [_EVERYTHING]
    if kind == "seq" and len(node.args) == 2 and all(map(_plain, node.args)):
        low, high = node.args
        return [
            Piece(low, node.value[0] == "[" and not infinite(low), high, node.value[1] == "]" and not infinite(high))
        ]
    if kind == "set" and all(map(_plain, node.args)):
        return [Piece(point, True, point, True) for point in node.args]
    if kind == "nothing":
        return []
    if kind == "union":
        parts = [_pieces(part) for part in node.args]
        return None if any(part is None for part in parts) else [piece for part in parts for piece in part or ()]
    if kind == "minus" and node.args[0].kind == "reals" and node.args[1].kind == "set":
        return _without(node.args[1].args)
    if kind == "rel":
        return _from_relation(node)
    if kind == "builder":
        return _from_builder(node)
    if kind == "list" and node.value == "or":
        names = {_letter(part) for part in node.args}
        parts = [_pieces(part) if part.kind == "rel" else None for part in node.args]
        if len(names) != 1 or None in names or any(part is None for part in parts):
            return None
        return [piece for part in parts for piece in part or ()]
    if kind == "list" and node.value == "and":
        return _both(node)
    return None


def _plain(node: Node) -> bool:
    return is_scalar(node) and not symbols(node)


def _letter(node: Node) -> str | None:
    """The one letter a relation is about."""
    names = symbols(node)
    return next(iter(names)) if len(names) == 1 else None


def _without(removed: tuple[Node, ...]) -> list[Piece] | None:
    """The line without some points."""
    if not all(map(_plain, removed)):
        return None
    ordered = sorted(removed, key=position)
    ends = [MINUS_INFINITY, *ordered, INFINITY]
    return [Piece(low, False, high, False) for low, high in pairwise(ends)]


def _from_relation(node: Node) -> list[Piece] | None:
    """One letter between constants: x ≥ 2, -2 ≤ x < 7, x ≠ 3, x ∈ S."""
    operators, parts = node.value, node.args
    if len(parts) == 2 and parts[0].kind == "fn" and parts[0].value == "abs" and _plain(parts[1]):
        return _from_absolute(operators[0], parts[0].args[0], parts[1])
    if operators == ("∈",):
        return _pieces(parts[1]) if parts[0].kind == "sym" else None
    places = [at for at, part in enumerate(parts) if part.kind in ("sym", "call")]
    if len(places) != 1 or not all(_plain(part) for at, part in enumerate(parts) if at != places[0]):
        return None
    at = places[0]
    if operators == ("≠",):
        return _without((parts[1 - at],))
    if len(parts) > 3 or any(operator not in _FLIPPED for operator in operators) or (len(parts) == 3 and at != 1):
        return None
    low, low_closed, high, high_closed = MINUS_INFINITY, False, INFINITY, False
    for index, operator in enumerate(operators):
        bound = parts[index] if index < at else parts[index + 1]
        # Written from the letter's side: x < bound or x > bound.
        seen = _FLIPPED[operator] if index < at else operator
        if seen in "<≤":
            high, high_closed = bound, seen == "≤"
        else:
            low, low_closed = bound, seen == "≥"
    if len(parts) == 3 and (infinite(low) < 0 or infinite(high) > 0) and not any(infinite(part) for part in parts):
        return None  # 1 < x > 2 is no chain
    return [Piece(low, low_closed, high, high_closed)]


def _from_absolute(operator: str, inner: Node, bound: Node) -> list[Piece] | None:
    """|x| < 3 and |x| > 3."""
    if inner.kind != "sym" or position(bound) <= 0:
        return None
    closed, low = operator in "≤≥", Node("neg", None, (bound,))
    if operator in "<≤":
        return [Piece(low, closed, bound, closed)]
    if operator in ">≥":
        return [Piece(MINUS_INFINITY, False, low, closed), Piece(bound, closed, INFINITY, False)]
    return None


def _from_builder(node: Node) -> list[Piece] | None:
    variable, condition = node.args
    if variable.kind == "rel" and variable.value == ("∈",) and variable.args[1].kind == "reals":
        variable = variable.args[0]
    if variable.kind != "sym" or symbols(condition) != {variable.value}:
        return None
    return _pieces(condition)


def _both(node: Node) -> list[Piece] | None:
    """Two relations about one letter that hold together: x > 1 and x < 2."""
    parts = [_pieces(part) if part.kind == "rel" else None for part in node.args]
    names = {_letter(part) for part in node.args}
    if len(parts) != 2 or None in parts or len(names) != 1 or None in names:
        return None
    one, other = parts[0] or [], parts[1] or []
    if len(one) != 1 or len(other) != 1:
        return None
    first, second = one[0], other[0]
    if infinite(first.low) and infinite(second.high):
        first, second = second, first
    if infinite(first.high) and infinite(second.low) and position(first.low) < position(second.high):
        return [Piece(first.low, first.low_closed, second.high, second.high_closed)]
    return None


def position(node: Node) -> float:
    """Where a real constant stands on the line, to put ends in order."""
    from lco.verifier.numbers.numeric import Evaluator, is_complex
    from lco.verifier.numbers.rational import rational

    sign = infinite(node)
    if sign:
        return float("inf") * sign
    exact = rational(node)
    if exact is not None:
        try:
            return float(exact)
        except OverflowError:
            return float("inf") if exact > 0 else float("-inf")
    value = Evaluator(100, {}, False).value(node)
    if is_complex(value):
        raise UndefinedError("an end of an interval that is not real")
    from mpmath.libmp import to_float

    return float(to_float(value, strict=False))


def _merge(pieces: list[Piece], same: Callable[[Node, Node], bool]) -> Region:
    """Pieces in order, overlapping and touching ones joined, empty ones refused."""
    for piece in pieces:
        low, high = position(piece.low), position(piece.high)
        if low > high or (low == high and not (piece.low_closed and piece.high_closed)):
            raise UnreadableError("an interval whose ends are the wrong way round")
    ordered = sorted(pieces, key=lambda piece: (position(piece.low), not piece.low_closed))
    merged: list[Piece] = []
    for piece in ordered:
        if merged and _touch(merged[-1], piece, same):
            merged[-1] = _joined(merged[-1], piece)
        else:
            merged.append(piece)
    return tuple(merged)


def _touch(left: Piece, right: Piece, same: Callable[[Node, Node], bool]) -> bool:
    gap = position(right.low) - position(left.high)
    if gap > 0 and not same(right.low, left.high):
        return False
    return gap < 0 or left.high_closed or right.low_closed


def _joined(left: Piece, right: Piece) -> Piece:
    ends = position(left.high), position(right.high)
    if ends[0] > ends[1]:
        return left
    closed = right.high_closed or (ends[0] == ends[1] and left.high_closed)
    return Piece(left.low, left.low_closed, right.high, closed)


def same_region(one: Region, other: Region, same: Callable[[Node, Node], bool]) -> bool:
    """Whether two regions have the same pieces."""
    if len(one) != len(other):
        return False
    for left, right in zip(one, other, strict=True):
        if left.low_closed != right.low_closed or left.high_closed != right.high_closed:
            return False
        if not (same(left.low, right.low) and same(left.high, right.high)):
            return False
    return True
