"""The result page: who stands where, all numbers, curves, what the models write, and where the numbers come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.evidence.check import SEAL
from lco.evidence.formats import Table
from lco.evidence.render import page
from lco.evidence.styles import Style
from lco.evidence.tables import (
    Record,
    Standing,
    by_model,
    percent,
    runs_of,
    sampled,
    sharpened,
    spread,
    start_of,
)


@dataclass(frozen=True)
class Bar:
    """One method's mean with its interval, shares in [0, 1]."""

    title: str
    style: Style
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    value: str
    apart: bool


@dataclass(frozen=True)
class Section:
    """What the page shows of one class of models.

    Attributes:
        start, sharpened: pass@1 of the start model as it samples, and at its best without training; None where it was not
            evaluated.
        ticks: from the lower end of the bars' axis to its upper end.
        kinds, looks: of the table's rows, their CSS class and their line's style.
    """

    name: str
    start: float | None
    sharpened: float | None
    ticks: tuple[float, ...]
    bars: tuple[Bar, ...]
    table: Table
    kinds: tuple[str, ...]
    looks: tuple[Style | None, ...]
    differences: Table | None

    def place(self, value: float) -> str:
        """Per cent of the axis's length."""
        return f"{100 * (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0]):.2f}"

    def width(self, low: float, high: float) -> str:
        return f"{100 * (high - low) / (self.ticks[-1] - self.ticks[0]):.2f}"

    def percent(self, value: float) -> str:
        return f"{percent(value)} %"

    def whole(self, value: float) -> str:
        return f"{100 * value:.0f}"


def section(
    name: str, records: Sequence[Record], ranked: Sequence[Standing], tables: tuple[Table, Table | None],
    titles: Mapping[str, str], looks: Mapping[str, Style],
) -> Section:  # fmt: skip
    start = start_of(records)
    before = len(tables[0].rows) - len(ranked)
    bars = tuple(
        Bar(
            titles.get(s.method, s.method) + (" *" if s.apart else ""), looks[s.method], s.mean, *s.interval,
            tuple(s.scores) if len(s.scores) > 1 else (), spread(s.scores), bool(s.apart),
        ) for s in ranked
    )  # fmt: skip
    base, best = (None, None) if start is None else (sampled(start)["scores"]["pass@1"], sharpened(start))
    lines = [value for value in (base, best) if value is not None]
    seen = [*lines, *(value for bar in bars for value in (bar.low, bar.high, *bar.seeds))]
    return Section(
        name, base, best, ticks(min(seen), max(seen)), bars, tables[0],
        (*["start"] * before, *("apart" if s.apart else "" for s in ranked)),
        (*[None] * before, *(looks[s.method] for s in ranked)), tables[1],
    )  # fmt: skip


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Round shares from below `low` to above `high`, at most eleven."""
    step = 0.1 if high - low > 0.25 else 0.05
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(i * step, 2) for i in range(first, max(last, first + 1) + 1))


def build(
    title: str, lead: Sequence[str], sections: Sequence[Section], figures: Sequence[tuple[str, Path]],
    records: Sequence[Record], titles: Mapping[str, str],
) -> str:  # fmt: skip
    """The page's text; `figures` are (caption, PNG file)."""
    shown = examples(records, titles)
    contents = [s.name for s in sections] + ["Curves", *(["What the models write"] if shown else [])]
    return page(
        "report.html", title=title, lead=lead, facts=facts(records), sections=sections, examples=shown,
        contents=[*contents, "Where the numbers come from"], provenance=provenance(records),
        figures=[(caption, file.read_bytes()) for caption, file in figures],
    )  # fmt: skip


def build_benchmarks(title: str, lead: Sequence[str], tables: Sequence[Table], records: Sequence[Record]) -> str:
    """The page of tables of several tasks."""
    return page(
        "benchmarks.html", title=title, lead=lead, facts=numbers(records), tables=tables, provenance=provenance(records),
        contents=[*(table.title for table in tables), "Where the numbers come from"],
    )  # fmt: skip


def numbers(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What of the report in numbers any records have."""
    runs = runs_of(records)
    trained = [record for found in runs.values() for record in found]
    seeds = sorted({len({r["seed"] for r in found}) for found in runs.values()})
    return [
        ("methods", str(len(runs))),
        ("models", str(len(by_model(records)))),
        ("seeds a method", "–".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1]))) if seeds else "0"),
        ("runs", str(len(trained))),
    ]


def facts(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The report in numbers."""
    tested = sampled(records[0])
    return [*numbers(records), ("test problems", f"{tested['problems']} × {tested['samples']} samples")]


def examples(records: Sequence[Record], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """The first response at T = 1 to the first test problems, start and first seed of each method; none if none is kept."""
    found = []
    for model_class, of_class in by_model(records).items():
        start = [record for record in of_class if record["method"] == "start"]
        writers = [*start, *(runs[0] for runs in runs_of(of_class).values())]
        kept = [(titles.get(r["method"], r["method"]), e) for r in writers for e in sampled(r).get("examples", [])]
        for problem, answer in {e["problem"]: e["answer"] for _, e in kept}.items():
            answers = [(name, e["response"], e["correct"]) for name, e in kept if e["problem"] == problem]
            found.append({"model_class": model_class, "problem": problem, "answer": answer, "answers": answers})
    return found


def provenance(records: Sequence[Record]) -> dict[str, list[str]]:
    """What the records say of code, packages, machine and models, each distinct value once."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        source, model = record["provenance"], record["model"]
        git, hardware = source["git"], source["hardware"]
        changed = " with uncommitted changes" if git["dirty"] else ""
        for name, value in {
            "commit": f"{git['commit']}{changed}" if git["commit"] else "not a checkout",
            "packages": ", ".join(f"{package} {version}" for package, version in source["packages"].items()),
            "machine": f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, "
            f"GPU {hardware['gpu']}",
            "models": f"{model['class']} ({model['name']}), weights {model['sha256'][:16]}…",
        }.items():
            found.setdefault(name, {})[value] = None
    sealed = sum(SEAL in record for record in records)
    return {
        "records": [f"{len(records)}, {sealed} of them with a hash of their content"],
        **{k: [*v] for k, v in found.items()},
    }
