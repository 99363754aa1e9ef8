"""Is one method better than another? Differences between methods, paired by seed and by problem.

Two means with overlapping intervals say little: the runs share start, seeds and test problems, so their difference is
known better than either of them. Resampled are seeds and problems, alike for both sides; p-values are corrected by
Holm's step-down over all pairs of a table, because of nine true zeros one falls below 0.05 by luck in about every third table.
From one seed nothing is known of other seeds, so such a pair has an interval over problems and no p-value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lco.evidence.formats import Table
from lco.evidence.kinds import Kind, column_name, kind_of, paired
from lco.evidence.names import family
from lco.evidence.statistics import holm, mcnemar_mid_p, probability_of_improvement, stratified_difference
from lco.evidence.tables import Record, greedy, points, runs_of, sampled, set_apart

SUBJECT = "lco"
"""The family whose methods are compared with those of the others."""
ONE_SEED = "one seed"


def differences(model_class: str, records: Sequence[Record], titles: Mapping[str, str]) -> Table | None:
    """Every LCO method against every other method that learns from rollouts; None where there is no such pair.

    The records are those that `tables.comparison` accepts: one task, same problems, same budgets.
    """
    runs = {method: found for method, found in runs_of(records).items() if not set_apart(found)}
    if not runs:
        return None
    first = next(iter(runs.values()))[0]
    return differences_over(model_class, runs, titles, [kind_of(sampled(first))], [kind_of(greedy(first))])


def differences_over(
    model: str, runs: Mapping[str, Sequence[Record]], titles: Mapping[str, str], kinds: Sequence[Kind], singles: Sequence[Kind]
) -> Table | None:  # fmt: skip
    """The same over any columns, whose differences are averaged, each column with its own problems.

    Args:
        runs: {method: its records}, all of which may be compared.
        kinds: the columns that count.
        singles: those whose single greedy answers are paired besides.
    """
    subjects = [method for method, found in runs.items() if family(found[0]) == SUBJECT]
    pairs = [(a, b) for a in subjects for b in runs if b not in subjects]
    both = {pair: paired(runs[pair[0]], runs[pair[1]], kinds) for pair in pairs}
    both = {pair: rates for pair, rates in both.items() if rates}
    if not both:
        return None
    found = {pair: (len(rates[0][0]), stratified_difference(rates)) for pair, rates in both.items()}
    tested = [p for seeds, (_, _, _, p) in found.values() if seeds > 1]
    corrected = iter(holm(tested))
    rows = tuple(
        (
            f"{titles.get(a, a)} − {titles.get(b, b)}",
            points(mean),
            f"[{points(low)}, {points(high)}]",
            *((f"{p:.4f}", f"{next(corrected):.4f}") if seeds > 1 else (ONE_SEED, ONE_SEED)),
            str(seeds),
            f"{chance_of_better(both[a, b]):.2f}",
            greedy_p(paired(runs[a], runs[b], singles)),
        )
        for (a, b), (seeds, (mean, low, high, p)) in found.items()
    )
    header = ("difference", "points", "95 % interval", "p", "p, Holm", "seeds", "P(better)", "greedy, mid-p")
    return Table(f"{model}: differences between methods", header, rows, notes(kinds, len(tested), len(both)))


def chance_of_better(rates: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of [seeds, problems] of both sides, a pair for each column."""
    a, b = (np.array([of_column[side].mean(1) for of_column in rates]).T for side in (0, 1))
    return probability_of_improvement(a, b)


def greedy_p(rates: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """McNemar's mid-p of the greedy runs of each seed that both have, all columns' problems together: one number, or the lowest
    and the highest; empty where there are no such runs."""
    if not rates:
        return ""
    a, b = (np.concatenate([of_column[side] for of_column in rates], 1) > 0 for side in (0, 1))
    found = sorted(mcnemar_mid_p(int((x & ~y).sum()), int((y & ~x).sum())) for x, y in zip(a, b, strict=True))
    return "–".join(dict.fromkeys(f"{p:.3f}" for p in (found[0], found[-1])))


def notes(kinds: Sequence[Kind], tested: int, pairs: int) -> tuple[str, ...]:
    what = "pass@1 at T = 1" if len(kinds) == 1 else f"the mean of {', '.join(map(column_name, kinds))}"
    said = [
        f"Points of {what} on the test problems; bootstrap over seeds and problems, paired by both.",
        "P(better): how often a run of the one scores above a run of the other, ties half. greedy, mid-p: McNemar's mid-p of the "
        "two greedy runs of a seed, from the lowest to the highest seed; it is about these two models, not their methods.",
    ]
    if tested:
        said.append(
            "p: two-sided, floor 1/10 001; with few seeds it is too small, so read the interval first. Holm: corrected over "
            f"{tested} pairs."
        )
    if tested < pairs:
        said.append(
            f"{ONE_SEED}: no p-value, because nothing is known of other seeds; the interval is over problems alone."
        )
    return tuple(said)
