"""Answers in which order counts: tuples, intervals, vectors, matrices, ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lco.verifier.numbers.rational import rational
from lco.verifier.tree import ONE, Node, is_scalar

Same = Callable[[Node, Node], bool]


def ordered(left: Sequence[Node], right: Sequence[Node], same: Same) -> bool:
    """The same parts in the same order."""
    return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))


def same_vector(gold: Node, answer: Node, same: Same, note: Callable[[str], None]) -> bool:
    """Tuples and intervals need the same brackets in the same places; a vector may be a tuple or a matrix."""
    if gold.kind == answer.kind == "matrix":
        return len(gold.args) == len(answer.args) and all(
            ordered(one.args, other.args, same) for one, other in zip(gold.args, answer.args, strict=True)
        )
    if gold.kind == answer.kind == "seq":
        if len(gold.args) == 2 and gold.value != answer.value:
            note(f"the brackets differ: {gold.value} and {answer.value}")
            return False
        return ordered(gold.args, answer.args, same)
    matrix, tuple_ = (gold, answer) if gold.kind == "matrix" else (answer, gold)
    if tuple_.value != "()" and len(tuple_.args) == 2:
        return False
    rows = matrix.args
    if len(rows) > 1 and len(rows[0].args) > 1:
        return False
    entries = rows[0].args if len(rows) == 1 else tuple(row.args[0] for row in rows)
    return ordered(entries, tuple_.args, same) if gold is matrix else ordered(tuple_.args, entries, same)


def ratios(gold: Node, answer: Node, scalars: Same) -> bool:
    """3:5 is 6:10 and 3/5, but not 5:3. What looks like a time of day (9:24) is compared number by number."""
    if gold.kind == answer.kind == "ratio":
        if ordered(gold.args, answer.args, scalars):
            return True
        if len(gold.args) != len(answer.args) or _looks_like_time(gold) or _looks_like_time(answer):
            return False
        first, start = gold.args[0], answer.args[0]
        return all(
            scalars(Node("mul", None, (first, other)), Node("mul", None, (start, one)))
            for one, other in zip(gold.args[1:], answer.args[1:], strict=True)
        )
    ratio, other = (gold, answer) if gold.kind == "ratio" else (answer, gold)
    if len(ratio.args) != 2 or not is_scalar(other) or _looks_like_time(ratio):
        return False
    quotient = Node("div", None, ratio.args)
    return scalars(quotient, other) if ratio is gold else scalars(other, quotient)


def _looks_like_time(node: Node) -> bool:
    value = rational(node.args[1]) if len(node.args) == 2 else ONE.value
    return len(node.args) != 2 or value is None or value == 0 or (value >= 10 and value < 60)
