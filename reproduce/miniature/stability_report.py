"""Tables and figures of the stability study, from its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from lco.disk import write_text
from lco.evidence.plots import legend, prepared, save
from lco.evidence.styles import styles
from lco.evidence.tables import collapsed
from lco.methods import METHODS

Record = Mapping[str, Any]

LEARNT = 0.10
"""A run has learnt if its pass@1 ends this much above its start."""


def build(frozen: Sequence[Record], grid: Sequence[Record], small_beta: Sequence[Record], folder: Path) -> str:
    """Writes report.md and the figures; returns the text."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Stability", ""]
    if frozen:
        draw_frozen(frozen, folder / "frozen_batch")
        parts += ["## Inner steps on one frozen batch", "", frozen_table(frozen), "", "![](frozen_batch.png)", ""]
    if grid:
        draw_grid(grid, folder / "grid")
        parts += ["## Learning rate and updates a rollout", "", grid_table(grid), "", "![](grid.png)", ""]
    if small_beta:
        draw_grid(small_beta, folder / "small_beta")
        betas = " and ".join(f"{beta:g}" for beta in sorted({r["hyper"]["beta"] for r in small_beta}))
        parts += [f"## The LCO losses at β = {betas}", "", grid_table(small_beta), "", "![](small_beta.png)", ""]
    text = "\n".join(parts)
    write_text(folder / "report.md", text)
    return f"{text}\nwritten to {folder}"


def title(method: str) -> str:
    return METHODS[method].title


def frozen_table(records: Sequence[Record]) -> str:
    """What the released paper claims of LCO: gradients that point along the way and shrink on it."""
    lines = [
        "| method | lr | cos(−∇L, θ_K − θ_k): median | lowest | steps with cos > 0 | norm, first → last | largest / median |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(records, key=lambda r: list(METHODS).index(r["method"])):
        cosines, norms = r["cosine_to_the_end"], r["gradient_norm"]
        lines.append(
            f"| {title(r['method'])} | {r['lr']:g} | {median(cosines):.2f} | {min(cosines):.2f} | "
            f"{sum(c > 0 for c in cosines)}/{len(cosines)} | {norms[0]:.3g} → {norms[-1]:.3g} | "
            f"{max(norms) / median(norms):.1f} |"
        )
    return "\n".join(lines)


def draw_frozen(records: Sequence[Record], stem: Path) -> None:
    plt = prepared()
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    looks = styles(r["method"] for r in records)
    for r in records:
        look = looks[r["method"]]
        style = {"color": look.colour, "linestyle": look.linestyle, "label": title(r["method"])}
        axes[0].plot(r["cosine_to_the_end"], **style)
        axes[1].plot(r["cosine_to_the_whole_way"], **style)
        axes[2].plot(r["gradient_norm"], **style)
    for axis, text in zip(axes, ("cos(−∇L(θ_k), θ_K − θ_k)", "cos(−∇L(θ_k), θ_K − θ_0)", "‖∇L(θ_k)‖"), strict=True):
        axis.set_title(text, fontsize=10)
        axis.set_xlabel("inner step k")
    for axis in axes[:2]:
        axis.axhline(0, color="black", linewidth=0.8)
    axes[2].set_yscale("log")
    legend(figure, axes[0])
    save(figure, stem)


def cells(records: Sequence[Record]) -> dict[tuple[str, float, int], list[Record]]:
    """(method, learning rate, updates) → its seeds."""
    found: dict[tuple[str, float, int], list[Record]] = defaultdict(list)
    for r in records:
        found[r["method"], r["lr"], r["updates_per_rollout"]].append(r)
    return found


def scores(record: Record) -> list[float]:
    """pass@1 on validation problems over the run."""
    return [float(x) for x in record["curves"]["validation"]["pass@1"]]


def verdict(seeds: Sequence[Record]) -> str:
    """`91 ± 1 [90, 92]` in per cent, lowest and highest seed; how many collapsed, or that none has learnt."""
    ends = [100 * scores(r)[-1] for r in seeds]
    spread = f" ± {stdev(ends):.0f} [{min(ends):.0f}, {max(ends):.0f}]" if len(ends) > 1 else ""
    broken = sum(map(collapsed, seeds))
    learnt = sum(scores(r)[-1] >= scores(r)[0] + LEARNT for r in seeds)
    mark = f" ({broken} collapsed)" if broken else "" if learnt else " (none learnt)"
    return f"{mean(ends):.0f}{spread}{mark}"


def grid_table(records: Sequence[Record]) -> str:
    found = cells(records)
    rates, updates = sorted({key[1] for key in found}), sorted({key[2] for key in found})
    columns = [(u, rate) for u in updates for rate in rates]
    least, most = min(map(len, found.values())), max(map(len, found.values()))
    seeds = f"{most} seed{'s' if most > 1 else ''}" if least == most else f"{least} to {most} seeds"
    start = mean(scores(r)[0] for r in records)
    lines = [
        f"pass@1 (T = 1, per cent) on 128 validation problems after the last rollout, mean ± standard deviation of "
        f"{seeds} [lowest, highest, which is also what a bootstrap over three seeds gives]; the start has {100 * start:.0f}. "
        "Collapsed: ended below half of its best.",
        "",
        "| method | " + " | ".join(f"{u} update{'s' if u > 1 else ''}, lr {rate:g}" for u, rate in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for method in [name for name in METHODS if any(key[0] == name for key in found)]:
        row = [verdict(found[method, rate, u]) if (method, rate, u) in found else "" for u, rate in columns]
        lines.append(f"| {title(method)} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def draw_grid(records: Sequence[Record], stem: Path) -> None:
    plt = prepared()
    found, looks = cells(records), styles(r["method"] for r in records)
    rates, updates = sorted({key[1] for key in found}), sorted({key[2] for key in found})
    shape = {"figsize": (4 * len(rates), 3 * len(updates)), "squeeze": False, "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(len(updates), len(rates), **shape)
    for row, u in zip(axes, updates, strict=True):
        for axis, rate in zip(row, rates, strict=True):
            for (method, lr, count), seeds in found.items():
                if (lr, count) != (rate, u):
                    continue
                style = {"color": looks[method].colour, "linestyle": looks[method].linestyle, "linewidth": 1}
                for i, r in enumerate(seeds):
                    steps = r["curves"]["validation"]["step"]
                    axis.plot(steps, scores(r), label=title(method) if i == 0 else None, **style)
            axis.set_title(f"{u} update{'s' if u > 1 else ''} a rollout, lr {rate:g}", fontsize=10)
            axis.set_ylim(0, 1.02)
            axis.set_xlabel("rollout")
    legend(figure, axes[0][0])
    save(figure, stem)
