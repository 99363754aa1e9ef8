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
from lco.evidence.names import family
from lco.evidence.statistics import hierarchical_difference, holm, mcnemar_mid_p, probability_of_improvement
from lco.evidence.tables import Record, greedy, points, rates, runs_of, set_apart

SUBJECT = "lco"
"""The family whose methods are compared with those of the others."""
ONE_SEED = "one seed"


def paired(a: Sequence[Record], b: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """[seeds, problems] of both sides for the seeds that both have."""
    left, right = ({r["seed"]: r for r in side} for side in (a, b))
    seeds = sorted(set(left) & set(right))
    return rates([left[s] for s in seeds]), rates([right[s] for s in seeds])


def greedy_p(a: Sequence[Record], b: Sequence[Record]) -> str:
    """McNemar's mid-p of the greedy runs of each seed that both have: one number, or the lowest and the highest."""
    left, right = ({r["seed"]: np.asarray(greedy(r)["correct"]) > 0 for r in side} for side in (a, b))
    found = sorted(
        mcnemar_mid_p(int((left[s] & ~right[s]).sum()), int((right[s] & ~left[s]).sum()))
        for s in set(left) & set(right)
    )
    return "–".join(dict.fromkeys(f"{p:.3f}" for p in (found[0], found[-1])))


def differences(model_class: str, records: Sequence[Record], titles: Mapping[str, str]) -> Table | None:
    """Every LCO method against every other method that learns from rollouts; None where there is no such pair.

    The records are those that `tables.comparison` accepts: same problems, same budgets.
    """
    runs = {method: found for method, found in runs_of(records).items() if not set_apart(found)}
    subjects = [method for method, found in runs.items() if family(found[0]) == SUBJECT]
    pairs = [(a, b) for a in subjects for b in runs if b not in subjects]
    pairs = [(a, b) for a, b in pairs if {r["seed"] for r in runs[a]} & {r["seed"] for r in runs[b]}]
    if not pairs:
        return None
    both = [paired(runs[a], runs[b]) for a, b in pairs]
    found = [(len(x), hierarchical_difference(x, y)) for x, y in both]
    tested = [p for seeds, (_, _, _, p) in found if seeds > 1]
    corrected = iter(holm(tested))
    rows = tuple(
        (
            f"{titles.get(a, a)} − {titles.get(b, b)}",
            points(mean),
            f"[{points(low)}, {points(high)}]",
            *((f"{p:.4f}", f"{next(corrected):.4f}") if seeds > 1 else (ONE_SEED, ONE_SEED)),
            str(seeds),
            f"{probability_of_improvement(x.mean(1, keepdims=True), y.mean(1, keepdims=True)):.2f}",
            greedy_p(runs[a], runs[b]),
        )
        for (a, b), (x, y), (seeds, (mean, low, high, p)) in zip(pairs, both, found, strict=True)
    )
    header = ("difference", "points", "95 % interval", "p", "p, Holm", "seeds", "P(better)", "greedy, mid-p")
    return Table(f"{model_class}: differences between methods", header, rows, notes(len(tested), len(pairs)))


def notes(tested: int, pairs: int) -> tuple[str, ...]:
    said = ["Points of pass@1 at T = 1 on the test problems; bootstrap over seeds and problems, paired by both."]
    said.append(
        "P(better): how often a run of the one scores above a run of the other, ties half. greedy, mid-p: McNemar's mid-p of the "
        "two greedy runs of a seed, from the lowest to the highest seed; it is about these two models, not their methods."
    )
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
