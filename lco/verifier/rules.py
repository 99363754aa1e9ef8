"""What a task asks of the verifier (`Rules`) and what the verifier answers (`Verdict`).

Everything that may change a verdict is a field of `Rules`, so a result record that holds the rules can be judged again
years later with the same outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EXTRACTIONS = ("lenient", "boxed_only", "answer_tag", "hash", "last_line", "last_number", "whole")
BOXES = ("last", "agree")


@dataclass(frozen=True)
class Rules:
    """How a task wants its answers found and compared; the defaults are the strictest sensible ones.

    extraction: where an answer may stand.
        "lenient" (default)  box, answer tag, `#### n`, "the answer is …", a closing formula, or nothing but an answer
        "boxed_only"         the last `\\boxed{}` (or `\\fbox{}`) and nothing else
        "answer_tag"         the last `<answer>…</answer>` (a box inside it wins over the text around it)
        "hash"               `#### n` only, as GSM8K's own solutions have it
        "last_line"          as lenient, and if nothing is marked, the last line
        "last_number"        as lenient, and if nothing is marked, the last number (the usual GSM8K rule)
        "whole"              the response is the answer
    boxes: "last" takes the last box; "agree" calls a response with boxes that contradict each other wrong.
    relative_tolerance: 0 asks for exact equality; otherwise numbers may differ by this part of the reference.
    require_simplified: refuse an answer that leaves arithmetic undone (`2+2` for `4`, `6/8` for `3/4`).
    string_shortcut: equal texts are equal answers without reading them as mathematics. Switched off only in tests.
    cpu_seconds, wall_seconds, memory_mb: the deadline of one case in a worker process.
    """

    extraction: str = "lenient"
    boxes: str = "last"
    relative_tolerance: float = 0.0
    require_simplified: bool = False
    string_shortcut: bool = True
    cpu_seconds: float = 2.0
    wall_seconds: float = 10.0
    memory_mb: int = 512

    def __post_init__(self) -> None:
        if self.extraction not in EXTRACTIONS:
            raise ValueError(f"extraction {self.extraction!r} is not one of {', '.join(EXTRACTIONS)}")
        if self.boxes not in BOXES:
            raise ValueError(f"boxes {self.boxes!r} is not one of {', '.join(BOXES)}")
        if not 0.0 <= self.relative_tolerance < 1.0:
            raise ValueError(f"relative_tolerance {self.relative_tolerance!r} is not in [0, 1)")
        if self.cpu_seconds <= 0 or self.wall_seconds <= 0 or self.memory_mb <= 0:
            raise ValueError("cpu_seconds, wall_seconds and memory_mb must be positive")


# Reasons that speak about the machine or the verifier and not about the answer.
NO_VERDICT = frozenset(("out_of_memory", "worker_died", "stalled", "failed"))


@dataclass(frozen=True)
class Verdict:
    """The judgement of one response.

    `extracted` is the text taken for the answer (None if there was none). `reason` is one word of the list in
    docs/verifier.md; `seconds` is the time spent on this case, waiting for a worker included.
    """

    correct: bool
    extracted: str | None
    reason: str
    seconds: float

    @property
    def judged(self) -> bool:
        """False where there is no verdict, because a worker was lost again and again: neither right nor wrong, and to be
        counted apart. `correct` is False there for callers that do not ask."""
        return self.reason not in NO_VERDICT

    @property
    def reward(self) -> float:
        """1 for a right answer, 0 for a wrong one, NaN where there is no verdict (the trainer drops rows without a reward)."""
        return float(self.correct) if self.judged else math.nan
