"""Why a verdict is what it is, step by step, for a person who doubts it."""

from __future__ import annotations

from lco.verifier.judge import judge
from lco.verifier.numbers.ladder import NeedsProofError
from lco.verifier.rules import Rules, Verdict


def explain(response: str, gold: str, rules: Rules, verdict: Verdict) -> list[str]:
    """The steps of the judgement, the verdict last. Nothing is decided here: the case is walked through again."""
    steps: list[str] = [f"extraction is {rules.extraction!r}"]
    try:
        judge(response, gold, rules, note=steps.append)
    except NeedsProofError:
        steps.append("a worker process was asked for a proof, or to read texts of this length")
    outcome = "right" if verdict.correct else "wrong"
    steps.append(f"{outcome}: {verdict.reason} ({MEANINGS.get(verdict.reason, 'see docs/verifier.md')})")
    return list(dict.fromkeys(steps))


# Every reason a verdict may have; docs/verifier.md explains them at length, and a test keeps the two in step.
MEANINGS = {
    "same_text": "the texts are equal but for spacing",
    "equal": "equal by mathematics",
    "proved": "equal, shown by a proof in a worker process",
    "different": "something else than the reference",
    "different_unit": "another unit than the reference's",
    "undefined": "the answer has no value",
    "undecided": "the comparison cannot be made",
    "not_simplified": "equal, but arithmetic was left undone and the task forbids that",
    "no_answer": "the response gives no answer",
    "empty_answer": "the answer's place is empty",
    "contradicting_boxes": "the boxes contradict each other",
    "unreadable": "the answer is in no form of an answer",
    "unreadable_reference": "the reference is in no form of an answer, and the texts differ",
    "forbidden_text": "the text holds what no answer holds",
    "too_long": "longer than is read",
    "too_deep": "nested deeper than is read",
    "too_large": "a number too large to be worked out",
    "timeout": "no verdict within the deadline",
    "out_of_memory": "no verdict within the memory allowed",
    "worker_died": "three worker processes died on this case",
}
