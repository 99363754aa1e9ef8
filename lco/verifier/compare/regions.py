"""Sets of real numbers, so that `x > 2` and `(2, ∞)`, `x ∈ (1,2]` and `{x | 1 < x ≤ 2}`, `x ≥ 1, x ≠ 5` and `[1,5) ∪ (5,∞)`
are one thing.

A region is a tuple of pieces in rising order that do not touch. Ends are compared as expressions; to put them in order
their values are enough. Regions whose ends are not plain real constants are left to the comparison part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lco.verifier.compare.several import expand_signs
from lco.verifier.numbers.ladder import infinite
from lco.verifier.numbers.rational import rational
from lco.verifier.tree import (
    INFINITY,
    MINUS_INFINITY,
    ZERO,
    Node,
    UndefinedError,
    UnreadableError,
    is_scalar,
    symbols,
)

_REGIONAL = frozenset(("union", "builder", "minus", "reals", "intersection"))
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
Same = Callable[[Node, Node], bool]


class Piece(NamedTuple):
    """An interval; a single point has equal closed ends."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


Region = tuple[Piece, ...]
_EVERYTHING: Region = (Piece(MINUS_INFINITY, False, INFINITY, False),)


def is_regional(node: Node) -> bool:
    """Whether the node is written as a set of real numbers: an inequality, a union, a set builder, ℝ without a point."""
    if node.kind == "rel":
        return _is_inequality(node)
    if node.kind == "list":
        parts = node.args
        if _is_inequality(parts[0]) and parts[0].value == ("≠",) and all(map(is_scalar, parts[1:])):
            return True
        return all(part.kind in ("rel", *_REGIONAL) for part in parts) and any(map(_is_inequality, parts))
    if node.kind == "add":
        return node.args[0].kind in ("reals", "seq") and node.args[1].kind == "neg"
    return node.kind in _REGIONAL


def _is_inequality(node: Node) -> bool:
    return node.kind == "rel" and any(operator not in "=≈" for operator in node.value)


def region(node: Node, same: Same) -> Region | None:
    """The region a node describes, or None if it describes none; `same` decides whether two ends are equal."""
    try:
        return _Regions(same).read(node)
    except (UndefinedError, UnreadableError):
        return None


def same_region(one: Region, other: Region, same: Same) -> bool:
    """Whether two regions have the same pieces."""
    if len(one) != len(other):
        return False
    for left, right in zip(one, other, strict=True):
        if left.low_closed != right.low_closed or left.high_closed != right.high_closed:
            return False
        if not (same(left.low, right.low) and same(left.high, right.high)):
            return False
    return True


class _Regions:
    """Reads nodes as regions and combines regions."""

    def __init__(self, same: Same) -> None:
        self.same = same

    def read(self, node: Node) -> Region | None:
        kind = node.kind
        if kind == "reals":
            return _EVERYTHING
        if kind == "nothing":
            return ()
        if kind == "seq" and len(node.args) == 2 and all(map(_is_plain, node.args)):
            return self._interval(node)
        if kind == "set" and all(map(_is_plain, node.args)):
            return self.union([(Piece(point, True, point, True),) for point in node.args])
        if kind == "rel":
            return self._relation(node)
        if kind == "builder":
            return self._builder(node)
        if kind == "list":
            return self._conditions(node)
        parts = [self.read(part.args[0] if kind == "add" and part.kind == "neg" else part) for part in node.args]
        regions = [part for part in parts if part is not None]
        if kind not in ("union", "intersection", "minus", "add") or len(regions) < len(node.args):
            return None
        if kind == "union":
            return self.union(regions)
        first, *others = regions
        for other in others:
            first = self.intersection(first, other if kind == "intersection" else self.complement(other))
        return first

    def _interval(self, node: Node) -> Region:
        low, high = node.args
        piece = Piece(
            low, node.value[0] == "[" and not infinite(low), high, node.value[1] == "]" and not infinite(high)
        )
        if self._is_empty(piece):
            raise UnreadableError("an interval whose ends are the wrong way round")
        return (piece,)

    def _relation(self, node: Node) -> Region | None:
        """One letter between constants: x ≥ 2, -2 ≤ x < 7, x ≠ 3, x = 3, x ∈ S, |x - 1| < 2."""
        operators, parts = node.value, node.args
        if operators in (("∈",), ("∉",)):
            inside = self.read(parts[1]) if parts[0].kind == "sym" else None
            return inside if inside is None or operators == ("∈",) else self.complement(inside)
        if len(parts) == 3 and parts[1].kind == "fn" and (set(operators) <= set("<≤") or set(operators) <= set(">≥")):
            pair = [self._relation(Node("rel", (operators[at],), parts[at : at + 2])) for at in (0, 1)]  # 0 < |x| < 1
            return None if pair[0] is None or pair[1] is None else self.intersection(pair[0], pair[1])
        if len(parts) == 2 and parts[1].kind == "fn" and operators[0] in _FLIPPED:
            operators, parts = (_FLIPPED[operators[0]],), (parts[1], parts[0])
        if len(parts) == 2 and parts[0].kind == "fn" and parts[0].value == "abs" and _is_plain(parts[1]):
            return self._absolute(operators[0], parts[0].args[0], parts[1])
        places = [at for at, part in enumerate(parts) if part.kind in ("sym", "call")]
        if len(places) != 1 or len(parts) > 3 or (len(parts) == 3 and places[0] != 1):
            return None
        at = places[0]
        others = [part for place, part in enumerate(parts) if place != at]
        if operators in (("≠",), ("=",)):
            points = self._points(others[0])
            return points if points is None or operators == ("=",) else self.complement(points)
        if not all(map(_is_plain, others)) or any(operator not in _FLIPPED for operator in operators):
            return None
        region: Region = _EVERYTHING
        for index, operator in enumerate(operators):
            # Written from the letter's side: x < bound or x > bound.
            seen = _FLIPPED[operator] if index < at else operator
            region = self.intersection(region, (_half_line(seen, others[index if len(others) > 1 else 0]),))
        if not (set(operators) <= set("<≤") or set(operators) <= set(">≥")):
            return None  # 1 < x > 2 is no chain
        return region

    def _points(self, node: Node) -> Region | None:
        """The numbers that = and ≠ speak of, also ±2 and {2, 3}."""
        values = node if node.kind == "set" else expand_signs(node, independent=True)
        points = values.args if values.kind in ("list", "set") else (values,)
        return (
            self.union([(Piece(point, True, point, True),) for point in points])
            if all(map(_is_plain, points))
            else None
        )

    def _absolute(self, operator: str, inner: Node, bound: Node) -> Region | None:
        """|x| < 3, |x - 1| ≥ 3."""
        shift = _shift(inner)
        size = position(bound)
        if shift is None or operator not in (*_FLIPPED, "≠") or size < 0 or (size == 0 and operator not in (">", "≠")):
            return None
        if size == 0:
            return self.complement((Piece(shift, True, shift, True),))
        low, high = (Node("add", None, (shift, side)) for side in (Node("neg", None, (bound,)), bound))
        within = (Piece(low, operator in "≤>", high, operator in "≤>"),)
        return within if operator in "<≤" else self.complement(within)

    def _builder(self, node: Node) -> Region | None:
        variable, condition = node.args
        base: Region | None = _EVERYTHING
        if variable.kind == "rel" and variable.value == ("∈",):
            base, variable = self.read(variable.args[1]), variable.args[0]
        if variable.kind != "sym" or symbols(condition) != {variable.value} or base is None:
            return None
        inside = self.read(condition)
        return None if inside is None else self.intersection(base, inside)

    def _conditions(self, node: Node) -> Region | None:
        """Conditions on one letter: alternatives, or together; with commas together, and where that is nothing, alternatives."""
        first = node.args[0]
        if first.kind == "rel" and first.value == ("≠",) and all(map(is_scalar, node.args[1:])):  # x ≠ 2, 3
            points = [self._points(part) for part in (first.args[1], *node.args[1:])]
            found = [part for part in points if part is not None]
            return self.complement(self.union(found)) if len(found) == len(points) else None
        names = {_letter(part) for part in node.args if part.kind == "rel"}
        parts = [self.read(part) for part in node.args]
        regions = [part for part in parts if part is not None]
        if len(names) != 1 or None in names or len(regions) < len(parts):
            return None
        if node.value == "or":
            return self.union(regions)
        together = regions[0]
        for other in regions[1:]:
            together = self.intersection(together, other)
        return together if together or node.value == "and" else self.union(regions)

    # combining --------------------------------------------------------------------------------------------------

    def union(self, regions: Sequence[Region]) -> Region:
        """Pieces in order, overlapping and touching ones joined."""
        pieces = [piece for region in regions for piece in region]
        ordered = sorted(pieces, key=lambda piece: (position(piece.low), not piece.low_closed))
        merged: list[Piece] = []
        for piece in ordered:
            if merged and self._touch(merged[-1], piece):
                merged[-1] = self._joined(merged[-1], piece)
            else:
                merged.append(piece)
        return tuple(merged)

    def intersection(self, one: Region, other: Region) -> Region:
        """What lies in both."""
        found = []
        for left in one:
            for right in other:
                low = self._order(left.low, right.low)
                high = self._order(left.high, right.high)
                piece = Piece(
                    right.low if low < 0 else left.low,
                    (left.low_closed or low < 0) and (right.low_closed or low > 0),
                    left.high if high < 0 else right.high,
                    (left.high_closed or high > 0) and (right.high_closed or high < 0),
                )
                if not self._is_empty(piece):
                    found.append(piece)
        return tuple(sorted(found, key=lambda piece: position(piece.low)))

    def complement(self, region: Region) -> Region:
        """The rest of the line."""
        ends: list[tuple[Node, bool]] = [(MINUS_INFINITY, False)]
        for piece in region:
            ends += [(piece.low, not piece.low_closed), (piece.high, not piece.high_closed)]
        ends.append((INFINITY, False))
        gaps = [Piece(*ends[at], *ends[at + 1]) for at in range(0, len(ends), 2)]
        return tuple(
            piece._replace(
                low_closed=piece.low_closed and not infinite(piece.low),
                high_closed=piece.high_closed and not infinite(piece.high),
            )
            for piece in gaps
            if not self._is_empty(piece)
        )

    def _order(self, one: Node, other: Node) -> int:
        """-1, 0 or 1: ends that are too close to be told apart by their values are compared as expressions."""
        left, right = position(one), position(other)
        if left == right or (abs(left - right) <= 1e-9 * max(abs(left), abs(right)) and self.same(one, other)):
            return 0
        return -1 if left < right else 1

    def _is_empty(self, piece: Piece) -> bool:
        order = self._order(piece.low, piece.high)
        return order > 0 or (order == 0 and (not (piece.low_closed and piece.high_closed) or bool(infinite(piece.low))))

    def _touch(self, left: Piece, right: Piece) -> bool:
        order = self._order(left.high, right.low)
        return order > 0 or (order == 0 and (left.high_closed or right.low_closed))

    def _joined(self, left: Piece, right: Piece) -> Piece:
        order = self._order(left.high, right.high)
        if order > 0:
            return left
        return Piece(left.low, left.low_closed, right.high, right.high_closed or (order == 0 and left.high_closed))


def _is_plain(node: Node) -> bool:
    return is_scalar(node) and not symbols(node)


def _letter(node: Node) -> str | None:
    """The one letter a relation is about."""
    names = symbols(node)
    return next(iter(names)) if len(names) == 1 else None


def _half_line(operator: str, bound: Node) -> Piece:
    """x < bound, x ≥ bound and the like."""
    closed = operator in "≤≥" and not infinite(bound)
    return Piece(MINUS_INFINITY, False, bound, closed) if operator in "<≤" else Piece(bound, closed, INFINITY, False)


def _shift(inner: Node) -> Node | None:
    """The number that is taken from the letter in `x - 1`; 0 for the letter alone."""
    if inner.kind == "sym":
        return ZERO
    if inner.kind != "add" or len(inner.args) != 2:
        return None
    letters = [part for part in inner.args if part.kind == "sym"]
    numbers = [part for part in inner.args if _is_plain(part)]
    return Node("neg", None, (numbers[0],)) if len(letters) == len(numbers) == 1 else None


def position(node: Node) -> float:
    """Where a real constant stands on the line, to put ends in order."""
    sign = infinite(node)
    if sign:
        return float("inf") * sign
    exact = rational(node)
    if exact is not None:
        try:
            return float(exact)
        except OverflowError:
            return float("inf") if exact > 0 else float("-inf")
    from mpmath.libmp import to_float  # mpmath, here and below: only where it is needed

    from lco.verifier.numbers.numeric import Evaluator, is_complex

    value = Evaluator(100, {}, False).value(node)
    if is_complex(value):
        raise UndefinedError("an end of an interval that is not real")
    return float(to_float(value, strict=False))
