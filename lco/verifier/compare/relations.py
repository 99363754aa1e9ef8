"""Answers with a relation sign: equations, named values, inequalities, chains.

`x = 5` is the value 5 with a name. A name may be missing on one side; two names must agree. Equations that are not of
that form are equal if one is a constant multiple of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from lco.verifier.compare.quantities import split
from lco.verifier.compare.several import renamed
from lco.verifier.compare.vectors import Same
from lco.verifier.numbers.points import points
from lco.verifier.read.names import GREEK
from lco.verifier.tree import ZERO, Node, UndefinedError, is_scalar, symbols, walk

_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
_ANGLE_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "floor", "ceil"))
_COORDINATES = frozenset("xyz")


def is_name(node: Node) -> bool:
    """What may stand before = as a name: x, f(x), AB, ∠ABC."""
    if node.kind == "sym":
        return True
    if node.kind == "seq":
        return all(part.kind == "sym" for part in node.args)
    if node.kind == "call":
        return all(part.kind in ("sym", "num") for part in node.args)
    return _is_segment(node)


def _is_segment(node: Node) -> bool:
    """AB: points side by side."""
    if node.kind == "sym":
        figure = node.value.startswith(("bar ", "vector "))
        return figure or (len(node.value) > 1 and node.value[0].isupper() and "_" not in node.value)
    return node.kind == "mul" and all(part.kind == "sym" and part.value[0].isupper() for part in node.args)


def is_quantity_name(node: Node) -> bool:
    """A name, or what a figure is described by: |PQ|, KM/LM, AB + BC, V_1:V_2, sin A."""
    kind, parts = node.kind, node.args
    if is_name(node):
        return True
    if kind == "ratio":
        return all(map(is_name, parts))
    if kind == "fn" and node.value == "abs":
        return _is_segment(parts[0]) or parts[0] in (Node("sym", "z"), Node("sym", "w"))
    if kind == "fn" and parts[0].kind == "sym":
        return node.value in _ANGLE_FUNCTIONS and _is_angle(parts[0].value)
    if kind == "pow":
        return _is_segment(parts[0]) and parts[1].kind == "num"
    if kind in ("mul", "div"):  # AB/CD
        return all(part.kind in ("mul", "div", "sym") for part in walk(node)) and all(
            name[0].isupper() for name in symbols(node)
        )
    return kind == "add" and all(map(_is_segment, parts))


def says_what_it_values(node: Node) -> bool:
    """An expression before = that says which quantity has the value behind it: x + y, mn, 2l + 2w.

    A side of an equation that has to be solved or drawn (2x + 3y, x_1x_2, x² + y², a^b, a², |x|, y/x) does not.
    """
    if node.kind == "add" and all(part.kind == "sym" for part in node.args):
        return True
    names = symbols(node)
    if len(names) < 2 or any(name[0] in _COORDINATES for name in names):
        return False
    exponents = (part.args[1] for part in walk(node) if part.kind == "pow")
    return is_scalar(node) and not any(map(symbols, exponents))


def _is_angle(name: str) -> bool:
    return name[0].isupper() or name.startswith("angle ") or name in GREEK


def named(node: Node) -> tuple[Node, Node] | None:
    """The name and the value of `x = 5` or `5 = x`; a chain `x = 1/2 = 0.5` leaves the shorter chain as the value."""
    if node.kind != "rel" or node.value[0] not in "=≈":
        return None
    first, rest = node.args[0], node.args[1:]
    if is_name(first) and not (first.kind == "mul" and len(rest) == 1 and is_name(rest[0])):
        return first, rest[0] if len(rest) == 1 else Node("rel", node.value[1:], rest)
    if len(rest) == 1 and is_name(rest[0]):
        return rest[0], first
    if len(rest) == 1 and not symbols(rest[0]) and is_quantity_name(first):
        return first, rest[0]
    return None


class Relations:
    """Compares two answers of which one at least is a relation; `same` compares what stands beside its signs."""

    def __init__(self, same: Same, scalars: Same, note: Callable[[str], None]) -> None:
        self.same = same
        self.scalars = scalars
        self.note = note

    def compare(self, gold: Node, answer: Node) -> bool:
        """At least one of the two is a relation."""
        if gold.kind == answer.kind == "rel":
            if "=" in gold.value and "=" in answer.value:
                return self._equations(gold, answer)
            if "≈" in gold.value or "≈" in answer.value:
                return self._values(gold, answer)
            return self._inequalities(gold, answer)
        return self._values(gold, answer)

    def _values(self, gold: Node, answer: Node) -> bool:
        """A relation against a value: the name is dropped, a chain of constants is taken at its word."""
        if gold.kind == "rel":
            split = named(gold)
            if split is not None:
                self.note("the name before = in the reference is dropped")
                if _mentions(*split):
                    return False
                return self.same(_without_formulas(split[1]), answer)
            return _constant_chain(gold) and any(self.same(part, answer) for part in gold.args)
        split = named(answer)
        if split is not None:
            name, value = split
            if value == name or _mentions(name, value):
                self.note("what stands before = is no name: it occurs behind it, too")
                return False
            self.note("the name before = in the answer is dropped")
            return self.same(gold, _without_formulas(value))
        if _constant_chain(answer):
            return self._chain(gold, answer)
        left, right = answer.args[0], answer.args[-1]
        if answer.value == ("=",) and not symbols(right) and not symbols(gold) and says_what_it_values(left):
            self.note("the answer names what it gives the value of")
            return self.same(gold, right)
        return False

    def _chain(self, gold: Node, answer: Node) -> bool:
        """`2/3 = 4/6`: every side has to be right; `2/3 ≈ 0.667`: the exact side has to be."""
        parts = answer.args
        if any(one == other for one, other in pairwise(parts)):
            self.note("the answer is a tautology")
            return False
        exact = [parts[0]]
        for operator, part in zip(answer.value, parts[1:], strict=True):
            if operator == "=":
                exact.append(part)
            elif operator != "≈" or not self._near(parts[0], part):
                return False
        if all(self.same(gold, part) for part in exact):
            return True
        # The reference itself may be the rounded side.
        return len(exact) == 1 and len(parts) == 2 and self.same(gold, parts[1])

    def _near(self, one: Node, other: Node) -> bool:
        from lco.verifier.numbers.numeric import Evaluator, within  # mpmath: only where it is needed

        values = [Evaluator(80, {}, False).value(split(part)[1]) for part in (other, one)]
        return within(values[0], values[1], 0.02)

    def _equations(self, gold: Node, answer: Node) -> bool:
        one, other = named(gold), named(answer)
        if one is not None and other is not None:
            value = self._under_name(one[0], *other)
            if value is not None:
                return other[1] != other[0] and self.same(one[1], value)
            if one[0].kind == other[0].kind == "call":
                return False
        if one is None and other is None and _constant_chain(gold):
            return _constant_chain(answer) and any(self._chain(part, answer) for part in gold.args)
        if len(gold.args) != 2 or len(answer.args) != 2 or not all(map(is_scalar, gold.args + answer.args)):
            return gold == answer
        self.note("both are equations; one has to be a multiple of the other")
        return self._proportional(_difference(gold), _difference(answer))

    def _under_name(self, name: Node, other: Node, value: Node) -> Node | None:
        """The answer's value as the reference's name would have it, None if the names are of different things."""
        if name == other:
            return value
        if name.kind == other.kind == "call":
            if name.value != other.value or len(name.args) != len(other.args):
                return None
            for mine, theirs in zip(name.args, other.args, strict=True):
                if mine.kind != theirs.kind or (mine.kind != "sym" and mine != theirs):
                    return None
                if mine.kind == "sym":
                    value = renamed(value, theirs.value, mine.value)
            return value
        if {name.kind, other.kind} == {"call", "sym"}:
            call, letter = (name, other) if name.kind == "call" else (other, name)
            return value if letter.value in ("y", call.value) else None
        return None

    def _proportional(self, one: Node, other: Node) -> bool:
        """one = c·other for a constant c: then one(x)·other(y) = one(y)·other(x) for all x and y."""
        names = symbols(one)
        if not names or names != symbols(other):
            return False
        if self.scalars(ZERO, one) or self.scalars(ZERO, other):
            self.note("an equation that is always true says nothing")
            return False
        far_one, far_other = one, other
        for name in names:
            far_one, far_other = renamed(far_one, name, name + "°"), renamed(far_other, name, name + "°")
        return self.scalars(Node("mul", None, (one, far_other)), Node("mul", None, (far_one, other)))

    def _inequalities(self, gold: Node, answer: Node) -> bool:
        """Relations that are no sets of numbers: the same signs between the same sides, read from either end."""
        one, other = _rising(gold), _rising(answer)
        if one.value != other.value or len(one.args) != len(other.args):
            return False
        if all(self.same(left, right) for left, right in zip(one.args, other.args, strict=True)):
            return True
        if len(one.args) != 2 or not all(map(is_scalar, one.args + other.args)) or one.value[0] not in "<≤≠":
            return False
        left, right = _difference(one), _difference(other)
        return self._proportional(left, right) and (one.value == ("≠",) or self._same_sign(left, right))

    def _same_sign(self, one: Node, other: Node) -> bool:
        """Whether proportional expressions are so by a positive factor, seen at the first point that tells."""
        from lco.verifier.numbers.numeric import Evaluator, is_complex  # as above

        for point in points(symbols(one) | symbols(other)):
            try:
                values = [Evaluator(80, point, True).value(node) for node in (one, other)]
            except UndefinedError:
                continue
            if not any(map(is_complex, values)) and all(value[1] for value in values):
                return bool(values[0][0] == values[1][0])
        return False


def _mentions(name: Node, value: Node) -> bool:
    """Whether the letter of a name is in its value: y' = y and f(n) = f(n - 1) + 2 are equations to be solved."""
    if name.kind not in ("sym", "call"):
        return False
    letter = name.value.rstrip("'")
    value = _without_formulas(value)
    return any(part.kind in ("sym", "call") and part.value.rstrip("'") == letter for part in walk(value))


def _without_formulas(node: Node) -> Node:
    """In `V = πr²h = 75π` what stands behind V, without the sides that still have letters, if one without is left."""
    if node.kind != "rel" or set(node.value) != {"="} or all(map(symbols, node.args)):
        return node
    first = next(at for at, part in enumerate(node.args) if not symbols(part))
    kept = node.args[first:]
    return kept[0] if len(kept) == 1 else Node("rel", node.value[first:], kept)


def _constant_chain(node: Node) -> bool:
    """`0.56 = 56%`: sides without letters, joined by = or ≈."""
    if node.kind != "rel" or any(operator not in "=≈" for operator in node.value):
        return False
    return not any(part.kind in ("sym", "call") for part in walk(node))


def _difference(node: Node) -> Node:
    return Node("add", None, (node.args[0], Node("neg", None, (node.args[1],))))


def _rising(node: Node) -> Node:
    """a > b as b < a."""
    if node.value and all(operator in ">≥" for operator in node.value):
        return Node("rel", tuple(_FLIPPED[operator] for operator in reversed(node.value)), tuple(reversed(node.args)))
    return node
