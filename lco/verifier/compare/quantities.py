"""Values with units: the units agree, or one is missing; per cent, parts of one and degrees have rules of their own."""

from __future__ import annotations

from collections.abc import Callable

from lco.verifier.compare.vectors import Same
from lco.verifier.numbers.rational import rational
from lco.verifier.read import units
from lco.verifier.tree import Node, is_scalar, number, walk


class Quantities:
    """Compares two values of which one at least has a unit; `units_differed` says that two known units did not agree."""

    def __init__(self, same: Same, scalars: Same, note: Callable[[str], None]) -> None:
        self.same = same
        self.scalars = scalars
        self.note = note
        self.units_differed = False

    def compare(self, gold: Node, answer: Node) -> bool:
        """Whether value and unit are the reference's."""
        (gold_unit, gold_value), (unit, value) = split(gold), split(answer)
        if {gold_unit, unit} <= {"%", ""}:
            return self._percent(gold_unit, gold_value, unit, value)
        if {gold_unit, unit} <= {"deg", "rad", ""} and "deg" in (gold_unit, unit):
            return self._angles(gold_unit, gold_value, unit, value)
        if {gold_unit, unit} <= {"", *units.PARTS_OF_ONE}:
            return self._parts_of_one(gold_unit, gold_value, unit, value)
        if not units.agree(gold_unit, unit):
            self.note(f"the units differ: {gold_unit} and {unit}")
            self.units_differed = True
            return False
        return self.same(gold_value, value)

    def _percent(self, gold_unit: str, gold: Node, unit: str, value: Node) -> bool:
        """50% is 1/2, and where per cent were asked for, 50; a plain 0.5 is never 0.5%."""
        if gold_unit and unit:
            return self.same(gold, value)
        if gold_unit:
            self.note("the reference is in per cent, the answer is not")
            return self.same(gold, value) or self.same(_hundredth(gold), value)
        self.note("the answer is in per cent, the reference is not")
        if is_scalar(value) and is_scalar(gold) and self.same(gold, _hundredth(value)):
            return True
        plain = rational(gold) if is_scalar(gold) else None
        return plain is not None and abs(plain) > 1 and self.same(gold, value)

    def _parts_of_one(self, gold_unit: str, gold: Node, unit: str, value: Node) -> bool:
        """8 ppm is 8/1000000, and where parts per million were asked for, 8."""
        if gold_unit and gold_unit != unit:
            return (not unit and self.same(gold, value)) or self.same(_part(gold, gold_unit), _part(value, unit))
        return self.same(gold, value if gold_unit == unit else _part(value, unit))

    def _angles(self, gold_unit: str, gold: Node, unit: str, value: Node) -> bool:
        """90° is 90, and it is π/2 where that is written with π or in radians."""
        if gold_unit == unit:
            return self.same(gold, value)
        if not (is_scalar(gold) and is_scalar(value)):
            return self.same(gold, value) if "" in (gold_unit, unit) else False
        if "" in (gold_unit, unit) and self.same(gold, value):
            return True
        plain, other = (value, unit) if gold_unit == "deg" else (gold, gold_unit)
        if other == "rad" or any(part.kind == "const" and part.value == "pi" for part in walk(plain)):
            left = Node("degree", None, (gold,)) if gold_unit == "deg" else gold
            right = Node("degree", None, (value,)) if unit == "deg" else value
            return self.scalars(left, right)
        return False


def is_quantity(node: Node) -> bool:
    """Whether the node is a value with a unit or in degrees, perhaps with a minus before it."""
    return node.kind in ("quantity", "degree") or _is_negative_quantity(node)


def _is_negative_quantity(node: Node) -> bool:
    return node.kind == "neg" and node.args[0].kind in ("degree", "quantity")


def split(node: Node) -> tuple[str, Node]:
    """A value's unit and the value without it."""
    if node.kind == "quantity":
        return node.value, node.args[0]
    if node.kind == "degree":
        return "deg", node.args[0]
    if _is_negative_quantity(node):
        unit, value = split(node.args[0])
        return unit, Node("neg", None, (value,))
    return "", node


def _hundredth(node: Node) -> Node:
    return _part(node, "%")


def _part(node: Node, unit: str) -> Node:
    """So many per cent or ppm as a number."""
    return Node("div", None, (node, number(units.PARTS_OF_ONE[unit]))) if unit else node
