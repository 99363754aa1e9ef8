"""Answers of several values: lists, sets, and what `±` stands for."""

from __future__ import annotations

from lco.verifier.nodes import Node, walk

_MAX_SIGNS = 4


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
    named = [part for part in values if part.kind == "rel" and part.value == ("=",) and part.args[0].kind in ("sym", "call")]
    if named and len({part.args[0] for part in named}) == 1 and (len(named) == len(values) or values[0] is named[0]):
        return [part.args[1] if part in named else part for part in values]
    return values


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
