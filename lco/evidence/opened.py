"""What a row of a leaderboard opens to: knobs, cost, all scores, where each run came from, and samples with verdicts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.evidence.benchmarks import column_name, kind_of
from lco.evidence.boards import Board
from lco.evidence.check import SEAL
from lco.evidence.formats import Table
from lco.evidence.record_command import beside
from lco.evidence.rows import Row, commit, duration, machine
from lco.evidence.tables import Record, percent

SHOWN = 3
"""So many right and so many wrong samples of an evaluation stand on the page; all of them lie beside the record."""
LONGEST = 1500
"""Characters of a sample that stand on the page."""
PLAIN = ("method", "seed", "hyper")
"""Of an experiment: what a row says by itself."""
TEXTS = ("task", "response")
"""What every line of a file of samples has as text; other values may be missing."""


@dataclass(frozen=True)
class RunLine:
    """One record: `link` leads from the page to its file, `samples` to the file beside it, "" where there is none."""

    seed: str
    score: str
    commit: str
    machine: str
    packages: str
    time: str
    sha256: str
    link: str
    samples: str


@dataclass(frozen=True)
class Sample:
    """A response and what the verifier says of it.

    Attributes:
        problem, answer: of generated problems alone; published ones belong to others.
        extracted, reason: "" where an older record does not have them.
    """

    kind: str
    problem: str
    answer: str
    response: str
    extracted: str
    right: bool
    reason: str
    cut: bool


@dataclass(frozen=True)
class Opened:
    """
    Attributes:
        note: which run's samples these are, or why there are none.
    """

    knobs: tuple[tuple[str, str], ...]
    cost: tuple[tuple[str, str], ...]
    evaluations: Table
    runs: tuple[RunLine, ...]
    samples: tuple[Sample, ...]
    note: str


def opened(board: Board, row: Row, shared: Mapping[str, str], files: Mapping[int, Path], page: Path) -> Opened:
    """
    Args:
        shared: settings that all runs of the board have in common, which stand above it.
        files: {id of a record: its file}.
        page: the folder of the page, from which links lead to records.
    """
    places = [files[id(record)] for record in row.runs]
    samples, note = samples_of(row.runs, places)
    return Opened(
        tuple(knobs(row.runs, shared)), tuple(cost(row.runs)), evaluations(row.runs),
        tuple(run_of(board, record, place, page) for record, place in zip(row.runs, places, strict=True)),
        tuple(samples), note,
    )  # fmt: skip


def settings(record: Record) -> dict[str, str]:
    """The experiment as text, but for the method's own knobs."""
    return {key: said(value) for key, value in record["experiment"].items() if key not in PLAIN}


def said(value: Any) -> str:
    """A value as a person writes it: no quotation marks about a word, nothing for nothing."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shared_settings(records: Sequence[Record]) -> dict[str, str]:
    """What all runs have in common."""
    trained = [settings(record) for record in records if record["method"] != "start"]
    return {k: v for k, v in trained[0].items() if all(other.get(k) == v for other in trained)} if trained else {}


def knobs(runs: Sequence[Record], shared: Mapping[str, str]) -> list[tuple[str, str]]:
    """The method's knobs, then the settings in which its runs differ from others; values of several seeds once each."""
    own = [record["experiment"].get("hyper", {}) for record in runs]
    others = [{k: v for k, v in settings(record).items() if k not in shared} for record in runs]
    found: list[tuple[str, str]] = []
    for sides in (own, others):
        for key in dict.fromkeys(key for side in sides for key in side):
            values = dict.fromkeys(said(side[key]) for side in sides if key in side)
            found.append((key, ", ".join(values) or "none"))
    return found


def cost(runs: Sequence[Record]) -> list[tuple[str, str]]:
    """What the runs took, the mean of the seeds: budget, seconds by phase, and what a record says of devices and memory."""
    if runs[0]["method"] == "start":
        return []
    found = [(name.replace("_", " "), mean_of([r["budget"].get(name) for r in runs])) for name in runs[0]["budget"]]
    for name in runs[0]["seconds"]:
        values = [r["seconds"].get(name) for r in runs]
        if None not in values:
            found.append((f"time, {name}", duration(sum(values) / len(values))))
    for name in runs[0].get("cost", {}):
        found.append((name.replace("_", " "), mean_of([r.get("cost", {}).get(name) for r in runs])))
    return found


def mean_of(values: Sequence[Any]) -> str:
    """The mean of numbers, other values once each."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        mean = sum(values) / len(values)
        return f"{mean:,.0f}" if mean >= 100 or mean == int(mean) else f"{mean:.3g}"
    return ", ".join(dict.fromkeys(said(value) for value in values if value is not None))


def evaluations(runs: Sequence[Record]) -> Table:
    """Every evaluation of these runs: scores in per cent, the mean of the seeds, and each seed's."""
    kinds: dict[Any, list[Mapping[str, Any]]] = {}
    for record in runs:
        for e in record["evaluations"]:
            kinds.setdefault(kind_of(e), []).append(e)
    sizes = sorted({int(k) for found in kinds.values() for e in found for k in e["scores"]["pass@k"] if k != "1"})

    def mean(found: Sequence[Mapping[str, Any]], of: Any) -> str:
        values = [of(e["scores"]) for e in found]
        return "" if None in values else percent(sum(values) / len(values))

    rows = tuple(
        (
            column_name(kind),
            mean(found, lambda s: s["pass@1"]),
            *(mean(found, lambda s, k=k: s["pass@k"].get(str(k))) for k in sizes),
            *(mean(found, lambda s, name=name: s.get(name)) for name in ("maj@n", "no_answer", "truncated")),
            f"{found[0]['problems']} × {found[0]['samples']}",
            ", ".join(percent(e["scores"]["pass@1"]) for e in found) if len(found) > 1 else "",
        )
        for kind, found in sorted(kinds.items())
    )
    header = ("evaluation", "pass@1", *(f"pass@{k}" for k in sizes), "maj@n", "no answer", "cut", "problems × samples",
              "pass@1 of each seed")  # fmt: skip
    return Table("", header, rows)


def run_of(board: Board, record: Record, place: Path, page: Path) -> RunLine:
    found = [e["scores"]["pass@1"] for e in record["evaluations"] if kind_of(e) in board.main]
    seconds, source = record["seconds"].get("total"), record["provenance"]
    samples = beside(place)
    return RunLine(
        "" if record["seed"] is None else str(record["seed"]),
        percent(sum(found) / len(found)) if len(found) == len(board.main) else "not run",
        commit(record),
        f"{machine(record)}, {source['hardware']['cores']} cores, {source['hardware']['memory_gib']} GiB",
        f"torch {source['packages'].get('torch', '?')}",
        duration(seconds) if seconds is not None else "",
        str(record.get(SEAL, ""))[:12],
        link(place, page),
        link(samples, page) if samples.is_file() else "",
    )


def link(file: Path, page: Path) -> str:
    return Path(os.path.relpath(file, page)).as_posix()


def samples_of(runs: Sequence[Record], places: Sequence[Path]) -> tuple[list[Sample], str]:
    """Some samples of the first run that has any, and a sentence about them."""
    for record, place in zip(runs, places, strict=True):
        of = "" if record["seed"] is None else f" of seed {record['seed']}"
        if record.get("samples_sha256"):
            file = beside(place)
            data = file.read_bytes() if file.is_file() else None
            if data is None:
                return [], f"{file.name}, the file of samples beside the record{of}, is missing."
            if hashlib.sha256(data).hexdigest() != record["samples_sha256"]:
                return [], f"{file.name} is not the file of samples that the record{of} was made with: it is not shown."
            found = read_samples(data.decode("utf-8", errors="replace"))
            if found is None:
                return [], f"{file.name} holds a line that is no sample: it is not shown."
            if found:
                return chosen(
                    found
                ), f"Up to {SHOWN} right and {SHOWN} wrong ones of each evaluation{of}, chosen by hash, not by anybody."
        elif found := examples(record):
            return found, f"The first sample{of} to each of the first problems, picked by nobody."
    return [], "The records hold no samples."


def read_samples(text: str) -> list[Sample] | None:
    """The lines of a file of samples; None where one of them is none."""
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in TEXTS):
            return None
        found.append(
            Sample(
                f"{value['task'].removeprefix('lco_')}, T = {said(value.get('temperature'))}",
                text_of(value, "problem"), text_of(value, "answer"), shortened(value["response"]), text_of(value, "extracted"),
                value.get("correct") is True, text_of(value, "reason"), value.get("truncated") is True,
            )
        )  # fmt: skip
    return found


def text_of(value: Mapping[str, Any], key: str) -> str:
    return shortened(str(value.get(key) or ""))


def examples(record: Record) -> list[Sample]:
    """What records of the first schema hold themselves."""
    return [
        Sample(
            column_name(kind_of(e)), said["problem"], said["answer"], shortened(said["response"]), "",
            bool(said["correct"]), "", False,
        )
        for e in record["evaluations"] for said in e.get("examples", [])
    ]  # fmt: skip


def chosen(found: Sequence[Sample]) -> list[Sample]:
    """The first few right and wrong ones of each kind of evaluation, in their order."""
    counts: dict[tuple[str, bool], int] = {}
    kept = []
    for sample in found:
        key = sample.kind, sample.right
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= SHOWN:
            kept.append(sample)
    return kept


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
