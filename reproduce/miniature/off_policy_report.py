"""Heat map and tables of the off-policy study, from its records alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from lco.disk import write_text
from lco.evidence.plots import label, prepared, save
from lco.evidence.tables import collapsed
from lco.methods import METHODS
from reproduce.miniature.stability_report import Record, scores, title, verdict

Where = tuple[int, int]
"""(staleness, updates a rollout)"""
Grid = Mapping[str, Mapping[Where, Sequence[Record]]]
"""method → cell → the records of its seeds"""


def build(records: Sequence[Record], presets: Mapping[str, Any], folder: Path) -> str:
    """Writes report.md and the heat map; returns the text."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Off-policy: old rollouts, many updates", ""]
    if records:
        grid = by_cell(records)
        draw(grid, folder / "heat_map")
        parts += [note(records, grid), "", grid_table(grid), "", "![](heat_map.png)", ""]
        parts += ["## What it costs", "", cost_table(grid), ""]
    if presets:
        parts += ["## Learning rates", "", preset_table(presets), ""]
    text = "\n".join(parts)
    write_text(folder / "report.md", text)
    return f"{text}\nwritten to {folder}"


def by_cell(records: Sequence[Record]) -> dict[str, dict[Where, list[Record]]]:
    """In the order of the registry, seeds in theirs."""
    found: dict[str, dict[Where, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda r: (list(METHODS).index(r["method"]), r["seed"])):
        found[record["method"]][record["staleness"], record["updates_per_rollout"]].append(record)
    return {method: dict(cells) for method, cells in found.items()}


def cells_of(grid: Grid) -> list[Where]:
    return sorted({cell for cells in grid.values() for cell in cells})


def named(cell: Where) -> str:
    """`8 old, 16 updates`."""
    staleness, updates = cell
    return f"{staleness} old, {updates} update{'s' if updates > 1 else ''}"


def end(record: Record) -> float:
    """pass@1 after the last rollout."""
    return scores(record)[-1]


def note(records: Sequence[Record], grid: Grid) -> str:
    counts = [len(cells.get(cell, ())) for cells in grid.values() for cell in cells_of(grid)]
    least, most = min(counts), max(counts)
    seeds = (
        f"{most} seed{'s' if most > 1 else ''} in every cell" if least == most else f"{least} to {most} seeds a cell"
    )
    start = 100 * mean(scores(record)[0] for record in records)
    return (
        "pass@1 (T = 1, per cent) on 128 validation problems after the last of 16 rollouts: mean ± standard deviation [lowest, "
        f"highest] over seeds, {seeds}; the interval from lowest to highest is also what a bootstrap over three seeds gives. "
        f"“8 old” are rollouts sampled by the policy of 8 rollouts before. The start has {start:.0f}. "
        "Collapsed: ended below half of its best."
    )


def grid_table(grid: Grid) -> str:
    columns = cells_of(grid)
    lines = ["| method | " + " | ".join(map(named, columns)) + " |", "|---" * (1 + len(columns)) + "|"]
    for method, cells in grid.items():
        row = [verdict(cells[cell]) if cell in cells else "" for cell in columns]
        lines.append(f"| {title(method)} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float], sign: str = "") -> str:
    """`85 [80, 90]`: mean, lowest and highest of some seeds' percentages."""
    shown = [f"{100 * value:{sign}.0f}" for value in (mean(values), min(values), max(values))]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if len(values) > 1 else shown[0]


def changes(cells: Mapping[Where, Sequence[Record]], axis: int) -> list[float]:
    """One number for each seed: by how much the largest value along an axis of the grid (0 staleness, 1 updates) ends above the
    smallest one, mean over the cells of the other axis; of the seeds that all of these cells have."""
    values = sorted({cell[axis] for cell in cells})
    smallest = [cell for cell in sorted(cells) if cell[axis] == values[0]]
    pairs = [(cell, (values[-1], cell[1]) if axis == 0 else (cell[0], values[-1])) for cell in smallest]
    pairs = [(near, far) for near, far in pairs if far in cells]
    if len(values) < 2 or not pairs:
        return []
    by_seed = [tuple({r["seed"]: end(r) for r in cells[cell]} for cell in pair) for pair in pairs]
    seeds = set.intersection(*(near.keys() & far.keys() for near, far in by_seed))
    return [mean(far[seed] - near[seed] for near, far in by_seed) for seed in sorted(seeds)]


def cost_table(grid: Grid) -> str:
    """One row a method: how it stands over the whole grid, and what each way of being off-policy takes from it."""
    staleness, updates = (sorted({cell[axis] for cell in cells_of(grid)}) for axis in (0, 1))
    lines = [
        "Points of pass@1 by which runs of the largest staleness (updates) end above those of the smallest, seed by seed, mean "
        "over the cells of the other axis; [lowest, highest] over seeds.",
        "",
        f"| method | mean of all cells | worst cell | collapsed runs | staleness {staleness[0]} → {staleness[-1]} | "
        f"updates {updates[0]} → {updates[-1]} |",
        "|---|---|---|---|---|---|",
    ]
    for method, cells in grid.items():
        runs = [record for seeds in cells.values() for record in seeds]
        means = {cell: mean(map(end, seeds)) for cell, seeds in cells.items()}
        worst = min(means, key=lambda cell: means[cell])
        older, further = (changes(cells, axis) for axis in (0, 1))
        lines.append(
            f"| {title(method)} | {100 * mean(means.values()):.0f} | {100 * means[worst]:.0f} ({named(worst)}) | "
            f"{sum(map(collapsed, runs))} of {len(runs)} | {spread(older, '+') if older else ''} | "
            f"{spread(further, '+') if further else ''} |"
        )
    return "\n".join(lines)


def preset_table(presets: Mapping[str, Any]) -> str:
    """What the tries chose, and all that they reached."""
    rates = sorted({tried["knobs"]["lr"] for chosen in presets.values() for tried in chosen["tried"]})
    lines = [
        "pass@1 (per cent) on 512 validation problems after a run at staleness 2 with 4 updates a rollout, one seed that no run "
        "of the grid has; the bold rate is the method's in every cell.",
        "",
        "| method | " + " | ".join(f"lr {rate:g}" for rate in rates) + " |",
        "|---" * (1 + len(rates)) + "|",
    ]
    for method, chosen in presets.items():
        reached = {tried["knobs"]["lr"]: tried["validation_pass@1"] for tried in chosen["tried"]}
        shown = {rate: f"{100 * value:.1f}" for rate, value in reached.items()}
        row = [f"**{shown[rate]}**" if rate == chosen["knobs"]["lr"] else shown.get(rate, "") for rate in rates]
        lines.append(f"| {title(method)} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def draw(grid: Grid, stem: Path) -> None:
    """Methods × cells: colour and number are the mean pass@1, below it how many of the seeds collapsed."""
    plt = prepared()
    columns, methods = cells_of(grid), list(grid)
    size = (1.6 + 1.05 * len(columns), 1.2 + 0.42 * len(methods))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    means = [
        [mean(map(end, cells[cell])) if cell in cells else math.nan for cell in columns] for cells in grid.values()
    ]
    picture = axis.imshow(means, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for y, cells in enumerate(grid.values()):
        for x, cell in enumerate(columns):
            if cell in cells:
                broken = sum(map(collapsed, cells[cell]))
                text = f"{100 * means[y][x]:.0f}" + (f"\n{broken}/{len(cells[cell])} collapsed" if broken else "")
                colour = "black" if means[y][x] > 0.55 else "white"
                axis.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(columns)), [f"{u} update{'s' if u > 1 else ''}\n{s} old" for s, u in columns], fontsize=8)
    axis.set_yticks(range(len(methods)), [label(title(method)) for method in methods])
    axis.grid(False)
    figure.colorbar(picture, ax=axis, label="pass@1 on validation problems, mean over seeds")
    save(figure, stem)
