"""Every method of a table or board against every other, and how much of their order those pairs support.

A resampled mean of differences is the difference of resampled means where both sides are drawn alike, so each method is
resampled once and the pairs are subtractions: twenty methods cost twenty times one, not a hundred and ninety.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lco.evidence.kinds import Kind, rates_of
from lco.evidence.statistics import Array, hierarchical_means, holm, percentiles, two_sided
from lco.evidence.tables import Record

LEVEL = 0.05
"""Below this corrected p one method stands above another."""


@dataclass(frozen=True)
class Pair:
    """Method a minus method b, shares in [−1, 1].

    Attributes:
        p, holm: two-sided, and corrected over all pairs; None from one common seed, which knows of no other.
        seeds: that both have.
    """

    a: str
    b: str
    mean: float
    low: float
    high: float
    p: float | None
    holm: float | None
    seeds: int

    @property
    def mirrored(self) -> Pair:
        return replace(self, a=self.b, b=self.a, mean=-self.mean, low=-self.high, high=-self.low)

    @property
    def told_apart(self) -> bool:
        return self.holm is not None and self.holm < LEVEL


def resampled(runs: Sequence[Record], kinds: Sequence[Kind]) -> tuple[float, Array]:
    """The mean over kinds of evaluation, each the mean over seeds and problems; and the same of resampled seeds and problems.

    Seeds are drawn alike for all kinds and methods, problems alike for all methods.
    """
    found = [rates_of(runs, kind) for kind in kinds]
    means = np.mean([hierarchical_means(rates) for rates in found], axis=0)
    return float(np.mean([rates.mean() for rates in found])), means


def pairs_of(runs: Mapping[str, Sequence[Record]], kinds: Sequence[Kind]) -> list[Pair]:
    """Every two methods that have a seed in common, in the order of `runs`; p-values corrected over all of them by Holm."""
    kept: dict[tuple[str, tuple[int, ...]], tuple[float, Array]] = {}

    def of(method: str, seeds: tuple[int, ...]) -> tuple[float, Array]:
        if (method, seeds) not in kept:
            chosen = [next(r for r in runs[method] if r["seed"] == seed) for seed in seeds]
            kept[method, seeds] = resampled(chosen, kinds)
        return kept[method, seeds]

    found = []
    for a, b in itertools.combinations(runs, 2):
        seeds = tuple(sorted({r["seed"] for r in runs[a]} & {r["seed"] for r in runs[b]} - {None}))
        if seeds:
            (left, draws), (right, others) = of(a, seeds), of(b, seeds)
            low, high = percentiles(draws - others, 0.95)
            p = two_sided(draws - others) if len(seeds) > 1 else None
            found.append(Pair(a, b, left - right, low, high, p, None, len(seeds)))
    corrected = iter(holm([pair.p for pair in found if pair.p is not None]))
    return [pair if pair.p is None else replace(pair, holm=next(corrected)) for pair in found]


def open_ranks(methods: Sequence[str], pairs: Sequence[Pair]) -> dict[str, tuple[int, int]]:
    """{method: (best, worst) rank that the pairs leave open}: one more than stand above it, and all but those below it.

    Two methods that share no seed, or only one, leave each other's rank open.
    """
    above, below = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    for pair in pairs:
        if pair.told_apart:
            better, worse = (pair.a, pair.b) if pair.mean > 0 else (pair.b, pair.a)
            above[worse] += 1
            below[better] += 1
    return {method: (1 + above[method], len(methods) - below[method]) for method in methods}


def places_of(runs: Mapping[str, Sequence[Record]], kinds: Sequence[Kind]) -> dict[str, str]:
    """{method: its open ranks}, such as "2–4", from its runs' evaluations of these kinds, which all of them have."""
    return {method: written(*found) for method, found in open_ranks(list(runs), pairs_of(runs, kinds)).items()}


def written(best: int, worst: int) -> str:
    return str(best) if best == worst else f"{best}–{worst}"
