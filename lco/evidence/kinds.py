"""Columns of a table: which evaluations of different runs may stand under each other, and paired with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lco.errors import UserError
from lco.evidence.tables import Record, label

Kind = tuple[str, float, int]
"""(task, temperature, samples a problem): a column."""


def kind_of(evaluation: Mapping[str, Any]) -> Kind:
    sampling = evaluation["sampling"]
    samples = sampling.get("samples", evaluation["samples"])  # earlier records say it once
    return evaluation["task"], float(sampling["temperature"]), int(samples)


def column_name(kind: Kind) -> str:
    """`gsm8k greedy`, `aime24 avg@16`."""
    task, temperature, samples = kind
    how = "greedy" if temperature == 0 else f"avg@{samples}" if temperature == 1 else f"avg@{samples} T {temperature:g}"
    return f"{task.removeprefix('lco_')} {how}"


def found_of(runs: Sequence[Record], kind: Kind) -> list[Mapping[str, Any]]:
    """The evaluations of a kind, one a run; none where no run has one.

    Raises:
        UserError: only some seeds have it, so that its mean would be of others than the row's.
    """
    found = {label(record): e for record in runs for e in record["evaluations"] if kind_of(e) == kind}
    if found and len(found) < len(runs):
        lacking = next(label(record) for record in runs if label(record) not in found)
        raise UserError(
            f"{lacking} has no evaluation {column_name(kind)}, which {next(iter(found))} has; evaluate it and make its record "
            "again"
        )
    return list(found.values())


def rates_of(runs: Sequence[Record], kind: Kind) -> np.ndarray:
    """[seeds, problems] shares of right samples; empty where no run has the evaluation (`found_of` says what it raises)."""
    return np.array([np.asarray(e["correct"]) / e["samples"] for e in found_of(runs, kind)])


def paired(a: Sequence[Record], b: Sequence[Record], kinds: Sequence[Kind]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each kind [seeds, problems] of both sides, for the seeds that both have; empty where a side lacks a kind.

    The start model has no seed and stands against every seed of the other side.
    """
    left, right = seeds_of(a), seeds_of(b)
    if None in right:
        right = {seed: at for seed in left for at in right.values()}
    seeds = sorted(set(left) & set(right), key=lambda seed: seed or 0)
    rates = [(rates_of(a, kind), rates_of(b, kind)) for kind in kinds]
    if not seeds or not all(len(x) and len(y) for x, y in rates):
        return []
    return [(x[[left[s] for s in seeds]], y[[right[s] for s in seeds]]) for x, y in rates]


def seeds_of(runs: Sequence[Record]) -> dict[Any, int]:
    """{seed: its place among the runs}."""
    return {record["seed"]: at for at, record in enumerate(runs)}
