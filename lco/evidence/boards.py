"""A board: the methods of one model in one folder of results, as rows of numbers that a page can sort, filter and open.

Only what is alike stands on one board. Other problems, limits, sampling values or start weights are refused, as `lco table`
refuses them; a method whose data or budget differ stands apart, below the others, and is ranked with nobody.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lco.errors import UserError
from lco.evidence.benchmarks import Kind, budget_of, column_name, kind_of, refuse_unlike
from lco.evidence.formats import visible
from lco.evidence.page import ticks
from lco.evidence.pairs import Pair, open_ranks, pairs_of
from lco.evidence.panels import Panel, panels
from lco.evidence.records import naming_of_model
from lco.evidence.rows import Column, Row, Strip, columns, row, score, with_rank
from lco.evidence.styles import styles
from lco.evidence.tables import Record, filtered, label, runs_of, set_apart


@dataclass(frozen=True)
class Board:
    """
    Attributes:
        model, family, scale: what the model is called.
        kinds, main: the evaluations of its methods, and those whose mean is the score.
        columns: of the cells of every row, the score first.
        start, sharpened: the start model's score, and its best without training; None where it has none.
        ticks: from the lower end of the scores' axis to its upper end.
    """

    model: str
    model_class: str
    family: str
    scale: str
    kinds: tuple[Kind, ...]
    main: tuple[Kind, ...]
    columns: tuple[Column, ...]
    start_row: Row | None
    rows: tuple[Row, ...]
    apart: tuple[Row, ...]
    start: float | None
    sharpened: float | None
    ticks: tuple[float, ...]
    pairs: tuple[Pair, ...]
    panels: tuple[Panel, ...]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(visible(kind[0]) for kind in self.kinds))

    @property
    def all_rows(self) -> list[Row]:
        return [*([self.start_row] if self.start_row else []), *self.rows, *self.apart]

    @property
    def named_ticks(self) -> list[float]:
        """The ends of the axis, and its middle where a tick stands there."""
        middle = self.ticks[len(self.ticks) // 2 :][: len(self.ticks) % 2]
        return sorted({self.ticks[0], *middle, self.ticks[-1]})

    def place(self, value: float) -> float:
        """Of a share on the axis of scores, 0 to 100; what lies beyond stands at its end."""
        return round(min(max(100 * (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0]), 0), 100), 1)

    def on_axis(self, value: float) -> bool:
        return self.ticks[0] <= value <= self.ticks[-1]

    @property
    def reasons(self) -> dict[str, list[str]]:
        """{why rows stand apart: their titles}."""
        found: dict[str, list[str]] = {}
        for one in self.apart:
            found.setdefault(one.apart, []).append(one.title)
        return found

    def pair(self, a: str, b: str) -> Pair | None:
        """Method a minus method b, if both share a seed."""
        for pair in self.pairs:
            if {pair.a, pair.b} == {a, b}:
                return pair if pair.a == a else pair.mirrored
        return None


def board(model: str, records: Sequence[Record], titles: Mapping[str, str]) -> Board:
    """
    Raises:
        UserError: what stands in one column differs in problems, limits or sampling values, the runs in their start weights,
            or an evaluation has no counts to compare.
    """
    refuse_uncounted(records)
    refuse_unlike(records)
    refuse_other_sampling(records)
    runs = runs_of(records)
    start = [record for record in records if record["method"] == "start"]
    kinds = tuple(
        sorted({kind_of(e) for r in (r for found in runs.values() for r in found) for e in r["evaluations"]})
        or sorted({kind_of(e) for r in start for e in r["evaluations"]})
    )
    if not kinds:
        raise UserError(f"no record of {model} has an evaluation; make them again after `lco evaluate`")
    main = tuple(kind for kind in kinds if kind[1] > 0) or kinds
    apart = {**other_budgets(runs), **{m: reason for m, found in runs.items() if (reason := set_apart(found))}}
    base = score(start, main) if start else None
    best = untrained_best(start[0], main) if start else None
    looks = styles(runs)
    rows = {
        method: row(
            method, titles.get(method, method), found, kinds, main, base, best, looks[method], apart.get(method, "")
        )
        for method, found in runs.items()
    }
    ranked = {m: found for m, found in runs.items() if m not in apart and rows[m].strip}
    pairs = pairs_of(ranked, main)
    ranges = open_ranks(list(ranked), pairs)
    shown = [with_rank(r, ranges.get(m)) for m, r in rows.items()]
    start_row = row("start", "start model", start, kinds, main, None, None, None, "") if start else None
    named = naming_of_model(records[0]["model"]["name"]) | {
        key: records[0]["model"][key] for key in ("family", "scale") if key in records[0]["model"]
    }
    found = Board(
        model, records[0]["model"]["class"], named["family"], named["scale"], kinds, main, columns(kinds, main),
        with_rank(start_row, None) if start_row else None,
        tuple(sorted((r for r in shown if not r.apart), key=by_score)),
        tuple(sorted((r for r in shown if r.apart), key=by_score)),
        base, best, axis([r.strip for r in shown if r.strip], best), tuple(pairs), tuple(panels(runs)),
    )  # fmt: skip
    return without_empty_columns(found)


def without_empty_columns(found: Board) -> Board:
    """What no row has is no column: a gain where there is no start model, a deviation where all have one seed."""
    kept = [i for i in range(len(found.columns)) if any(row.cells[i].text for row in found.all_rows)]

    def of(row: Row) -> Row:
        return replace(row, cells=tuple(row.cells[i] for i in kept))

    return replace(
        found,
        columns=tuple(found.columns[i] for i in kept),
        start_row=found.start_row and of(found.start_row),
        rows=tuple(map(of, found.rows)),
        apart=tuple(map(of, found.apart)),
    )


def by_score(r: Row) -> tuple[float, str]:
    return (-r.strip.mean if r.strip else 2.0), r.method


def axis(strips: Sequence[Strip], best: float | None) -> tuple[float, ...]:
    """From below the lowest mean to above the highest interval: one seed that fell would press all others together, so what
    lies further down is drawn at the axis's end."""
    seen = [*(strip.mean for strip in strips), *(strip.high for strip in strips), *([] if best is None else [best])]
    return ticks(min(seen), max(seen)) if seen else (0.0, 1.0)


def untrained_best(start: Record, main: Sequence[Kind]) -> float | None:
    """The start model's best at any temperature, for each benchmark, and the mean of these."""
    tasks = dict.fromkeys(kind[0] for kind in main)
    found = {t: [e["scores"]["pass@1"] for e in start["evaluations"] if e["task"] == t] for t in tasks}
    return statistics.fmean(map(max, found.values())) if all(found.values()) else None


def other_budgets(runs: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """{method: how its budget differs from that of most methods that may be compared}.

    A method that leaves sampled rows out of its updates may have fewer of them.
    """

    def of(record: Record) -> tuple[int, ...]:
        budget = record["budget"]
        sampled: tuple[int, ...] = budget["rollouts"], budget["rows"]
        return sampled if filtered(record) else (*sampled, budget["updates"] + budget.get("updates_skipped", 0))

    found = {m: [of(r) for r in records] for m, records in runs.items() if not set_apart(records)}
    often: Counter[tuple[int, ...]] = Counter(size for sizes in found.values() for size in set(sizes) if len(size) == 3)
    often = often or Counter(size for sizes in found.values() for size in set(sizes))
    usual = often.most_common(1)[0][0] if often else ()
    unlike = {m: [s for s in sizes if s != usual[: len(s)]] for m, sizes in found.items()}
    return {
        m: f"another budget: {next(budget_of(r) for r in runs[m] if of(r) == sizes[0])} (rollouts × rows, updates)"
        for m, sizes in unlike.items()
        if sizes
    }


def refuse_uncounted(records: Sequence[Record]) -> None:
    """
    Raises:
        UserError: an evaluation without problems or with unequal numbers of samples, or one that a record has twice.
    """
    for record in records:
        kinds: set[Kind] = set()
        for e in record["evaluations"]:
            if not e["samples"] or not e["correct"]:
                raise UserError(
                    f"{label(record)}: its evaluation of {e['task']} has no problem, or not as many samples of each; evaluate it "
                    "again"
                )
            kind = e["task"], float(e["sampling"]["temperature"]), int(e["samples"])
            if kind in kinds:
                raise UserError(
                    f"{label(record)} has {column_name(kind)} twice; make its record again with one of them"
                )
            kinds.add(kind)


def refuse_other_sampling(records: Sequence[Record]) -> None:
    """
    Raises:
        UserError: two evaluations of one column were sampled from other parts of the distribution.
    """
    first: dict[tuple[Kind, str], tuple[Record, Any]] = {}
    for record in records:
        for e in record["evaluations"]:
            for key in ("top_p", "top_k"):
                other, expected = first.setdefault((kind_of(e), key), (record, e["sampling"].get(key)))
                if (value := e["sampling"].get(key)) != expected:
                    raise UserError(
                        f"cannot compare {label(other)} and {label(record)}: {key} of {column_name(kind_of(e))} is {expected} "
                        f"and {value}; give records that differ in this a folder of their own"
                    )
