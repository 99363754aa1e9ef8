"""Answers of several values: lists, sets, and what `±` stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lco.verifier.compare.vectors import Same, ordered
from lco.verifier.tree import Node, UndefinedError, walk

_MAX_SIGNS = 4


class Several:
    """Compares lists and sets; `same` compares two of their values."""

    def __init__(self, same: Same, note: Callable[[str], None]) -> None:
        self.same = same
        self.note = note

    def compare(self, gold: Node, answer: Node) -> bool:
        """Lists and sets: order is free; in a set, and against a set, repetition is too."""
        if "nothing" in (gold.kind, answer.kind):
            return gold.kind == answer.kind
        if _assignments(gold) or _assignments(answer):
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
        return self.unordered(left, right, self.same)

    def unordered(self, left: Sequence[Node], right: Sequence[Node], same: Same) -> bool:
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

    def ordered(self, left: Sequence[Node], right: Sequence[Node]) -> bool:
        """The same values in the same order."""
        return ordered(left, right, self.same)

    def conditions(self, gold: Node, answer: Node) -> bool:
        """The conditions of two set builders, in any order."""
        return self.unordered(as_values(gold), as_values(answer), self.same)

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

    def _assigned(self, gold: Node, answer: Node) -> bool:
        """Named values go by name; against values without names they keep their order."""
        if _assignments(gold) and _assignments(answer):
            return self.unordered(gold.args, answer.args, self.same)
        left = [part.args[-1] if part.kind == "rel" else part for part in gold.args]
        right = [part.args[-1] if part.kind == "rel" else part for part in answer.args]
        return answer.kind in ("list", "seq") and gold.kind in ("list", "seq") and self.ordered(left, right)


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
        part for part in values if part.kind == "rel" and part.value == ("=",) and part.args[0].kind in ("sym", "call")
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
    return name


def plainer(node: Node) -> Node:
    """`x ∈ {2, 3}` and `{x | x = 2 or x = 3}` as the set, and parameters (`k ∈ ℤ`) under one name."""
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
    if node.kind == "list":
        letters = [
            part.args[0].value
            for part in node.args
            if part.kind == "rel"
            and part.value == ("∈",)
            and part.args[0].kind == "sym"
            and part.args[1].kind == "integers"
        ]
        if len(letters) == 1:
            return renamed(node, letters[0], "any integer")
    return node


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
