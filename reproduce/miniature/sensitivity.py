"""What does the paper leave open about LCO, and how much hangs on it? An ablation and a sweep on the miniature's Llama class.

    python -m reproduce.miniature.sensitivity              both, and the tables (twenty minutes on two quiet cores)
    python -m reproduce.miniature.sensitivity support      what is kept of π_old: all, five tokens and the rest, five tokens
    python -m reproduce.miniature.sensitivity beta         β × the weight of negative advantages
    python -m reproduce.miniature.sensitivity tables       tables from the committed records, nothing is run

support  LCO-KLD with the whole of π_old (this suite), with its five likeliest tokens and everything else as one cell, and
         with those five alone, as the released code fills them; all else equal.
beta     Three losses × β ∈ {0.5, 1, 2, 5, 10} × β of negative advantages multiplied by {1, 100}. The released code has 2 and
         100; what the paper's runs had is unknown.

Learning rate and the rest are the presets', scores are of validation problems. Records land one by one in
results/sensitivity/, seed by seed; what is there is not repeated, an interrupted call goes on.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lco.config import Experiment
from lco.disk import read_lines
from lco.evidence.records import curves, rounded
from lco.provenance import collect
from reproduce.common.entry import add_parts, add_processes, command_parser, run_command
from reproduce.common.reuse import read_object
from reproduce.common.study import RESULTS, Cell, Record, Study, make_missing, refuse_others
from reproduce.miniature import budget

MODULE = "reproduce.miniature.sensitivity"
RECORDS = RESULTS / "sensitivity"
FAMILY = "llama"
SEEDS = (0, 1, 2)
SUPPORTS = ("full", "top_rest", "top_filled")
LOSSES = ("lco_kld", "lco_mse", "lco_lch")
BETAS = (0.5, 1.0, 2.0, 5.0, 10.0)
NEGATIVE = (1.0, 100.0)

PARTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "support": {f"lco_kld-{support}": ("lco_kld", {"support": support}) for support in SUPPORTS},
    "beta": {
        f"{method}-beta{beta:g}-negative{scale:g}": (method, {"beta": beta, "beta_negative_scale": scale})
        for method in LOSSES
        for beta in BETAS
        for scale in NEGATIVE
    },
}
"""part → name → (method, what differs from its preset)"""


def experiment(part: str, name: str, seed: int, folder: Path) -> Experiment:
    method, changes = PARTS[part][name]
    preset = budget.read_presets()[method]
    knobs = {**preset, "hyper": {**preset.get("hyper", {}), **changes}}
    return budget.experiment(FAMILY, method, seed, knobs, folder)


def file_of(part: str, name: str, seed: int) -> Path:
    return RECORDS / part / f"{name}-seed{seed}.json"


def plan_cells(parts: Sequence[str], seeds: Sequence[int], out: Path) -> list[Cell]:
    """Seeds go round last, so that an interrupted call is complete for the seeds it has."""
    found = []
    for part, seed, name in ((p, s, n) for p in PARTS if p in parts for s in seeds for n in PARTS[p]):
        run = experiment(part, name, seed, out / part / f"{name}-seed{seed}")
        defined = {
            "name": name,
            "method": run.method,
            "class": budget.CLASSES[FAMILY],
            "lr": run.lr,
            "seed": seed,
            "hyper": run.hyper,
        }
        found.append(Cell(f"{part} {name} seed {seed}", run, file_of(part, name, seed), defined, run.steps))
    return found


def record_cell(cell: Cell) -> Record:
    found = curves(read_lines(cell.folder / "metrics.jsonl"))
    return rounded({"schema": "lco-sensitivity/1", **cell.defined, "curves": found, "provenance": collect()})


def describe_record(record: Record) -> str:
    return f"pass@1 {record['curves']['validation']['pass@1'][-1]:.1%}"


def read_records(part: str) -> dict[str, list[Record]]:
    """name → the records of its seeds."""
    found: dict[str, list[Record]] = defaultdict(list)
    for path in sorted((RECORDS / part).glob("*.json")):
        record = read_object(path)
        found[record["name"]].append(record)
    return found


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    add_parts(parser, *PARTS, "tables")
    parser.add_argument("--out", type=Path, default=Path("runs/sensitivity"), help="where the runs go")
    parser.add_argument(
        "--seeds", type=int, default=len(SEEDS), choices=range(1, len(SEEDS) + 1), help="the first N seeds"
    )
    add_processes(parser)
    return parser.parse_args()


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a record or run folder is of other knobs, or runs failed.
    """
    parts = chosen.parts or list(PARTS)
    cells = plan_cells(parts, SEEDS[: chosen.seeds], chosen.out)
    study = Study("sensitivity", cells, record_cell, describe_record)
    refuse_others(plan_cells(parts, SEEDS, chosen.out), study.remedy)  # the tables take in every seed that is there
    made = make_missing(study, chosen.processes)
    from reproduce.miniature.sensitivity_report import build  # the methods' titles want torch

    print(build(PARTS, read_records("support"), read_records("beta"), RECORDS / "report.md"))
    made.require_all()


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE)


if __name__ == "__main__":
    main()
