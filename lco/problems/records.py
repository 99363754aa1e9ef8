"""What a problem is, wherever it comes from: a hub data set, a local JSON Lines file, or a generator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One problem with a reference answer that a verifier can check.

    Attributes:
        id: unique within its data set; groups of samples are keyed by it.
        problem: the question as plain text, without instructions or chat markers.
        answer: the final reference answer alone.
        solution: a worked solution ("" where unknown); what SFT imitates.
        level, subject, source: as published, "" where unknown.
    """

    id: str
    problem: str
    answer: str
    solution: str = ""
    level: str = ""
    subject: str = ""
    source: str = ""
