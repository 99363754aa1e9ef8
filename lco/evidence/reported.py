"""The ledger of published numbers: what papers report, with source and confidence, printed beside what is measured.

It is data (reported.toml beside this file) that nothing else reads: no mean, rank or difference ever holds one of its numbers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lco.errors import UserError
from lco.evidence.formats import Table

CONFIDENCE = ("high", "medium", "low")
KEYS = ("paper", "source", "confidence", "metric", "setting", "benchmarks", "rows")


@dataclass(frozen=True)
class Reported:
    """One published number.

    Attributes:
        model: as its source names it; "" where it does not.
        method, known_as: as its source names it, and what it is called here ("": unknown here).
        value: as printed, a number in per cent unless the metric says otherwise.
    """

    paper: str
    source: str
    confidence: str
    metric: str
    setting: str
    model: str
    method: str
    known_as: str
    benchmark: str
    value: str


@cache
def ledger() -> tuple[Reported, ...]:
    return read_ledger(files("lco.evidence").joinpath("reported.toml").read_text(encoding="utf-8"))


def read_ledger(text: str) -> tuple[Reported, ...]:
    """Every number of a ledger.

    Raises:
        UserError: an entry lacks its source, its confidence or another key, or a row has not one value a benchmark.
    """
    parsed = tomllib.loads(text)
    names = parsed.get("known_as", {})
    found = []
    for number, entry in enumerate(parsed.get("reported", []), 1):
        refuse_incomplete(number, entry)
        said = {key: entry[key] for key in ("paper", "source", "confidence", "metric", "setting")}
        for model, method, *values in entry["rows"]:
            for benchmark, value in zip(entry["benchmarks"], values, strict=True):
                shown = value if isinstance(value, str) else f"{value:.2f}".removesuffix("0")
                found.append(Reported(**said, model=model, method=method, known_as=names.get(method, ""),
                                      benchmark=benchmark, value=shown))  # fmt: skip
    return tuple(found)


def refuse_incomplete(number: int, entry: Mapping[str, Any]) -> None:
    where = f"the ledger's entry {number} ({entry.get('paper', 'of no paper')})"
    lacking = [key for key in KEYS if not entry.get(key)]
    if lacking:
        raise UserError(f"{where} has no {lacking[0]}; a number without it is not printed, so add it")
    if entry["confidence"] not in CONFIDENCE:
        raise UserError(f"{where}: confidence is {entry['confidence']!r}; give one of {', '.join(CONFIDENCE)}")
    for row in entry["rows"]:
        if len(row) != 2 + len(entry["benchmarks"]):
            raise UserError(
                f"{where}: the row of {row[:2]} has not one value for each of {entry['benchmarks']}; mend it"
            )


def of_model(name: str) -> list[Reported]:
    """What is reported of a model, by the last part of its name, whatever its case."""
    return [entry for entry in ledger() if entry.model and entry.model.lower() == name.lower()]


def reported_table(name: str, model: str, measured: Callable[[Reported], str]) -> Table | None:
    """What others report of a model beside what is measured of it here; None where nothing is reported.

    Args:
        name: heads the table.
        measured: what the records say of an entry's method, benchmark and metric, as a table prints it.
    """
    entries = of_model(model)
    if not entries:
        return None
    header = ("method", "benchmark", "metric", "reported", "measured here", "confidence", "paper", "source")
    rows = tuple(
        (e.method, e.benchmark, e.metric, e.value, measured(e), e.confidence, e.paper, e.source) for e in entries
    )
    settings = dict.fromkeys(f"{e.paper}, {e.source}: {e.setting}." for e in entries)
    return Table(f"{name}: reported beside measured", header, rows, (NOTE, *settings))


NOTE = (
    "Reported numbers are others', with other data, budgets, prompts, decoding and verifiers; they stand here to be read beside "
    "what is measured, and are in none of the means, ranks and differences."
)


def whole_ledger(entries: Sequence[Reported] | None = None) -> Table:
    """All published numbers that the suite knows of."""
    entries = ledger() if entries is None else entries
    header = ("paper", "model", "method", "benchmark", "metric", "reported", "confidence", "source", "setting")
    rows = tuple(
        (e.paper, e.model or "unstated", e.method, e.benchmark, e.metric, e.value, e.confidence, e.source, e.setting)
        for e in entries
    )
    return Table("Reported by others", header, rows, (NOTE,))
