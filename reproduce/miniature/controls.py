"""Is LCO more than a penalty or a trust region of its own strength, and do the gains come from the rewards? Controls.

    python -m reproduce.miniature.controls            tries, runs and the table (68 runs, half an hour on two quiet cores by
                                                      the times of other studies; no call has been timed as a whole)
    python -m reproduce.miniature.controls search     the tries of the first two controls, on validation problems (8 runs)
    python -m reproduce.miniature.controls strength   their runs: two methods × two classes × five seeds (20 runs)
    python -m reproduce.miniature.controls random     four methods under random rewards, as many classes and seeds (40 runs)
    python -m reproduce.miniature.controls table      the table from the committed records, nothing is run

strength  LCO-RKL is the KL-regularised objective itself, with LCO's β, advantage and π_old: what LCO would be were it only a
          penalty. Its tries are LCO's. DPPO is the plain policy gradient inside a region of total variation, and the region is
          LCO's: at β the sampled token's target lies within δ = tanh(1/(4β)) of π_old, as advantages are at most 1. Its tries
          are LCO's β by half of LCO's rates, as for the miniature's other methods of that kind. So both have as many tries as
          LCO, chosen with the same seed on the same problems.
random    GRPO and the three LCO losses with the verifier's rewards dealt out by chance, at the miniature's knobs.

Budget, seeds and test problems are the miniature's, whose runs stand beside these in the table and in `lco claims`. Records land
one by one in results/controls/; what is there is not repeated, and what is there of other knobs is refused by name.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lco.errors import UserError
from lco.evidence import records
from lco.evidence.names import CONTROLLED
from reproduce.common.entry import add_parts, add_processes, at_least_one, command_parser, run_command
from reproduce.common.study import RESULTS, Cell, Study, make_missing
from reproduce.miniature import budget, run, tune

MODULE = "reproduce.miniature.controls"
RECORDS = RESULTS / "controls"
BESIDE = RESULTS / "miniature"
"""Whose start models and methods the controls are held against."""
PARTS = ("search", "strength", "random")
SEEDS = 5
LIKE = "lco_mse"
"""Whose tries are matched; the three LCO losses have the same."""
DEALT = ("grpo", "lco_kld", "lco_mse", "lco_lch")
RANDOM = {"reward": {"random": 1.0}}


def region_of(beta: float) -> float:
    """The largest total variation between π_old and LCO's target of one sampled token, for advantages of at most 1."""
    return math.tanh(1 / (4 * beta))


def within_region(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """DPPO's try for a try of LCO."""
    return {"lr": knobs["lr"] / 2, "hyper": {"delta": round(region_of(knobs["hyper"]["beta"]), 4)}}


TRIES: dict[str, list[dict[str, Any]]] = {
    "lco_rkl": budget.TRIES[LIKE],
    "dppo": [within_region(knobs) for knobs in budget.TRIES[LIKE]],
}


def record_file(method: str, number: int) -> Path:
    return RECORDS / "search" / f"{method}-{number}.json"


def search_cells(out: Path) -> list[Cell]:
    return [
        tune.cell_of(method, number, knobs, out / "search", record_file(method, number))
        for method, tries in TRIES.items()
        for number, knobs in enumerate(tries)
    ]


def chosen_knobs() -> dict[str, dict[str, Any]]:
    """{method: the best of its tries}.

    Raises:
        UserError: a try has no record yet.
    """
    found = {}
    for method, tries in TRIES.items():
        files = [record_file(method, number) for number in range(len(tries))]
        best = tune.best_of(files)
        if best is None:
            raise UserError(f"not all tries of {method} are recorded in {files[0].parent}; run the part `search` first")
        found[method] = best["knobs"]
    return found


def strength_cells(seeds: int, out: Path) -> list[Cell]:
    return run.training_cells(list(budget.CLASSES), chosen_knobs(), seeds, out, RECORDS)


def random_cells(seeds: int, out: Path) -> list[Cell]:
    presets = budget.read_presets()
    rows = {method + CONTROLLED: {**presets[method], **RANDOM, "method": method} for method in DEALT}
    return run.training_cells(list(budget.CLASSES), rows, seeds, out, RECORDS)


def make(parts: Sequence[str], seeds: int, out: Path, processes: int) -> None:
    """
    Raises:
        UserError: a record or run folder is of other knobs, tries are missing, or cells failed.
    """
    if "search" in parts:
        study = Study("tries of controls", search_cells(out), tune.record_try, tune.describe_try)
        make_missing(study, processes).require_all()
    # The knobs of `strength` are known only now.
    cells = [
        *(strength_cells(seeds, out) if "strength" in parts else ()),
        *(random_cells(seeds, out) if "random" in parts else ()),
    ]
    made = make_missing(
        Study("controls", cells, run.record_cell, run.describe_record, write=records.write, remedy=run.REMEDY),
        processes,
    )
    made.require_all()


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    add_parts(parser, *PARTS, "table")
    parser.add_argument("--seeds", type=at_least_one, default=SEEDS, help=f"training seeds 0 … N−1 (default: {SEEDS})")
    parser.add_argument("--out", type=Path, default=Path("runs/controls"), help="where the runs go")
    parser.add_argument("--report", type=Path, default=RECORDS / "report", help="where table, figures and page go")
    add_processes(parser)
    return parser.parse_args()


def work(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: as `make`, or no record is there for a table.
    """
    parts = chosen.parts or PARTS
    if parts != ["table"]:
        make(parts, chosen.seeds, chosen.out, chosen.processes)
    if parts == ["search"]:
        return
    from reproduce.miniature.screen import build_report  # matplotlib, after the work

    build_report(RECORDS, chosen.report, beside=[BESIDE])


def main() -> None:
    chosen = options()
    run_command(lambda: work(chosen), MODULE)


if __name__ == "__main__":
    main()
