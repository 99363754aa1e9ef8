"""Answers of several values: lists, sets, and what `±` stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lco.verifier.compare.vectors import Same, ordered
from lco.verifier.tree import Node, UndefinedError, is_scalar, walk

_MAX_SIGNS = 4
_MANY_PAIRS = 16


class Several:
    """Compares lists and sets; `same` compares two of their values, `apart` tells quickly that two expressions differ."""

    def __init__(self, same: Same, apart: Same, note: Callable[[str], None]) -> None:
        self.same = same
        self.apart = apart
        self.note = note

    def compare(self, gold: Node, answer: Node) -> bool:
        """Lists and sets: order is free; in a set, and against a set, repetition is too."""
        if "nothing" in (gold.kind, answer.kind):
            return gold.kind == answer.kind
        if grouped(gold) or grouped(answer):
            return self._groups(gold, answer)
        if _assignments(gold) or _assignments(answer):
            return self._assigned(gold, answer)
        if {gold.value, answer.value} == {"or", "and"} and all(part.kind == "text" for part in gold.args):
            return False  # one name or the other is not both
        left, right = as_values(gold), as_values(answer)
        if not (is_collection(gold) and is_collection(answer)):
            if answer.kind == "list" and answer.value == "or":
                # "15 39/40, or 639/40": one value in several forms, every one of them right.
                return all(self.same(gold, value) for value in right)
            single = left if is_collection(gold) else right
            return len(single) == 1 and self.same(left[0], right[0])
        if "set" in (gold.kind, answer.kind):
            return self._same_set(left, right)
        return self.unordered(left, right, self.same)

    def _same_set(self, left: Sequence[Node], right: Sequence[Node]) -> bool:
        """Every value of each stands in the other, however often."""
        match = self._matcher(len(left) * len(right), self._quietly)
        found = [next((at for at, other in enumerate(left) if match(other, value)), None) for value in right]
        missing = set(range(len(left))) - set(found)
        return None not in found and all(any(match(left[at], other) for other in right) for at in missing)

    def _matcher(self, pairs: int, same: Same) -> Same:
        """Where there are many pairs, expressions that certainly differ are told apart before they are compared."""
        if pairs <= _MANY_PAIRS:
            return same
        return lambda one, other: (
            not (is_scalar(one) and is_scalar(other) and self.apart(one, other)) and same(one, other)
        )

    def unordered(self, left: Sequence[Node], right: Sequence[Node], same: Same) -> bool:
        """Whether the values can be paired off."""
        if len(left) != len(right):
            self.note(f"{len(right)} values where the reference has {len(left)}")
            return False
        free = list(right)
        match = self._matcher(len(left) * len(right), same)
        for value in left:
            found = next((at for at, other in enumerate(free) if value == other), None)
            if found is None:
                found = next((at for at, other in enumerate(free) if match(value, other)), None)
            if found is None:
                return False
            del free[found]
        return True

    def ordered(self, left: Sequence[Node], right: Sequence[Node]) -> bool:
        """The same values in the same order."""
        return ordered(left, right, self.same)

    def conditions(self, gold: Node, answer: Node) -> bool:
        """The conditions of two set builders, in any order."""
        return self.unordered(as_values(gold), as_values(answer), self.same)

    def _quietly(self, one: Node, other: Node) -> bool:
        try:
            return self.same(one, other)
        except UndefinedError:
            return False

    def _groups(self, gold: Node, answer: Node) -> bool:
        """Solutions of several named values, in any order; against pairs without names they keep theirs."""
        one, other = grouped(gold), grouped(answer)
        names = tuple((one or other or [{}])[0])
        if one and other and set(names) != set(other[0]):
            return False
        left, right = (
            [Node("seq", "()", tuple(group[name] for name in names)) for group in groups] if groups else as_values(node)
            for groups, node in ((one, gold), (other, answer))
        )
        return self.unordered(left, right, self.same)

    def _assigned(self, gold: Node, answer: Node) -> bool:
        """Named values go by name; against values without names they keep their order."""
        if _assignments(gold) and _assignments(answer):
            return self.unordered(gold.args, answer.args, self.same)
        left = [part.args[-1] if part.kind == "rel" else part for part in gold.args]
        right = [part.args[-1] if part.kind == "rel" else part for part in answer.args]
        return answer.kind in ("list", "seq") and gold.kind in ("list", "seq") and self.ordered(left, right)


def grouped(node: Node) -> list[dict[Node, Node]] | None:
    """`p = 3, q = 4; p = 5, q = 6` as one assignment after another; None where names do not come round."""
    if node.kind != "list" or not all(part.kind == "rel" and part.value == ("=",) for part in node.args):
        return None
    names = [part.args[0] for part in node.args]
    if len(set(names)) == len(names):  # x_1, y_1, x_2, y_2
        names = list(map(_stem, names))
    size = len(dict.fromkeys(names))
    groups = [names[at : at + size] for at in range(0, len(names), size)]
    if size < 2 or len(groups) < 2 or any(set(group) != set(groups[0]) or len(group) < size for group in groups):
        return None
    values = [part.args[1] for part in node.args]
    return [dict(zip(group, values[at * size :], strict=False)) for at, group in enumerate(groups)]


def _assignments(node: Node) -> bool:
    """`a = 1, b = 2`: values with different names."""
    if node.kind != "list" or not all(part.kind == "rel" and set(part.value) == {"="} for part in node.args):
        return False
    return as_values(node) == list(node.args)


def is_collection(node: Node) -> bool:
    """Whether the node is a list, a set or the empty set."""
    return node.kind in ("list", "set", "nothing")


def as_values(node: Node) -> list[Node]:
    """The values of a list or set, without the name they share: `x = 1 or x = 2` and `x = 1, 2` are 1 and 2."""
    if node.kind == "nothing":
        return []
    if node.kind not in ("list", "set"):
        return [node]
    values = list(node.args)
    named = [
        part
        for part in values
        if part.kind == "rel" and part.value == ("=",) and part.args[0].kind in ("sym", "call", "seq")
    ]
    if (
        named
        and len({_stem(part.args[0]) for part in named}) == 1
        and (len(named) == len(values) or values[0] is named[0])
    ):
        return [part.args[1] if part in named else part for part in values]
    return values


def _stem(name: Node) -> Node:
    """x_1 and x_2 are two values of x."""
    if name.kind == "sym":
        stem, _, index = name.value.partition("_")
        return Node("sym", stem) if index.isdigit() else name
    return Node("seq", name.value, tuple(map(_stem, name.args))) if name.kind == "seq" else name


def plainer(node: Node) -> Node:
    """`x ∈ {2, 3}` and `{x | x = 2 or x = 3}` as the set, and what `k ∈ ℤ` or a condition behind a comma declares."""
    if node.kind == "rel" and node.value == ("∈",) and node.args[0].kind == "sym" and node.args[1].kind == "set":
        return node.args[1]
    if (
        node.kind == "builder"
        and node.args[0].kind == "sym"
        and node.args[1].kind == "list"
        and node.args[1].value == "or"
    ):
        values = as_values(node.args[1])
        if values != list(node.args[1].args):
            return Node("set", None, tuple(values))
    if node.kind == "list" and len(node.args) == 2 and _is_definition(node.args[0]) and _is_inequality(node.args[1]):
        return Node("where", None, node.args)  # f(x) = x², x ≥ 1
    return _declaring(node) if node.kind == "list" else node


def _declaring(node: Node) -> Node:
    """`x = 2k, k ∈ ℤ` and `f(x) = ax + b, a, b ∈ ℝ` as statements with the letters that they declare."""
    rest = list(node.args)
    letters: list[str] = []
    domain = ""
    while rest and (_is_domain(rest[-1]) or (letters and rest[-1].kind == "sym")):
        last = rest.pop()
        letters.insert(0, last.args[0].value if last.kind == "rel" else last.value)
        domain = domain or last.args[1].kind
    if not letters or not rest or any(map(_is_inequality, rest)) or rest[0].kind == "sym":
        return node
    inner = rest[0] if len(rest) == 1 else Node("list", node.value, tuple(rest))
    return Node("for", (tuple(letters), domain), (inner,))


def _is_inequality(node: Node) -> bool:
    return node.kind == "rel" and any(operator in "<>≤≥≠" for operator in node.value)


def _is_definition(node: Node) -> bool:
    """f(x) = …"""
    return node.kind == "rel" and node.value == ("=",) and node.args[0].kind == "call"


def _is_domain(node: Node) -> bool:
    """x ∈ ℝ"""
    return (
        node.kind == "rel"
        and node.value == ("∈",)
        and node.args[0].kind == "sym"
        and node.args[1].kind in ("reals", "integers", "naturals", "rationals", "complexes")
    )


def renamed(node: Node, old: str, new: str) -> Node:
    """The node with one letter exchanged."""
    if node.kind == "sym":
        return Node("sym", new) if node.value == old else node
    if not node.args:
        return node
    return Node(node.kind, node.value, tuple(renamed(part, old, new) for part in node.args))


def has_signs(node: Node) -> bool:
    """Whether ± or ∓ occurs anywhere."""
    return any(part.kind == "pm" for part in walk(node))


def expand_signs(node: Node, independent: bool) -> Node:
    """The list of values a node with ± stands for.

    All signs of one value go together (`±1 ± i` is 1+i and -1-i, ∓ the other way), unless `independent`.
    """
    if node.kind in ("list", "set"):
        values = [value for part in node.args for value in _values(part, independent)]
        return Node(node.kind, node.value, tuple(values))
    values = _values(node, independent)
    return values[0] if len(values) == 1 else Node("list", ",", tuple(values))


def _values(node: Node, independent: bool) -> list[Node]:
    count = sum(part.kind == "pm" for part in walk(node))
    if count == 0:
        return [node]
    if not independent or count > _MAX_SIGNS:
        return [_with_signs(node, [sign] * count) for sign in (1, -1)]
    return [_with_signs(node, [1 if mask >> bit & 1 else -1 for bit in range(count)]) for mask in range(2**count)]


def _with_signs(node: Node, signs: list[int]) -> Node:
    """The node with each ± decided, in the order of reading."""
    left = list(signs)

    def decide(part: Node) -> Node:
        if part.kind == "pm":
            sign = left.pop(0) * part.value
            inner = decide(part.args[0])
            return inner if sign > 0 else Node("neg", None, (inner,))
        if not part.args:
            return part
        return Node(part.kind, part.value, tuple(decide(item) for item in part.args))

    return decide(node)
