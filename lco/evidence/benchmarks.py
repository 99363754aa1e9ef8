"""Methods by benchmarks, for each model: the paper's kind of table, from records with any number of tasks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lco.errors import UserError
from lco.evidence.formats import Table
from lco.evidence.reported import Reported, reported_table
from lco.evidence.statistics import hierarchical_interval
from lco.evidence.tables import Record, by_model, label, percent, runs_of

Kind = tuple[str, float, int]
"""(task, temperature, samples a problem): a column."""


def has_several_tasks(records: Iterable[Record]) -> bool:
    return any(len({e["task"] for e in record["evaluations"]}) > 1 for record in records)


def benchmark_tables(records: Sequence[Record], names: Mapping[str, str]) -> list[Table]:
    """A table a model: the start model, then every method, with the mean of its seeds and a 95 % interval over problems and
    seeds in every column, and the mean of the sampled columns.

    Raises:
        UserError: what stands in one column differs in problems, limit or length limit, or the runs of a model in their start
            weights.
    """
    return [table for model, runs in by_model(records).items() for table in tables_of(model, runs, names)]


def tables_of(model: str, runs: Sequence[Record], names: Mapping[str, str]) -> list[Table]:
    """What is measured of a model, and beside it what others report of it."""
    found = [table_of(model, runs, names)]
    beside = reported_table(model, str(runs[0]["model"]["name"]), lambda entry: measured(entry, runs))
    return [*found, *([beside] if beside is not None else [])]


def measured(entry: Reported, records: Sequence[Record]) -> str:
    """What the records have of a reported number's method, benchmark and metric: every such column's cell, or "not run"."""
    runs = [record for record in records if record["method"] == entry.known_as]
    kinds = sorted({kind_of(e) for record in runs for e in record["evaluations"]})
    fitting = [
        kind for kind in kinds if kind[0].removeprefix("lco_") == entry.benchmark and answers(entry.metric, kind)
    ]
    cells = {column_name(kind): cell_of(rates_of(runs, kind)) for kind in fitting}
    return (
        "; ".join(cells.values() if len(cells) == 1 else (f"{name}: {cell}" for name, cell in cells.items()))
        or "not run"
    )


def answers(metric: str, kind: Kind) -> bool:
    """Whether a column is of a reported metric: pass@1 is one greedy run or a mean over samples, which sources seldom say;
    avg@n is a mean over n samples."""
    return metric == "pass@1" or (kind[1] > 0 and metric == f"avg@{kind[2]}")


def table_of(model: str, records: Sequence[Record], names: Mapping[str, str]) -> Table:
    kinds = sorted({kind_of(e) for record in records for e in record["evaluations"]})
    refuse_unlike(records)
    start = [record for record in records if record["method"] == "start"]
    groups = {**({"start": start} if start else {}), **runs_of(records)}
    averaged = [kind for kind in kinds if kind[1] > 0] or kinds
    header = (
        "method",
        *(column_name(kind) for kind in kinds),
        f"mean of {len(averaged)}",
        "seeds",
        "rollouts × rows, updates",
    )
    rows = tuple(row_of(method, runs, kinds, averaged, names) for method, runs in groups.items())
    notes = (
        "Mean of the seeds in per cent, with a 95 % interval over problems and seeds. “not run”: the records have no such "
        "evaluation. Rows with another budget than the others are not comparable with them.",
    )
    return Table(model, header, rows, notes)


def kind_of(evaluation: Mapping[str, Any]) -> Kind:
    return evaluation["task"], float(evaluation["sampling"]["temperature"]), int(evaluation["sampling"]["samples"])


def column_name(kind: Kind) -> str:
    """`gsm8k greedy`, `aime24 avg@16`."""
    task, temperature, samples = kind
    how = "greedy" if temperature == 0 else f"avg@{samples}" if temperature == 1 else f"avg@{samples} T {temperature:g}"
    return f"{task.removeprefix('lco_')} {how}"


def row_of(
    method: str, runs: Sequence[Record], kinds: Sequence[Kind], averaged: Sequence[Kind], names: Mapping[str, str]
) -> tuple[str, ...]:
    rates = {kind: rates_of(runs, kind) for kind in kinds}
    means = [float(rates[kind].mean()) for kind in averaged if len(rates[kind])]
    budgets = sorted({budget_of(record) for record in runs if record["method"] != "start"})
    return (
        "start model" if method == "start" else names.get(method, method),
        *(cell_of(rates[kind]) for kind in kinds),
        percent(statistics.fmean(means)) if len(means) == len(averaged) else "not run",
        "" if method == "start" else str(len({record["seed"] for record in runs})),
        "; ".join(budgets),
    )


def rates_of(runs: Sequence[Record], kind: Kind) -> np.ndarray:
    """[seeds, problems] shares of right samples; empty where no run has the evaluation.

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
    return np.array([np.asarray(e["correct"]) / e["samples"] for e in found.values()])


def cell_of(rates: np.ndarray) -> str:
    if not len(rates):
        return "not run"
    low, high = hierarchical_interval(rates)
    return f"{percent(float(rates.mean()))} [{percent(low)}, {percent(high)}]"


def budget_of(record: Record) -> str:
    budget = record["budget"]
    return f"{budget['rollouts']} × {budget['rows'] // max(1, budget['rollouts'])}, {budget['updates']}"


def refuse_unlike(records: Sequence[Record]) -> None:
    """
    Raises:
        UserError: two records of a model start from other weights, or two evaluations of a column are not of the same problems
            under the same limits; both sides are named.
    """
    first: dict[Any, tuple[Record, Any]] = {}
    for record in records:
        facts: dict[str, Any] = {"start weights": record["model"]["sha256"]}
        for e in record["evaluations"]:
            of = column_name(kind_of(e))
            facts |= {
                f"problems of {of}": e["ids_sha256"],
                f"limit of {of}": e["limit"],
                f"length limit of {of}": e["sampling"]["max_new_tokens"],
            }
        for fact, value in facts.items():
            other, expected = first.setdefault(fact, (record, value))
            if value != expected:
                raise UserError(
                    f"cannot compare {label(other)} and {label(record)}: {fact} is {expected} and {value}; give records that "
                    "differ in this a folder of their own"
                )
