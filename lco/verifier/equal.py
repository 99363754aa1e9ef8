"""Compare two read answers, whatever they are: the rules of docs/verifier.md, one method each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lco.verifier import units, words
from lco.verifier.listed import listed
from lco.verifier.nodes import ONE, Node, UndefinedError, is_scalar, number, symbols, walk
from lco.verifier.rational import rational
from lco.verifier.regions import region, same_region
from lco.verifier.relations import Relations
from lco.verifier.scalars import Comparison
from lco.verifier.several import as_values, expand_signs, has_signs, is_collection, plainer, renamed

_REGIONAL = frozenset(listed("union builder minus reals intersection"))


class Equality(Relations):
    """Decides whether an answer equals the reference; `reason` says why not where that is not obvious."""

    def __init__(self, comparison: Comparison, note: Callable[[str], None]) -> None:
        self.comparison = comparison
        self.note = note
        self.reason = "different"

    def scalars(self, gold: Node, answer: Node) -> bool:
        """Two expressions."""
        return self.comparison.compare(gold, answer)

    def same(self, gold: Node, answer: Node) -> bool:
        """Whether the answer states what the reference states."""
        gold, answer = plainer(gold), plainer(answer)
        kinds = {gold.kind, answer.kind}
        if self._regional(gold) or self._regional(answer):
            one, other = region(gold, self._ends), region(answer, self._ends)
            if one is not None and other is not None:
                self.note("both are sets of real numbers; compared piece by piece")
                return self._letters_agree(gold, answer) and same_region(one, other, self._ends)
        if "rel" in kinds:
            return self.relations(gold, answer)
        if kinds & {"quantity", "degree"} or _neg_degree(gold) or _neg_degree(answer):
            return self._quantities(gold, answer)
        if kinds == {"based", "num"}:
            return _digits(gold, answer)
        if has_signs(gold) or has_signs(answer):
            return self._signed(gold, answer)
        if is_scalar(gold) and is_scalar(answer):
            return self.scalars(gold, answer)
        if is_collection(gold) or is_collection(answer):
            return self._collections(gold, answer)
        if kinds <= {"seq", "matrix"}:
            return self._vectors(gold, answer)
        if "ratio" in kinds:
            return self._ratios(gold, answer)
        return len(kinds) == 1 and self._alike(gold, answer)

    def _alike(self, gold: Node, answer: Node) -> bool:
        """Two answers of one of the remaining kinds."""
        kind = gold.kind
        if kind == "based":
            return _based(gold.value) == _based(answer.value)
        if kind == "time":
            return words.same_time(gold.value, answer.value)
        if kind == "date":
            years = gold.value[2], answer.value[2]
            return gold.value[:2] == answer.value[:2] and (None in years or years[0] == years[1])
        if kind == "cases":
            return self._unordered(gold.args, answer.args, self._rows)
        if kind == "builder":
            return self._builders(gold, answer)
        if kind in ("union", "intersection"):
            return self._unordered(gold.args, answer.args, self.same)
        if kind == "minus":
            return self._elements(gold.args, answer.args)
        return gold == answer

    # numbers with units -----------------------------------------------------------------------------------------

    def _quantities(self, gold: Node, answer: Node) -> bool:
        """The units agree, or one is missing; percent and degrees have rules of their own."""
        (gold_unit, gold_value), (unit, value) = _split(gold), _split(answer)
        if {gold_unit, unit} <= {"%", ""}:
            return self._percent(gold_unit, gold_value, unit, value)
        if {gold_unit, unit} <= {"deg", "rad", ""} and "deg" in (gold_unit, unit):
            return self._angles(gold_unit, gold_value, unit, value)
        if not units.agree(gold_unit, unit):
            self.note(f"the units differ: {gold_unit} and {unit}")
            self.reason = "different_unit"
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

    # sets of real numbers ---------------------------------------------------------------------------------------

    def _regional(self, node: Node) -> bool:
        if node.kind == "rel":
            return any(operator not in "=≈" for operator in node.value)
        if node.kind == "list":
            return node.value in ("and", "or") and all(
                part.kind == "rel" and any(operator not in "=≈" for operator in part.value) for part in node.args
            )
        return node.kind in _REGIONAL

    def _ends(self, one: Node, other: Node) -> bool:
        return self.scalars(one, other)

    def _letters_agree(self, gold: Node, answer: Node) -> bool:
        """`x ≥ 2` is not `y ≥ 2`; an interval names no letter."""
        names = []
        for node in (gold, answer):
            if node.kind in ("rel", "list"):
                names.append(symbols(node))
        return len(names) < 2 or names[0] == names[1]

    # several values ---------------------------------------------------------------------------------------------

    def _signed(self, gold: Node, answer: Node) -> bool:
        """`1 ± √2` stands for its two values."""
        self.note("± is written out")
        if gold == answer:
            return True
        for independent in (False, True):
            left, right = expand_signs(gold, independent), expand_signs(answer, independent)
            if self.same(left, right):
                return True
        return False

    def _collections(self, gold: Node, answer: Node) -> bool:
        """Lists and sets: order is free; in a set, and against a set, repetition is too."""
        if "nothing" in (gold.kind, answer.kind):
            return gold.kind == answer.kind
        if self._assignments(gold) or self._assignments(answer):
            return self._assigned(gold, answer)
        left, right = as_values(gold), as_values(answer)
        if not (is_collection(gold) and is_collection(answer)):
            if answer.kind == "list" and answer.value == "or":
                # "15 39/40, or 639/40": one value in several forms, every one of them right.
                return all(self.same(gold, value) for value in right)
            single = left if is_collection(gold) else right
            return len(single) == 1 and self.same(left[0], right[0])
        if "set" in (gold.kind, answer.kind):
            left, right = self._distinct(left), self._distinct(right)
        return self._unordered(left, right, self.same)

    def _distinct(self, values: Sequence[Node]) -> list[Node]:
        kept: list[Node] = []
        for value in values:
            if not any(self._quietly(value, other) for other in kept):
                kept.append(value)
        return kept

    def _quietly(self, one: Node, other: Node) -> bool:
        try:
            return self.same(one, other)
        except UndefinedError:
            return False

    def _unordered(self, left: Sequence[Node], right: Sequence[Node], same: Callable[[Node, Node], bool]) -> bool:
        """Whether the values can be paired off."""
        if len(left) != len(right):
            self.note(f"{len(right)} values where the reference has {len(left)}")
            return False
        free = list(right)
        for value in left:
            found = next((at for at, other in enumerate(free) if value == other), None)
            if found is None:
                found = next((at for at, other in enumerate(free) if same(value, other)), None)
            if found is None:
                return False
            del free[found]
        return True

    def _elements(self, left: Sequence[Node], right: Sequence[Node]) -> bool:
        return len(left) == len(right) and all(self.same(one, other) for one, other in zip(left, right, strict=True))

    def _assignments(self, node: Node) -> bool:
        """`a = 1, b = 2`: values with different names."""
        if node.kind != "list" or not all(part.kind == "rel" and set(part.value) == {"="} for part in node.args):
            return False
        return as_values(node) == list(node.args)

    def _assigned(self, gold: Node, answer: Node) -> bool:
        """Named values go by name; against values without names they keep their order."""
        if self._assignments(gold) and self._assignments(answer):
            return self._unordered(gold.args, answer.args, self.same)
        left = [part.args[-1] if part.kind == "rel" else part for part in gold.args]
        right = [part.args[-1] if part.kind == "rel" else part for part in answer.args]
        return answer.kind in ("list", "seq") and gold.kind in ("list", "seq") and self._elements(left, right)

    # vectors and the rest ---------------------------------------------------------------------------------------

    def _vectors(self, gold: Node, answer: Node) -> bool:
        """Tuples and intervals need the same brackets in the same places; a vector may be a tuple or a matrix."""
        if gold.kind == answer.kind == "matrix":
            return len(gold.args) == len(answer.args) and all(
                self._elements(one.args, other.args) for one, other in zip(gold.args, answer.args, strict=True)
            )
        if gold.kind == answer.kind == "seq":
            if len(gold.args) == 2 and gold.value != answer.value:
                self.note(f"the brackets differ: {gold.value} and {answer.value}")
                return False
            return self._elements(gold.args, answer.args)
        matrix, tuple_ = (gold, answer) if gold.kind == "matrix" else (answer, gold)
        if tuple_.value != "()" and len(tuple_.args) == 2:
            return False
        rows = matrix.args
        entries = rows[0].args if len(rows) == 1 else tuple(row.args[0] for row in rows)
        if len(rows) > 1 and len(rows[0].args) > 1:
            return False
        return self._elements(entries, tuple_.args) if gold is matrix else self._elements(tuple_.args, entries)

    def _ratios(self, gold: Node, answer: Node) -> bool:
        """3:5 is 6:10 and 3/5, but not 5:3. What looks like a time of day (9:24) is compared number by number."""
        if gold.kind == answer.kind == "ratio":
            if len(gold.args) != len(answer.args):
                return False
            if all(self.scalars(one, other) for one, other in zip(gold.args, answer.args, strict=True)):
                return True
            if _looks_like_time(gold) or _looks_like_time(answer):
                return False
            first, start = gold.args[0], answer.args[0]
            return all(
                self.scalars(Node("mul", None, (first, other)), Node("mul", None, (start, one)))
                for one, other in zip(gold.args[1:], answer.args[1:], strict=True)
            )
        ratio, other = (gold, answer) if gold.kind == "ratio" else (answer, gold)
        if len(ratio.args) != 2 or not is_scalar(other) or _looks_like_time(ratio):
            return False
        quotient = Node("div", None, ratio.args)
        return self.scalars(quotient, other) if ratio is gold else self.scalars(other, quotient)

    def _rows(self, gold: Node, answer: Node) -> bool:
        return self._elements(gold.args, answer.args)

    def _builders(self, gold: Node, answer: Node) -> bool:
        """{x | …} and {t | …} are the same set if the conditions are, the letter being bound."""
        if gold.args[0].kind == "sym" and answer.args[0].kind == "sym":
            answer = renamed(answer, answer.args[0].value, gold.args[0].value)
        left, right = as_values(gold.args[1]), as_values(answer.args[1])
        return self.same(gold.args[0], answer.args[0]) and self._unordered(left, right, self.same)


def _neg_degree(node: Node) -> bool:
    return node.kind == "neg" and node.args[0].kind in ("degree", "quantity")


def _split(node: Node) -> tuple[str, Node]:
    """A value's unit and the value without it."""
    if node.kind == "quantity":
        return node.value, node.args[0]
    if node.kind == "degree":
        return "deg", node.args[0]
    if _neg_degree(node):
        unit, value = _split(node.args[0])
        return unit, Node("neg", None, (value,))
    return "", node


def _hundredth(node: Node) -> Node:
    return Node("div", None, (node, number(100)))


def _based(value: tuple[str, int]) -> tuple[str, int]:
    digits, base = value
    return digits.upper().lstrip("0") or "0", base


def _digits(one: Node, other: Node) -> bool:
    """52 for 52 in base 8: the base is missing like a unit."""
    based, plain = (one, other) if one.kind == "based" else (other, one)
    return str(plain.value) == _based(based.value)[0]


def _looks_like_time(node: Node) -> bool:
    value = rational(node.args[1]) if len(node.args) == 2 else ONE.value
    return len(node.args) != 2 or value is None or value == 0 or (value >= 10 and value < 60)
