"""The rows of a board: for every method the numbers by which it can be sorted, and their columns."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lco.evidence.benchmarks import Kind, budget_of, column_name, kind_of, rates_of
from lco.evidence.names import family, source
from lco.evidence.pairs import resampled, written
from lco.evidence.statistics import percentiles
from lco.evidence.styles import Style
from lco.evidence.tables import Record, collapsed, percent, points

NOT_RUN = "not run"


@dataclass(frozen=True)
class Column:
    """
    Attributes:
        about: what it holds, in words.
        task: the benchmark that it belongs to alone; "" where it is about all of them.
        better: 1 where more is better, −1 where less is, 0 where neither is.
    """

    title: str
    about: str
    task: str = ""
    better: int = 0


@dataclass(frozen=True)
class Cell:
    """What is printed, and the number by which it is sorted: None stands last."""

    text: str
    value: float | None = None


EMPTY = Cell("")


@dataclass(frozen=True)
class Strip:
    """A score with its 95 % interval and its seeds, shares in [0, 1]."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        runs: its records by seed.
        strip: None where the evaluations behind the score were not run.
        apart: why it is ranked with nobody, or "".
    """

    method: str
    title: str
    style: Style | None
    family: str
    source: str
    runs: tuple[Record, ...]
    strip: Strip | None
    cells: tuple[Cell, ...]
    apart: str = ""

    @property
    def seeds(self) -> int:
        return len({record["seed"] for record in self.runs})


def score(runs: Sequence[Record], main: Sequence[Kind]) -> float | None:
    """The mean over the main kinds; None where one of them was not run."""
    found = [rates_of(runs, kind) for kind in main]
    return statistics.fmean(float(rates.mean()) for rates in found) if all(map(len, found)) else None


def columns(kinds: Sequence[Kind], main: Sequence[Kind]) -> tuple[Column, ...]:
    whole = column_name(main[0]) if len(main) == 1 else f"mean of {len(main)}"
    of_main = main[0][0] if len(main) == 1 else ""
    others = [kind for kind in kinds if list(main) != [kind]]
    k = most_samples(main)
    return (
        Column(whole, "right answers in per cent: mean over seeds and problems", of_main, 1),
        Column("rank", "ranks that the paired differences leave open", of_main, -1),
        Column("95 %", "interval of the score over seeds and problems", of_main),
        Column("± seeds", "sample standard deviation over training seeds, points", of_main),
        Column("gain", "points over the start model as it samples", of_main, 1),
        Column("beyond sharpening", "points over the best of the start model without training", of_main, 1),
        *(Column(column_name(kind), f"right answers in per cent, {column_name(kind)}", kind[0], 1) for kind in others),
        *([Column(f"pass@{k}", f"at least one of {k} samples right, per cent", of_main, 1)] if k > 1 else []),
        *([Column(f"maj@{k}", "most frequent answer right, per cent", of_main, 1)] if k > 1 else []),
        Column("no answer", "responses in which the verifier found no answer, per cent", of_main, -1),
        Column("cut", "responses that the token limit cut, per cent", of_main, -1),
        Column("length", "tokens a response in the last rollout"),
        Column("collapsed", "runs whose validation score ended below half of its best", "", -1),
        Column("seeds", "training seeds"),
        Column("rollouts × rows, updates", "the budget of a run"),
        Column("tokens", "sampled in training, thousands a run"),
        Column("time", "wall-clock of a run's training"),
        Column("commit", "of the code that made the runs"),
        Column("machine", "on which they ran"),
    )


def most_samples(main: Sequence[Kind]) -> int:
    """k of the pass@k that all main kinds have; 1 where they differ in samples."""
    sizes = {kind[2] for kind in main}
    return sizes.pop() if len(sizes) == 1 else 1


def row(
    method: str, title: str, runs: Sequence[Record], kinds: Sequence[Kind], main: Sequence[Kind],
    base: float | None, best: float | None, style: Style | None, apart: str,
) -> Row:  # fmt: skip
    mean = score(runs, main)
    seeds = [value for r in runs if (value := score([r], main)) is not None] if mean is not None else []
    strip = None
    if mean is not None:
        strip = Strip(mean, *percentiles(resampled(runs, main)[1], 0.95), tuple(seeds) if len(seeds) > 1 else ())
    deviation = 100 * statistics.stdev(seeds) if len(seeds) > 1 else None
    others = [kind for kind in kinds if list(main) != [kind]]
    k = most_samples(main)
    trained = method != "start"
    cells = (
        Cell(NOT_RUN) if mean is None else Cell(percent(mean), mean),
        EMPTY,  # the rank, which is known when all rows are
        Cell(f"[{percent(strip.low)}, {percent(strip.high)}]", strip.low) if strip else EMPTY,
        EMPTY if deviation is None else Cell(f"{deviation:.1f}", deviation),
        gain(mean, base),
        gain(mean, best),
        *(share_of(runs, kind) for kind in others),
        *([shown(runs, main, lambda e: e["scores"]["pass@k"].get(str(k)))] if k > 1 else []),
        *([shown(runs, main, lambda e: e["scores"].get("maj@n"))] if k > 1 else []),
        shown(runs, main, lambda e: e["scores"].get("no_answer")),
        shown(runs, main, lambda e: e["scores"].get("truncated")),
        *(spent(runs) if trained else (EMPTY,) * 6),
        *origin(runs),
    )
    return Row(
        method, title, style, family(runs[0]) if trained else "start", source(runs[0]) if trained else "", tuple(runs), strip,
        cells, apart,
    )  # fmt: skip


def with_rank(found: Row, range_: tuple[int, int] | None) -> Row:
    cell = EMPTY
    if range_:
        best, worst = range_
        cell = Cell(written(best, worst), best + worst / 1000)
    return replace(found, cells=(found.cells[0], cell, *found.cells[2:]))


def gain(mean: float | None, base: float | None) -> Cell:
    return EMPTY if mean is None or base is None else Cell(points(mean - base), mean - base)


def share_of(runs: Sequence[Record], kind: Kind) -> Cell:
    rates = rates_of(runs, kind)
    return Cell(percent(float(rates.mean())), float(rates.mean())) if len(rates) else Cell(NOT_RUN)


def shown(runs: Sequence[Record], main: Sequence[Kind], of: Any) -> Cell:
    """The mean of one of the scores over runs and main kinds; empty where an older record lacks it."""
    found = [of(e) for r in runs for e in r["evaluations"] if kind_of(e) in main]
    return EMPTY if None in found or not found else Cell(percent(statistics.fmean(found)), statistics.fmean(found))


def spent(runs: Sequence[Record]) -> tuple[Cell, ...]:
    """Length, collapses, seeds, budget, tokens, time."""
    lengths = [path[-1] for r in runs if (path := r["curves"].get("response_length"))]
    watched = [r for r in runs if "validation" in r["curves"]]
    fallen = sum(map(collapsed, watched))
    seeds = len({r["seed"] for r in runs})
    tokens = statistics.fmean(r["budget"]["response_tokens"] for r in runs) / 1000
    seconds = [r["seconds"]["total"] for r in runs if "total" in r["seconds"]]
    known = len(lengths) == len(runs) and None not in lengths
    return (
        Cell(f"{statistics.fmean(lengths):.0f}", statistics.fmean(lengths)) if known else EMPTY,
        Cell(f"{fallen}/{len(watched)}", fallen / len(watched)) if watched else EMPTY,
        Cell(str(seeds), seeds),
        Cell("; ".join(sorted({budget_of(r) for r in runs})), statistics.fmean(r["budget"]["updates"] for r in runs)),
        Cell(f"{tokens:.0f} k", tokens),
        Cell(duration(statistics.fmean(seconds)), statistics.fmean(seconds)) if seconds else EMPTY,
    )


def origin(runs: Sequence[Record]) -> tuple[Cell, Cell]:
    """Commits and machines, the most frequent first; + marks a tree with uncommitted changes."""
    commits, machines = Counter(map(commit, runs)).most_common(), Counter(map(machine, runs)).most_common()
    return Cell(some([name for name, _ in commits])), Cell(some([name for name, _ in machines]))


def some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def commit(record: Record) -> str:
    git = record["provenance"]["git"]
    return f"{str(git['commit'])[:7]}{'+' if git['dirty'] else ''}" if git["commit"] else "no checkout"


def machine(record: Record) -> str:
    hardware = record["provenance"]["hardware"]
    return str(hardware["gpu"] or hardware["processor"])


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
