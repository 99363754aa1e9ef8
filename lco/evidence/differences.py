"""Is one method better than another? Differences between methods, paired by seed and by problem.

Two means with overlapping intervals say little: the runs share start, seeds and test problems, so their difference is
known better than either of them. Resampled are seeds and problems, alike for both sides; p-values are corrected by
Holm's step-down over all pairs of a table, because of nine true zeros one falls below 0.05 by luck in about every third table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lco.evidence.statistics import hierarchical_difference, holm
from lco.evidence.tables import APART, Record, Table, rates, runs_of

SUBJECT = "lco_"
"""Methods whose name begins so are compared with those whose name does not."""


def paired(a: Sequence[Record], b: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """[seeds, problems] of both sides for the seeds that both have."""
    left, right = ({r["seed"]: r for r in side} for side in (a, b))
    seeds = sorted(set(left) & set(right))
    return rates([left[s] for s in seeds]), rates([right[s] for s in seeds])


def differences(model_class: str, records: Sequence[Record], titles: Mapping[str, str]) -> Table | None:
    """Every LCO method against every other method that learns from rollouts; None where there is no such pair.

    The records are those that `tables.comparison` accepts: same problems, same budgets.
    """
    runs = {method: found for method, found in runs_of(records).items() if method not in APART}
    pairs = [(a, b) for a in runs if a.startswith(SUBJECT) for b in runs if not b.startswith(SUBJECT)]
    pairs = [(a, b) for a, b in pairs if {r["seed"] for r in runs[a]} & {r["seed"] for r in runs[b]}]
    if not pairs:
        return None
    found = [(len(x), hierarchical_difference(x, y)) for x, y in (paired(runs[a], runs[b]) for a, b in pairs)]
    corrected = holm([p for _, (_, _, _, p) in found])
    rows = tuple(
        (
            f"{titles.get(a, a)} − {titles.get(b, b)}",
            f"{100 * mean:+.1f}",
            f"[{100 * low:+.1f}, {100 * high:+.1f}]",
            f"{p:.4f}",
            f"{adjusted:.4f}",
            str(seeds),
        )
        for (a, b), (seeds, (mean, low, high, p)), adjusted in zip(pairs, found, corrected, strict=True)
    )
    notes = (
        "Points of pass@1 at T = 1 on the test problems; bootstrap over seeds and problems, paired by both.",
        f"p: two-sided, floor 1/10 001; with few seeds it is too small, so read the interval first. Holm: corrected over "
        f"{len(pairs)} pairs.",
    )
    header = ("difference", "points", "95 % interval", "p", "p, Holm", "seeds")
    return Table(f"{model_class}: differences between methods", header, rows, notes)
