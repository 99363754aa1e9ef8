"""A claim, and what a computation says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """One claim judged by numbers.

    Attributes:
        claim: one sentence that can be wrong.
        source: "paper" (arXiv 2603.00963, from its abstract and summaries) or "suite" (derived here).
        supported: whether every number agrees.
        measured: the numbers, exceptions first.
    """

    claim: str
    source: str
    supported: bool
    measured: str


def signed(label: str, sign: float) -> str:
    return f"{label} (A {'>' if sign > 0 else '<'} 0)"


def joined(parts: Iterable[str]) -> str:
    """The distinct parts in order, or "none"."""
    return "; ".join(dict.fromkeys(parts)) or "none"
