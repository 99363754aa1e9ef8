"""How stable are the methods? Inner steps on one frozen batch, and a grid of learning rates and updates a rollout.

    python -m reproduce.miniature.stability              all, and the figures (45 minutes on two quiet cores)
    python -m reproduce.miniature.stability frozen       inner steps alone (three minutes)
    python -m reproduce.miniature.stability grid         the grid alone
    python -m reproduce.miniature.stability small_beta   the grid of the LCO losses at a smaller β alone
    python -m reproduce.miniature.stability figures      tables and figures from the committed records, nothing is run

frozen   The start model samples one rollout. Every method takes 40 optimizer steps on that batch alone, and after the
         last one we ask of every step before: what was the gradient's norm, and did its negative point to where the
         parameters ended, cos(−∇L(θ_k), θ_K − θ_k)? For a linear head and fixed hidden states a convex loss must give a
         positive cosine; for the whole network it is a measurement.
grid     Seven methods × 3 learning rates × {1, 8} updates a rollout × 3 seeds on the miniature's Llama class, scored on
         validation problems: which still learns, which collapses? Rates are the same for all methods, so it shows how
         wide a method's working range is, not which method is best.
small_beta
         The same grid for the three LCO losses at β = 0.1, with which two of them learn faster (`tune --wider`): is that
         bought with their stability?

Every record lands in results/stability/ as it is made; what is there is not repeated, an interrupted call goes on. What
is there of other knobs than this call has is refused by name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lco.disk import read_lines
from lco.evidence.records import curves, rounded
from lco.provenance import collect
from reproduce.common.entry import add_parts, add_processes, command_parser, run_command
from reproduce.common.study import RESULTS, Cell, Record, Study, make_missing
from reproduce.miniature import budget

MODULE = "reproduce.miniature.stability"
RECORDS = RESULTS / "stability"
FAMILY = "llama"
FROZEN_METHODS = ("lco_kld", "lco_mse", "lco_lch", "ppo", "grpo", "reinforce", "sft")
FROZEN_STEPS = 40
FROZEN_UNITS = 20
"""Forty steps on a whole batch take about as long as twenty rollouts with their updates."""
GRID_METHODS = ("lco_kld", "lco_mse", "lco_lch", "ppo", "grpo", "reinforce", "rft")
RATES = (1e-4, 5e-4, 2.5e-3)
UPDATES = {1: {"minibatches": 1, "epochs": 1}, 8: {"minibatches": 4, "epochs": 2}}
GRID_SEEDS = (0, 1, 2)
SMALL_BETA = 0.1
SMALL_BETA_METHODS = ("lco_kld", "lco_mse", "lco_lch")
PARTS = ("frozen", "grid", "small_beta")


def file_of(part: str, name: str) -> Path:
    return RECORDS / part / f"{name}.json"


def frozen_cell(method: str, out: Path) -> Cell:
    """Inner steps of one method: its own learning rate and knobs, the whole batch at every step, no clipping."""
    knobs = {**budget.read_presets()[method], "minibatches": 1, "epochs": 1, "clip_norm": 0.0, "eval_every": 0}
    run = budget.experiment(FAMILY, method, 0, knobs, out / "frozen" / method)
    defined = {"method": method, "steps": FROZEN_STEPS, "lr": run.lr}
    return Cell(f"frozen {method}", run, file_of("frozen", method), defined, FROZEN_UNITS, trains=False)


def grid_name(method: str, rate: float, updates: int, seed: int) -> str:
    return f"{method}-lr{rate:g}-u{updates}-seed{seed}"


def grid_cell(part: str, method: str, rate: float, updates: int, seed: int, out: Path) -> Cell:
    """One run of the grid, or of the one at a small β."""
    knobs = {**budget.read_presets()[method], "lr": rate, **UPDATES[updates]}
    if part == "small_beta":
        knobs["hyper"] = {**knobs.get("hyper", {}), "beta": SMALL_BETA}
    name = grid_name(method, rate, updates, seed)
    run = budget.experiment(FAMILY, method, seed, knobs, out / part / name)
    defined = {
        "method": method,
        "class": budget.CLASSES[FAMILY],
        "lr": rate,
        "updates_per_rollout": updates,
        "seed": seed,
        "hyper": run.hyper,
    }
    return Cell(f"{part} {name}", run, file_of(part, name), defined, run.steps)


def plan_cells(parts: Sequence[str], out: Path) -> list[Cell]:
    """Seeds go round last, so that an interrupted grid is complete for the seeds it has."""
    frozen = [frozen_cell(method, out) for method in FROZEN_METHODS] if "frozen" in parts else []
    grids = {"grid": GRID_METHODS, "small_beta": SMALL_BETA_METHODS}
    return frozen + [
        grid_cell(part, method, rate, updates, seed, out)
        for part in grids
        if part in parts
        for seed in GRID_SEEDS
        for rate in RATES
        for updates in UPDATES
        for method in grids[part]
    ]


def record_cell(cell: Cell) -> Record:
    if not cell.trains:
        from reproduce.miniature.frozen_batch import inner_steps  # torch, which workers need alone

        return inner_steps(cell.run, FROZEN_STEPS)
    lines = read_lines(cell.folder / "metrics.jsonl")
    return rounded(
        {
            "schema": "lco-grid/1",
            **cell.defined,
            "curves": curves(lines),
            "tokens": sum(line.get("tokens", 0) for line in lines),
            "provenance": collect(),
        }
    )


def describe_record(record: Record) -> str:
    if "cosine_to_the_end" in record:
        cosines = sorted(record["cosine_to_the_end"])
        return f"median cosine {cosines[len(cosines) // 2]:.2f}"
    return f"pass@1 {record['curves']['validation']['pass@1'][-1]:.1%}"


def read_records(part: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RECORDS / part).glob("*.json"))]


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    add_parts(parser, *PARTS, "figures")
    parser.add_argument("--out", type=Path, default=Path("runs/stability"), help="where the runs go")
    parser.add_argument("--report", type=Path, default=RECORDS / "report", help="where tables and figures go")
    add_processes(parser)
    return parser.parse_args()


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a record or run folder is of other knobs, or runs failed.
    """
    cells = plan_cells(chosen.parts or PARTS, chosen.out)
    made = make_missing(Study("stability", cells, record_cell, describe_record), chosen.processes)
    from reproduce.miniature.stability_report import build  # the methods' titles want torch, and figures matplotlib

    frozen, grid, small_beta = map(read_records, PARTS)
    print(build(frozen, grid, small_beta, chosen.report))
    made.require_all()


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE)


if __name__ == "__main__":
    main()
