"""Tables and figures of many trials, from their records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lco.disk import write_text
from lco.evidence.formats import Table, markdown
from lco.evidence.plots import legend, prepared, save
from lco.evidence.styles import styles
from lco.robust.environments import ENVIRONMENTS, environment_named

Record = Mapping[str, Any]

TITLES = {
    "lsvi_ucb": "LSVI-UCB",
    "dr_lsvi_ucb": "DR-LSVI-UCB",
    "dr_rpo": "DR-RPO †",
    "dr_rpo_penalty": "DR-RPO, penalised †",
}
MARK = (
    "† A reconstruction: the paper's text was not available, its formulas are rebuilt from the abstract and the work that it "
    "builds on."
)


def build(records: Sequence[Record], folder: Path) -> str:
    """Writes report.md and the figures; returns the text."""
    tried = [record for record in records if record["part"] == "bonus"]
    chosen = {name: best_bonus(tried, name) for name in ENVIRONMENTS if any(r["environment"] == name for r in tried)}
    parts = ["# DR-RPO and its baselines", ""]
    if chosen:
        draw_regret(chosen, folder / "regret")
        draw_returns(chosen, folder / "returns")
        parts += ["## Regret", "", *(markdown(regret_table(name, tried)) for name in chosen), "![](regret.png)", ""]
        parts += [
            "## When the world changes",
            "",
            *(markdown(returns_table(name, found)) for name, found in chosen.items()),
        ]
        parts += ["![](returns.png)", ""]
    for part, knob in (("beta", "β"), ("radius", "radius ρ")):
        found = sorted((r for r in records if r["part"] == part), key=lambda r: swept(r, part))
        if found:
            parts += [f"## {knob}", "", markdown(sweep_table(part, knob, found)), ""]
    text = "\n".join(parts)
    write_text(folder / "report.md", text)
    return f"{text}\nwritten to {folder}"


def best_bonus(records: Sequence[Record], environment: str) -> dict[str, Record]:
    """{learner: its record with the lowest average suboptimality by its own goal}, in the order of TITLES."""
    found: dict[str, Record] = {}
    for learner in TITLES:
        tries = [r for r in records if (r["environment"], r["learner"]) == (environment, learner)]
        if tries:
            found[learner] = min(tries, key=lambda r: float(np.mean(r["average_suboptimality"])))
    return found


def spread(values: Sequence[float], digits: int = 4) -> str:
    """mean ± standard error over seeds."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def slope(record: Record) -> str:
    found = [value for value in record["slope"] if value is not None]
    return spread(found, 2) if found else "no loss"


def regret_table(environment: str, records: Sequence[Record]) -> Table:
    rows, tries = [], [r for r in records if r["environment"] == environment]
    best = best_bonus(records, environment)
    for learner in TITLES:
        for r in sorted((r for r in tries if r["learner"] == learner), key=lambda r: r["bonus"]):
            rows.append(
                (
                    TITLES[learner] + (" (best)" if r is best[learner] else ""),
                    f"{r['bonus']:g}",
                    spread(r["average_suboptimality"]),
                    slope(r),
                    spread(r["average_robust_suboptimality"]),
                    f"{r['exact']['value']:.4f}",
                )
            )
    first = tries[0]
    header = ("learner", "bonus b", "average suboptimality", "slope of regret", "robust suboptimality", "optimum")
    notes = (
        f"{first['episodes']} episodes, {first['seeds']} seeds, mean ± standard error; best: the lowest average.",
        "Average suboptimality: regret / episodes by the learner's own goal, whose exact optimum is the last column. Slope: of "
        "log regret on log episodes over the second half; below 1 is sublinear.",
        f"Robust suboptimality: for all alike, the worst case within radius {first['radius']:g} without a KL term.",
        MARK,
    )
    return Table(environment_named(environment).title, header, tuple(rows), notes)


def returns_table(environment: str, chosen: Mapping[str, Record]) -> Table:
    """The last plans in perturbed worlds, beside exact planning."""
    world, first = environment_named(environment), next(iter(chosen.values()))
    levels = first["level"]
    shown = sorted({0, len(levels) // 4, len(levels) // 2, 3 * len(levels) // 4, len(levels) - 1})
    rows = [
        (TITLES[learner], *(spread([seed[i] for seed in r["returns"]], 3) for i in shown))
        for learner, r in chosen.items()
    ]
    planned = {
        "exact, nominal": first["exact"]["returns"]["nominal"],
        "exact, robust": first["exact"]["returns"]["robust"],
    }
    if "dr_rpo" in chosen:
        planned["exact, robust and regularised †"] = chosen["dr_rpo"]["exact"]["returns"]["own"]
    rows += [(name, *(f"{found[i]:.3f}" for i in shown)) for name, found in planned.items()]
    header = (f"return at: {world.axis}", *(f"{levels[i]:g}" for i in shown))
    return Table(world.title, header, tuple(rows), (f"Nominal: {world.nominal:g}. {MARK}",))


def swept(record: Record, part: str) -> float:
    return float(record["goal"]["beta"] if part == "beta" else record["goal"]["size"])


def sweep_table(part: str, knob: str, records: Sequence[Record]) -> Table:
    rows = [
        (
            f"{swept(r, part):g}",
            spread(r["average_suboptimality"]),
            slope(r),
            f"{r['exact']['value']:.4f}",
            spread([seed[-1] for seed in r["kl_reference"]], 3),
            spread([seed[0] for seed in r["returns"]], 3),
            spread([seed[-1] for seed in r["returns"]], 3),
        )
        for r in records
    ]
    header = (knob, "average suboptimality", "slope of regret", "optimum", "KL to the reference", "return, nominal",
              "return, all fail")  # fmt: skip
    title = f"DR-RPO † on {environment_named(records[0]['environment']).title}, b = {records[0]['bonus']:g}"
    return Table(title, header, tuple(rows), (MARK,))


def draw_regret(chosen: Mapping[str, Mapping[str, Record]], stem: Path) -> None:
    """Regret by each learner's own goal above, by the common robust measure below."""
    plt, looks = prepared(), styles(TITLES)
    figure, axes = plt.subplots(2, len(chosen), figsize=(3.2 * len(chosen), 5.4), squeeze=False, layout="constrained")
    for column, (environment, found) in zip(axes.T, chosen.items(), strict=True):
        for axis, name in zip(column, ("regret", "robust_regret"), strict=True):
            for learner, r in found.items():
                draw_band(axis, r["episode"], np.array(r[name]), looks[learner], TITLES[learner])
            axis.set_xlabel("episode")
        column[0].set_title(environment_named(environment).title, fontsize=9)
    axes[0][0].set_ylabel("regret, own goal")
    axes[1][0].set_ylabel("regret, worst case in the radius")
    legend(figure, axes[0][0])
    save(figure, stem)


def draw_returns(chosen: Mapping[str, Mapping[str, Record]], stem: Path) -> None:
    plt, looks = prepared(), styles(TITLES)
    figure, axes = plt.subplots(1, len(chosen), figsize=(3.2 * len(chosen), 3.2), squeeze=False, layout="constrained")
    for axis, (environment, found) in zip(axes[0], chosen.items(), strict=True):
        world = environment_named(environment)
        for learner, r in found.items():
            draw_band(axis, r["level"], np.array(r["returns"]), looks[learner], TITLES[learner])
        for name, dash in (("nominal", ":"), ("robust", "--")):
            line = next(iter(found.values()))["exact"]["returns"][name]
            axis.plot(world.levels, line, color="#777777", linestyle=dash, linewidth=1, label=f"exact, {name}")
        axis.axvline(world.nominal, color="#cccccc", linewidth=0.8)
        axis.set_title(world.title, fontsize=9)
        axis.set_xlabel(world.axis, fontsize=8)
    axes[0][0].set_ylabel("return of the last plan")
    legend(figure, axes[0][0])
    save(figure, stem)


def draw_band(axis: Any, at: Sequence[float], values: Any, look: Any, name: str) -> None:
    """The mean of curves [seeds, points] with its standard error."""
    mean = values.mean(0)
    axis.plot(at, mean, color=look.colour, linestyle=look.linestyle, label=name, linewidth=1.2)
    if len(values) > 1:
        error = values.std(0, ddof=1) / np.sqrt(len(values))
        axis.fill_between(at, mean - error, mean + error, color=look.colour, alpha=0.2, linewidth=0)
