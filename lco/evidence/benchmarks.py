"""Methods by benchmarks, for each model: the paper's kind of table, from records with any number of tasks.

Three tables a model: the scores, what stands behind each of them, and the differences between methods; a fourth where others
report numbers of the same model.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lco.errors import UserError
from lco.evidence.breakdown import breakdown
from lco.evidence.differences import differences_over
from lco.evidence.formats import Table
from lco.evidence.kinds import Kind, column_name, kind_of, paired, rates_of
from lco.evidence.names import code_of, from_outside, rewards_of
from lco.evidence.pairs import places_of
from lco.evidence.reported import Reported, reported_table
from lco.evidence.statistics import hierarchical_interval, iqm, stratified_difference
from lco.evidence.tables import RANKS, Record, by_model, label, percent, runs_of, set_apart

START = "start"


@dataclass(frozen=True)
class Row:
    """One method's runs on one model.

    Attributes:
        apart: why they are not compared with the others, or "".
    """

    method: str
    title: str
    runs: Sequence[Record]
    apart: str

    @property
    def seeds(self) -> int:
        return len({record["seed"] for record in self.runs})


def has_several_tasks(records: Iterable[Record]) -> bool:
    return any(len({e["task"] for e in record["evaluations"]}) > 1 for record in records)


def benchmark_tables(records: Sequence[Record], names: Mapping[str, str]) -> list[Table]:
    """The tables of each model.

    Raises:
        UserError: what stands in one column differs in problems, limit or length limit, or the runs of a model in their start
            weights.
    """
    return [table for model, runs in by_model(records).items() for table in tables_of(model, runs, names)]


def tables_of(model: str, records: Sequence[Record], names: Mapping[str, str]) -> list[Table]:
    """What is measured of a model, and beside it what others report of it."""
    kinds = sorted({kind_of(e) for record in records for e in record["evaluations"]})
    refuse_unlike(records)
    rows = rows_of(records, names)
    averaged = [kind for kind in kinds if kind[1] > 0] or kinds
    compared = {row.method: row.runs for row in rows if row.method != START and not row.apart}
    found = [
        scores(model, rows, kinds, averaged),
        breakdown(model, [(row.title, row.runs) for row in rows], kinds),
        differences_over(model, compared, names, averaged, [kind for kind in kinds if kind[1] == 0]),
        reported_table(model, str(records[0]["model"]["name"]), lambda entry: measured(entry, records)),
    ]
    return [table for table in found if table is not None]


def rows_of(records: Sequence[Record], names: Mapping[str, str]) -> list[Row]:
    """The start model, the methods, and last those that are not compared: other data, or another budget than most have."""
    start = [record for record in records if record["method"] == START]
    runs = runs_of(records)
    budgets = Counter(budgets_of(found) for found in runs.values() if not set_apart(found))
    usual = budgets.most_common(1)[0][0] if budgets else ""
    rows = [
        Row(method, names.get(method, method), found, set_apart(found) or other_budget(found, usual))
        for method, found in runs.items()
    ]
    rows = [
        Row(row.method, row.title + (" *" if row.apart else ""), row.runs, row.apart)
        for row in sorted(rows, key=lambda row: bool(row.apart))
    ]
    return [*([Row(START, "start model", start, "")] if start else []), *rows]


def other_budget(runs: Sequence[Record], usual: str) -> str:
    return "" if budgets_of(runs) == usual else "another budget than most"


def scores(model: str, rows: Sequence[Row], kinds: Sequence[Kind], averaged: Sequence[Kind]) -> Table:
    """Every column's mean over the seeds with a 95 % interval over problems and seeds, their mean, their interquartile mean, and
    the range of ranks."""
    header = (
        "method",
        *(column_name(kind) for kind in kinds),
        f"mean of {len(averaged)}",
        "IQM",
        "ranks",
        "seeds",
        "rollouts × rows, updates",
    )
    ranks = ranks_of(rows, averaged)
    cells = tuple(
        (
            row.title,
            *(cell_of(rates_of(row.runs, kind)) for kind in kinds),
            *means_of(row, averaged),
            ranks.get(row.method, ""),
            "" if row.method == START else str(row.seeds),
            "" if row.method == START else budgets_of(row.runs),
        )
        for row in rows
    )
    columns = [*([kind] for kind in kinds), list(averaged)]
    best = ((clear_winner(rows, of_column), place) for place, of_column in enumerate(columns, 1))
    bold = frozenset((row, place) for row, place in best if row is not None)
    return Table(model, header, cells, notes(rows), bold)


def means_of(row: Row, averaged: Sequence[Kind]) -> tuple[str, str]:
    """Mean and interquartile mean over columns and seeds; both want every column."""
    rates = [rates_of(row.runs, kind) for kind in averaged]
    if not all(map(len, rates)):
        return "not run", ""
    runs = np.array([of_kind.mean(1) for of_kind in rates]).T
    return percent(statistics.fmean(float(of_kind.mean()) for of_kind in rates)), percent(iqm(runs))


def ranks_of(rows: Sequence[Row], averaged: Sequence[Kind]) -> dict[str, str]:
    """{method: the places that it may have among those that are compared and have every column}."""
    compared = {
        row.method: row.runs
        for row in rows
        if row.method != START and not row.apart and all(len(rates_of(row.runs, kind)) for kind in averaged)
    }
    return places_of(compared, averaged)


def clear_winner(rows: Sequence[Row], kinds: Sequence[Kind]) -> int | None:
    """The row of the highest mean, if the paired difference to the next one is above zero with its whole interval: over
    seeds and problems, so from two seeds on. Rows that stand apart do not compete; the start model does."""
    means = {}
    for place, row in enumerate(rows):
        rates = [rates_of(row.runs, kind) for kind in kinds]
        if not row.apart and all(map(len, rates)):
            means[place] = statistics.fmean(float(of_kind.mean()) for of_kind in rates)
    order = sorted(means, key=lambda place: -means[place])
    if len(order) < 2 or rows[order[0]].method == START:
        return None
    first, second = rows[order[0]], rows[order[1]]
    pairs = paired(first.runs, second.runs, kinds)
    if not pairs or len(pairs[0][0]) < 2:
        return None
    return order[0] if stratified_difference(pairs)[1] > 0 else None


def cell_of(rates: np.ndarray) -> str:
    if not len(rates):
        return "not run"
    low, high = hierarchical_interval(rates)
    return f"{percent(float(rates.mean()))} [{percent(low)}, {percent(high)}]"


def budgets_of(runs: Sequence[Record]) -> str:
    return "; ".join(sorted({budget_of(record) for record in runs}))


def budget_of(record: Record) -> str:
    budget = record["budget"]
    updates = budget["updates"] + budget.get("updates_skipped", 0)
    return f"{budget['rollouts']} × {budget['rows'] // max(1, budget['rollouts'])}, {updates}"


def notes(rows: Sequence[Row]) -> tuple[str, ...]:
    said = [
        "Mean of the seeds in per cent, with a 95 % interval over problems and seeds. “not run”: the records have no such "
        "evaluation. IQM: interquartile mean over columns and seeds.",
        "Bold: the paired difference to the next row is above zero with its whole 95 % interval, over seeds and problems; no "
        "bold from one seed.",
        RANKS,
    ]
    apart: dict[str, list[str]] = {}
    for row in rows:
        if row.apart:
            apart.setdefault(row.apart, []).append(row.title.removesuffix(" *"))
    if apart:
        reasons = ", ".join(f"{reason} ({', '.join(titles)})" for reason, titles in apart.items())
        said.append(f"* stands last and is not compared: {reasons}.")
    titles = {row.method: row.title.removesuffix(" *") for row in rows}
    said += from_outside((record for row in rows for record in row.runs), titles)
    return tuple(said)


def measured(entry: Reported, records: Sequence[Record]) -> str:
    """What the records have of a reported number's method, benchmark and metric: every such column's cell, or "not run"."""
    everything = {START: [record for record in records if record["method"] == START], **runs_of(records)}
    runs = everything.get(entry.known_as, [])
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


def refuse_unlike(records: Sequence[Record]) -> None:
    """
    Raises:
        UserError: two records of a model start from other weights, or two evaluations of a column are not of the same problems
            under the same limits; both sides are named.
    """
    first: dict[Any, tuple[Record, Any]] = {}
    for record in records:
        facts: dict[str, Any] = {"start weights": record["model"]["sha256"]}
        facts[f"source of {record['method']}"] = code_of(record).get("method")
        facts |= rewards_of(record)
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
