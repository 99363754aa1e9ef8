"""Figures as pure functions of records, the same bytes for the same records."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lco.evidence.formats import visible
from lco.evidence.names import source
from lco.evidence.styles import Style, styles
from lco.evidence.tables import Record, by_model, runs_of

PANELS = (("accuracy", "right answers in the rollout", False), ("entropy", "entropy, nats per token", False),
          ("gradient_norm", "gradient norm", True), ("kl_old", "KL(old ‖ new), last update", True))  # fmt: skip
CROWDED = 9
"""With more methods than this in one panel only their means are drawn; `one_by_one` shows the seeds."""


def learning_curves(records: Sequence[Record], titles: Mapping[str, str], stem: Path) -> list[Path]:
    """Accuracy, entropy, gradient norm and divergence over rollouts; thin lines are seeds, thick ones their mean.

    With many methods only the means are drawn.
    """
    plt = prepared()
    classes, looks = by_model(records), styles(runs_of(records))
    figure, axes = plt.subplots(
        len(classes), len(PANELS), figsize=(4 * len(PANELS), 3.1 * len(classes)), squeeze=False, layout="constrained"
    )
    for row, (model_class, found) in zip(axes, classes.items(), strict=True):
        for axis, (name, heading, logarithmic) in zip(row, PANELS, strict=True):
            draw(axis, runs_of(found), name, titles, looks)
            axis.set_title(heading, fontsize=10)
            axis.set_xlabel("rollout")
            if logarithmic:
                axis.set_yscale("log")
        row[0].set_ylabel(label(model_class))
    legend(figure, axes[0][1])
    return save(figure, stem)


def validation_curves(records: Sequence[Record], titles: Mapping[str, str], stem: Path) -> list[Path]:
    """pass@1 at T = 1 and greedy on validation problems, during training."""
    plt = prepared()
    classes, looks = by_model(records), styles(runs_of(records))
    figure, axes = plt.subplots(len(classes), 2, figsize=(10, 3.1 * len(classes)), squeeze=False, layout="constrained")
    for row, (model_class, found) in zip(axes, classes.items(), strict=True):
        for axis, name in zip(row, ("pass@1", "greedy"), strict=True):
            draw(axis, runs_of(found), name, titles, looks, "validation")
            axis.set_title("pass@1, T = 1" if name == "pass@1" else "greedy", fontsize=10)
            axis.set_xlabel("rollout")
            axis.set_ylim(0, 1.02)
        row[0].set_ylabel(label(model_class))
    legend(figure, axes[0][0], columns=5)
    return save(figure, stem)


def one_by_one(records: Sequence[Record], titles: Mapping[str, str], stem: Path) -> list[Path]:
    """A panel for every method: its seeds' pass@1 (T = 1) on validation problems, over the means of all other methods."""
    plt = prepared()
    classes = {name: runs_of(found) for name, found in by_model(records).items()}
    looks = styles(classes)
    methods = list(runs_of(records))
    columns = min(5, len(methods))
    rows = -(-len(methods) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2 * rows), squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    lines = {
        (model_class, method): curves(seeds, "pass@1", "validation")
        for model_class, runs in classes.items()
        for method, seeds in runs.items()
    }
    for axis in axes.flat[len(methods) :]:
        axis.set_axis_off()
    for axis, method in zip(axes.flat, methods, strict=False):
        for (_, other), found in lines.items():
            if other != method:
                axis.plot(*mean_curve(found), color="#d0d0d0", linewidth=0.6)
        for model_class, look in looks.items():
            for i, (steps, line) in enumerate(lines.get((model_class, method), [])):
                name = label(model_class) if i == 0 else None
                axis.plot(steps, line, color=look.colour, linestyle=look.linestyle, linewidth=1.1, label=name)
        axis.set_title(label(titles.get(method, method)), fontsize=9)
        axis.set_ylim(0, 1.02)
    for axis in axes[-1]:
        axis.set_xlabel("rollout")
    legend(figure, axes[0][0])
    return save(figure, stem)


def label(name: str) -> str:
    """A name as matplotlib shows it: no formula begins at a dollar, and no leading underline hides it from the legend."""
    text = visible(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def legend(figure: Any, axis: Any, columns: int = 8) -> None:
    """One legend below all panels, of the lines of this one and of what the others have besides."""
    found: dict[str, Any] = {}
    for panel in (axis, *figure.axes):
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(
        found.values(), found, loc="outside lower center", ncols=min(columns, max(1, len(found))), frameon=False,
        handlelength=2.8,
    )  # fmt: skip


def curves(seeds: Sequence[Record], name: str, part: str = "") -> list[tuple[Sequence[float], list[float]]]:
    """(steps, values) of every seed that recorded this curve; what is missing is NaN."""
    found = []
    for record in seeds:
        kept = record["curves"].get(part, {}) if part else record["curves"]
        if name in kept:
            found.append((kept["step"], [np.nan if value is None else value for value in kept[name]]))
    return found


def mean_curve(lines: Sequence[tuple[Sequence[float], list[float]]]) -> tuple[Sequence[float], Sequence[float]]:
    """(steps, mean over the seeds); empty where there is no curve, or where curves differ in length."""
    if len({len(line) for _, line in lines}) != 1:
        return [], []
    return lines[0][0], np.mean([line for _, line in lines], 0).tolist()


def draw(
    axis: Any, runs: Mapping[str, Sequence[Record]], name: str, titles: Mapping[str, str], looks: Mapping[str, Style],
    part: str = "",
) -> None:  # fmt: skip
    """One panel: every seed of every method that recorded this curve."""
    for method, seeds in runs.items():
        if name == "accuracy" and source(seeds[0]) != "rollouts":
            continue  # demonstrations are all right, and pairs are another policy's: no accuracy of the one that learns
        look, lines = looks[method], curves(seeds, name, part)
        for steps, line in lines if len(runs) <= CROWDED else ():
            axis.plot(steps, line, color=look.colour, linewidth=0.6, alpha=0.5)
        steps, mean = mean_curve(lines)
        if mean:
            printed = label(titles.get(method, method))
            axis.plot(steps, mean, color=look.colour, linestyle=look.linestyle, label=printed)


def prepared() -> Any:
    """matplotlib without a screen, with settings that make the files' bytes depend on the data alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.hashsalt": "lco",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
        }
    )
    return plt


def save(figure: Any, stem: Path) -> list[Path]:
    """PNG and SVG."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(files[1], metadata={"Date": None})
    files[0].write_bytes(encoded(figure))
    return files


def encoded(figure: Any) -> bytes:
    """The figure as PNG, and closed. A palette of 256 colours makes it a quarter as large and looks the same; this choice of
    them keeps the colours of thin lines."""
    from PIL import Image

    with io.BytesIO() as whole, io.BytesIO() as small:
        figure.savefig(whole, format="png", dpi=110)
        palette = Image.open(whole).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
        palette.save(small, format="png", optimize=True)
        prepared().close(figure)
        return small.getvalue()
