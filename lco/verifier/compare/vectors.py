"""Answers in which order counts: tuples, intervals, vectors, matrices, ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, is_scalar

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
    """3:5 is 6:10 and 3/5, but not 5:3. Where the reference looks like a time of day (9:24), the numbers must be the same."""
    if gold.kind == answer.kind == "ratio":
        if ordered(gold.args, answer.args, scalars):
            return True
        if len(gold.args) != len(answer.args) or _looks_like_time(gold):
            return False
        pivot = next((at for at, part in enumerate(gold.args) if not _is_zero(part)), None)
        if pivot is None or _is_zero(answer.args[pivot]):
            return False
        first, start = gold.args[pivot], answer.args[pivot]
        return all(
            scalars(Node("mul", None, (first, other)), Node("mul", None, (start, one)))
            for one, other in zip(gold.args, answer.args, strict=True)
        )
    ratio, other = (gold, answer) if gold.kind == "ratio" else (answer, gold)
    if len(ratio.args) != 2 or not is_scalar(other) or _looks_like_time(ratio):
        return False
    quotient = Node("div", None, ratio.args)
    return scalars(quotient, other) if ratio is gold else scalars(other, quotient)


def _is_zero(node: Node) -> bool:
    return rational(node) == 0


def _looks_like_time(node: Node) -> bool:
    """Hours up to 24 and minutes of two digits."""
    if len(node.args) != 2:
        return False
    hours, minutes = map(rational, node.args)
    if hours is None or minutes is None or hours.denominator != 1 or minutes.denominator != 1:
        return False
    return 0 <= hours <= 24 and (minutes == 0 or 10 <= minutes < 60)
