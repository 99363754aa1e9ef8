"""Curves as paths of inline SVG: one panel a quantity, its axes shared by all methods of a board, a band over seeds.

Geometry alone: the markup stands in the templates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lco.evidence.names import source
from lco.evidence.plots import curves
from lco.evidence.tables import Record

WIDTH, HEIGHT = 250, 140
LEFT, RIGHT, TOP, BOTTOM = 36, 8, 8, 20
POINTS = 160
"""A longer curve is drawn as so many means of its parts."""
QUANTITIES = (
    ("pass@1", "validation", "right on validation problems, T = 1", False),
    ("accuracy", "", "right in the rollout", False),
    ("entropy", "", "entropy, nats a token", False),
    ("gradient_norm", "", "gradient norm before clipping", True),
    ("kl_old", "", "KL(old ‖ new), last update", True),
    ("response_length", "", "tokens a response", False),
)
"""(curve, part of the record's curves, heading, logarithmic)."""


@dataclass(frozen=True)
class Line:
    """Paths: the mean of the seeds and the band from the lowest to the highest; every seed by itself where their steps differ."""

    mean: str
    band: str
    seeds: tuple[str, ...] = ()

    @property
    def strokes(self) -> list[str]:
        return [path for path in (self.mean, *self.seeds) if path]


@dataclass(frozen=True)
class Panel:
    """
    Attributes:
        lines: {method: its line}, for methods that recorded the curve.
        across, up: (place, label) of the axes' marks.
    """

    heading: str
    lines: Mapping[str, Line]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Scale:
    """Values to places of the drawing."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.array([self.low, self.high])
            (low, high), at = (np.log10(x) if self.logarithmic else x for x in (ends, values))
            places = self.start + (self.end - self.start) * (at - low) / (high - low)
        least, most = min(self.start, self.end), max(self.start, self.end)
        return np.where(np.isfinite(places), np.clip(places, least, most), np.nan)


def panels(runs: Mapping[str, Sequence[Record]]) -> list[Panel]:
    """A panel for every quantity that a run recorded."""
    found = []
    for name, part, heading, logarithmic in QUANTITIES:
        kept = {
            method: thinned
            for method, seeds in runs.items()
            if not (name == "accuracy" and source(seeds[0]) != "rollouts")  # demonstrations are all right
            and (thinned := [thin(*curve) for curve in curves(seeds, name, part) if len(curve[0])])
        }
        if panel := drawn(heading, kept, logarithmic):
            found.append(panel)
    return found


Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values; a value that is missing is NaN."""


def thin(steps: Sequence[float], values: Sequence[float]) -> Curve:
    """At most POINTS points: means of neighbouring ones."""
    parts = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)))
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


def drawn(heading: str, kept: Mapping[str, Sequence[Curve]], logarithmic: bool) -> Panel | None:
    """The panel of some methods' curves; None where there is nothing to draw."""
    everything = [curve for found in kept.values() for curve in found]
    values = np.concatenate([y for _, y in everything]) if everything else np.empty(0)
    values = values[np.isfinite(values) & ((values > 0) | (not logarithmic))]
    if not len(values):
        return None
    steps = np.concatenate([x for x, _ in everything])
    marks = decades(values.min(), values.max()) if logarithmic else round_marks(values.min(), values.max())
    x = Scale(float(steps.min()), float(max(steps.max(), steps.min() + 1)), LEFT, WIDTH - RIGHT)
    y = Scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP, logarithmic)
    across = [mark for mark in round_marks(x.low, x.high) if x.low <= mark <= x.high and mark == int(mark)]
    return Panel(
        heading,
        {method: line(found, x, y) for method, found in kept.items()},
        tuple((place(x, mark), f"{mark:g}") for mark in across),
        tuple((place(y, mark), f"{mark:g}") for mark in marks),
    )


def line(found: Sequence[Curve], x: Scale, y: Scale) -> Line:
    steps = found[0][0]
    if any(not np.array_equal(steps, other) for other, _ in found):
        return Line("", "", tuple(path(x(s), y(v)) for s, v in found))
    values = np.array([v for _, v in found])
    known = np.isfinite(values).any(0)
    steps, values = steps[known], values[:, known]
    mean = path(x(steps), y(np.nanmean(values, 0))) if len(steps) else ""
    if len(found) == 1 or not len(steps):
        return Line(mean, "")
    low, high = y(np.nanmin(values, 0)), y(np.nanmax(values, 0))
    low, high = (np.where(np.isfinite(side), side, y.start) for side in (low, high))  # zero, on a logarithmic axis
    there, back = path(x(steps), high), path(x(steps)[::-1], low[::-1])
    return Line(mean, f"{there}L{back[1:]}Z")


def path(across: NDArray[np.float64], up: NDArray[np.float64]) -> str:
    """Straight lines through the points, broken where one is missing."""
    said, pen = [], "M"
    for a, b in zip(across, up, strict=True):
        if not math.isfinite(b):
            pen = "M"
            continue
        said.append(f"{pen}{number(a)} {number(b)}")
        pen = "L"
    return "".join(said)


def number(value: float) -> str:
    """One decimal, and none that says nothing."""
    return f"{value:.1f}".removesuffix(".0")


def place(scale: Scale, value: float) -> float:
    return round(float(scale(np.array(value))), 1)


def round_marks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`, about `most` of them."""
    wide = max(high - low, 1e-9 * max(abs(low), 1.0))
    rough = wide / (most - 1)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float, most: int = 4) -> list[float]:
    """Powers of ten from below `low` to above `high`, about `most` of them."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    step = -(-(last - first) // most)
    return [10.0**i for i in range(first, last + step, step)]
