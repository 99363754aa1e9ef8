"""Why a verdict is what it is, step by step, for a person who doubts it."""

from __future__ import annotations

from lco.verifier.judge import judge
from lco.verifier.numbers.effort import NeedsWorkerError
from lco.verifier.rules import Rules, Verdict


def explain(response: str, gold: str, rules: Rules, verdict: Verdict) -> list[str]:
    """The steps of the judgement, the verdict last. Nothing is decided here: the case is walked through again."""
    steps: list[str] = [f"extraction is {rules.extraction!r}"]
    try:
        judge(response, gold, rules, note=steps.append)
    except NeedsWorkerError:
        steps.append("a worker process was asked: for a proof, or because of the length or the cost of the case")
    except Exception as error:  # the verifier's own fault, which is what has to be explained then
        steps.append(f"the verifier failed: {error!r}")
    outcome = "right" if verdict.correct else "wrong" if verdict.judged else "no verdict"
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
    "out_of_memory": "no verdict: not within the memory allowed, three times",
    "worker_died": "no verdict: three worker processes died on this case",
    "stalled": "no verdict: three worker processes got no processor time",
    "failed": "no verdict: a fault of the verifier itself",
}
