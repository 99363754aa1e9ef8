"""What stands behind the scores of a table: pass@k and maj@k for powers of two, no answer, cut responses, length."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lco.evidence.formats import Table
from lco.evidence.kinds import Kind, column_name, found_of, rates_of
from lco.evidence.majority import majority_at
from lco.evidence.statistics import pass_at_k, standard_error
from lco.evidence.tables import Record, percent, share

NOTE = (
    "Means over the seeds. avg ± standard error: of the mean over problems, for these seeds. pass@k: that one of k samples is "
    "right, maj@k: that the majority of k samples is, both counted exactly from all samples; empty where a record does not "
    "keep the groups of equal answers. no answer, cut: per cent of the responses. length: tokens of a response."
)


def breakdown(model: str, rows: Sequence[tuple[str, Sequence[Record]]], kinds: Sequence[Kind]) -> Table:
    """A line for each method and column that was run.

    Args:
        rows: (printed name, records) of each method.
    """
    ks = [2**i for i in range(1, 20) if any(2**i <= kind[2] for kind in kinds)]
    header = ("method", "benchmark", "avg ± standard error", *(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in ks), "no answer",
              "cut", "length")  # fmt: skip
    lines = tuple(line(title, runs, kind, ks) for title, runs in rows for kind in kinds if found_of(runs, kind))
    return Table(f"{model}: what stands behind the scores", header, lines, (NOTE,))


def line(title: str, runs: Sequence[Record], kind: Kind, ks: Sequence[int]) -> tuple[str, ...]:
    found, rates = found_of(runs, kind), rates_of(runs, kind)
    error = standard_error(rates.mean(0))
    lengths = [e["scores"].get("length") for e in found]
    return (
        title,
        column_name(kind),
        percent(float(rates.mean())) + ("" if np.isnan(error) else f" ± {percent(error)}"),
        *(mean_of(found, lambda e, k=k: pass_at(e, k)) for k in ks),
        *(mean_of(found, lambda e, k=k: majority_of(e, k)) for k in ks),
        share(found, "no_answer"),
        share(found, "truncated"),
        "" if None in lengths else f"{statistics.fmean(lengths):.0f}",
    )


def mean_of(found: Sequence[Mapping[str, Any]], score: Any) -> str:
    """Mean of a score over the seeds, in per cent; empty where one has none."""
    scores = [score(evaluation) for evaluation in found]
    return "" if None in scores else percent(statistics.fmean(scores))


def pass_at(evaluation: Mapping[str, Any], k: int) -> float | None:
    """pass@k from the counts; None where there are fewer samples."""
    n = evaluation["samples"]
    return statistics.fmean(pass_at_k(n, c, k) for c in evaluation["correct"]) if k <= n else None


def majority_of(evaluation: Mapping[str, Any], k: int) -> float | None:
    """maj@k from the groups of equal answers; without them maj@n alone is known, and not from every record."""
    n, groups = evaluation["samples"], evaluation.get("answer_groups")
    if k > n:
        return None
    if groups is not None:
        return statistics.fmean(majority_at(tuple(sizes), n, k) for sizes in groups)
    return evaluation["scores"].get("maj@n") if k == n else None
