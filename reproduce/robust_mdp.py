"""DR-RPO beside LSVI-UCB and DR-LSVI-UCB: regret, average suboptimality, and what is left of the return when the world changes.

    python -m reproduce.robust_mdp             what has no record, then tables and figures (77 s of processor time)
    python -m reproduce.robust_mdp --smoke     two environments, two seeds, forty episodes, in runs/robust_mdp-smoke (a minute)
    python -m reproduce.robust_mdp report      tables and figures from the committed records, nothing is run

Four learners play episodes in processes whose model is known to the judge and not to them: LSVI-UCB, which trusts what it has
seen; DR-LSVI-UCB, which plans for the worst model within a radius; DR-RPO, which does that with a softmax policy held to a
uniform reference, once for a radius and once for a penalty. Every episode's plan is valued exactly by the planner in
lco/robust/planner.py, so that regret is no estimate. Each learner is tried with the same three bonuses; at test time its last
plan and the exact planner's are put into perturbed worlds.

bonus     five environments × four learners × three bonuses × ten seeds
beta      the simulated linear process: DR-RPO at three β
radius    the same: DR-RPO at three radii

A cell is one learner with all its seeds; its record lands in results/robust_mdp/ when it is done, and what is there is not
repeated. The formulas are a reconstruction from the paper's abstract (arXiv 2510.14246) and the work that it builds on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.config import Experiment
from lco.disk import write_text
from lco.evidence.records import layout, rounded
from lco.provenance import collect
from reproduce.common.entry import add_processes, command_parser, run_command
from reproduce.common.study import RESULTS, Cell, Record, Study, make_missing

MODULE = "reproduce.robust_mdp"
RECORDS = RESULTS / "robust_mdp"
SEEDS = 10
BONUSES = (0.1, 1.0, 3.0)


@dataclass(frozen=True)
class Setting:
    """What is equal for all learners of an environment."""

    episodes: int
    radius: float
    penalty: float
    beta: float


LINEAR = Setting(episodes=300, radius=0.5, penalty=1.0, beta=0.1)
SETTINGS = {
    "linear-0.1": LINEAR,
    "linear-0.2": LINEAR,
    "linear-0.3": LINEAR,
    "put": Setting(episodes=200, radius=0.15, penalty=0.2, beta=0.01),
    "random": Setting(episodes=300, radius=0.5, penalty=1.0, beta=0.1),
}
LEARNERS = {
    "lsvi_ucb": "LSVI-UCB",
    "dr_lsvi_ucb": "DR-LSVI-UCB",
    "dr_rpo": "DR-RPO",
    "dr_rpo_penalty": "DR-RPO, penalised",
}
SWEPT = "linear-0.3"
BETAS = (0.02, 0.1, 0.5)
RADII = (0.1, 0.3, 0.5)
SWEEP_BONUS = 1.0
SMOKE = ("linear-0.3", "random")


@dataclass(frozen=True)
class Home:
    """Where records go, and where logs and locks do."""

    records: Path
    out: Path


def goal_of(learner: str, setting: Setting) -> dict[str, Any]:
    """The arguments of a learner's `Goal`."""
    if learner == "lsvi_ucb":
        return {"beta": 0.0, "form": "nominal", "size": 0.0}
    beta = 0.0 if learner == "dr_lsvi_ucb" else setting.beta
    if learner == "dr_rpo_penalty":
        return {"beta": beta, "form": "tv_penalty", "size": setting.penalty}
    return {"beta": beta, "form": "tv", "size": setting.radius}


def make_cell(
    part: str, environment: str, learner: str, bonus: float, setting: Setting, seeds: int, home: Home
) -> Cell:
    """One learner in one environment, with all its seeds."""
    goal = goal_of(learner, setting)
    name = f"{environment}-{learner}-b{bonus:g}-beta{goal['beta']:g}-size{goal['size']:g}"
    defined = {
        "part": part,
        "environment": environment,
        "learner": learner,
        "bonus": bonus,
        "goal": goal,
        "radius": setting.radius,
        "episodes": setting.episodes,
        "seeds": seeds,
    }
    # Nothing is trained by the loop: of the run only its folder is used, beside which log and lock lie.
    place = Experiment(out=str(home.out / part / name))
    units = setting.episodes * (5 if environment == "put" else 1)
    return Cell(f"{part} {name}", place, home.records / part / f"{name}.json", defined, units, trains=False)


def plan_cells(home: Home, smoke: bool = False) -> list[Cell]:
    """All cells; of a smoke test those of the bonus part on two environments, small."""
    if smoke:
        return [
            make_cell("bonus", name, learner, 1.0, dataclasses.replace(SETTINGS[name], episodes=40), 2, home)
            for name in SMOKE
            for learner in LEARNERS
        ]
    tried = [
        make_cell("bonus", name, learner, bonus, setting, SEEDS, home)
        for name, setting in SETTINGS.items()
        for bonus in BONUSES
        for learner in LEARNERS
    ]
    base = SETTINGS[SWEPT]
    betas = [dataclasses.replace(base, beta=beta) for beta in BETAS]
    radii = [dataclasses.replace(base, radius=radius) for radius in RADII]
    sweeps = [("beta", setting) for setting in betas] + [("radius", setting) for setting in radii]
    return tried + [make_cell(part, SWEPT, "dr_rpo", SWEEP_BONUS, setting, SEEDS, home) for part, setting in sweeps]


def record_cell(cell: Cell) -> Record:
    from lco.robust.trial import measure  # torch, which only a worker needs

    facts = cell.defined
    found = measure(
        facts["environment"], facts["goal"], facts["bonus"], facts["radius"], facts["episodes"], facts["seeds"]
    )
    return rounded({"schema": "lco-robust/1", **facts, **found, "provenance": collect()})


def write_record(path: Path, record: Record) -> None:
    write_text(path, layout(record) + "\n")


def describe_record(record: Record) -> str:
    lost = record["average_suboptimality"]
    return f"average suboptimality {sum(lost) / len(lost):.4f}"


def read_records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*.json"))]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    parser.add_argument("what", nargs="?", choices=("all", "report"), default="all", help="report: nothing is run")
    parser.add_argument("--smoke", action="store_true", help="a small version, away from the committed records")
    parser.add_argument("--out", type=Path, help="where logs go (default: runs/robust_mdp)")
    add_processes(parser)
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a record is of other knobs, or cells failed.
    """
    out = chosen.out or Path("runs/robust_mdp-smoke" if chosen.smoke else "runs/robust_mdp")
    home = Home(out / "records" if chosen.smoke else RECORDS, out)
    cells = plan_cells(home, chosen.smoke) if chosen.what == "all" else []
    made = make_missing(Study("robust", cells, record_cell, describe_record, write=write_record), chosen.processes)
    from lco.robust.report import build  # matplotlib

    print(build(read_records(home.records), home.records / "report"))
    made.require_all()


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE)


if __name__ == "__main__":
    main()
