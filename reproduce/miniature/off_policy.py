"""Which methods stand data of older policies? Staleness of rollouts × updates a rollout, on the miniature's Llama class.

    python -m reproduce.miniature.off_policy              tries, grid, and the report
    python -m reproduce.miniature.off_policy search       four learning rates a method, at one cell (48 runs)
    python -m reproduce.miniature.off_policy grid         twelve methods × nine cells × three seeds (324 runs)
    python -m reproduce.miniature.off_policy grid --staleness 0 8 --updates 1 16      the four corners alone (144 runs)
    python -m reproduce.miniature.off_policy grid --methods grpo lco_lch --seeds 1    fewer methods, the first seed
    python -m reproduce.miniature.off_policy figures      heat map and tables from the committed records, nothing is run

A run takes 15 to 40 seconds of two quiet cores, so the tries take half an hour, the corners an hour and a half and all of the
grid about three hours; extrapolated, no call has been timed as a whole.

Data are off-policy in two ways. A rollout is cut into minibatches, and from the second update on the policy is no longer the one
that sampled; and a trainer that samples while it learns gets rollouts that are N rollouts old when their turn comes
(`--staleness N`, lco/training/waiting.py). Trust regions, importance weights and LCO's π_old are all answers to that, and their
papers claim to stand more of it than PPO and GRPO do. The grid turns both: N ∈ {0, 2, 8}, and U ∈ {1, 4, 16} updates a rollout,
each in one pass over the same rows, so that all cells of a method cost the same samples and the same gradients. At N = 8 the
first half of a run of 16 rollouts learns from the start model's samples alone.

search   Four learning rates, the same ladder for every method, at N = 2 and U = 4, with a seed that no other run has; scored by
         pass@1 on 512 validation problems after the last rollout, the best one is the method's in every cell. Other knobs are
         the method's defaults; β of the LCO losses and the critic's learning rate are what the miniature's tries chose.
grid     Scored on 128 validation problems like the stability study; the test problems are never read. One rate for all cells is
         the question: does what suits a method near its own policy still stand far from it? It does not say how good a method
         could be in a cell that it was tuned for.

Corners come before the cells between them and seeds go round last in both, so that an interrupted call leaves a smaller grid
whole. Records land one by one in results/off_policy/; what is there is not repeated, and what is there of other knobs is refused
by name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.disk import read_lines, write_json
from lco.errors import UserError
from lco.evidence.records import curves, rounded
from lco.provenance import collect
from reproduce.common.entry import add_parts, add_processes, at_least_one, command_parser, run_command
from reproduce.common.reuse import read_object
from reproduce.common.study import RESULTS, Cell, Record, Study, make_missing, refuse_others
from reproduce.miniature import budget

MODULE = "reproduce.miniature.off_policy"
RECORDS = RESULTS / "off_policy"
PRESETS = budget.HERE / "presets_off_policy.json"
PARTS = ("search", "grid")
FAMILY = "llama"
METHODS = (
    *("lco_kld", "lco_mse", "lco_lch", "ppo", "grpo", "cispo", "gspo"),
    *("dppo", "minpro", "bapo", "capo", "cppo"),
)
STALENESS = (0, 2, 8)
UPDATES = (1, 4, 16)
SEEDS = (0, 1, 2)
RATES = (1.25e-4, 3.2e-4, 8e-4, 2e-3)
OWN: dict[str, dict[str, Any]] = {
    **{name: {"hyper": {"beta": 0.7}} for name in ("lco_kld", "lco_mse", "lco_lch")},
    "ppo": {"critic_lr": 1e-3},
}
"""Knobs beside the learning rate that are not the defaults: what the miniature's tries chose."""
VALIDATION_PROBLEMS = 512
"""Of a try; runs of the grid have the miniature's 128."""


@dataclass(frozen=True)
class Place:
    """A cell of the grid.

    Attributes:
        staleness: N, how many rollouts one waits.
        updates: U, optimizer steps on a rollout, in one pass over its rows.
    """

    staleness: int
    updates: int

    @property
    def settings(self) -> dict[str, int]:
        return {"staleness": self.staleness, "minibatches": self.updates, "epochs": 1}

    @property
    def is_corner(self) -> bool:
        return self.staleness in (STALENESS[0], STALENESS[-1]) and self.updates in (UPDATES[0], UPDATES[-1])

    def __str__(self) -> str:
        return f"stale{self.staleness}-u{self.updates}"


TUNING_PLACE = Place(2, 4)
PLACES = tuple(Place(staleness, updates) for staleness in STALENESS for updates in UPDATES)


def tries(method: str) -> list[dict[str, Any]]:
    return [{"lr": rate, **OWN.get(method, {})} for rate in RATES]


def search_file(method: str, number: int) -> Path:
    return RECORDS / "search" / f"{method}-{number}.json"


def grid_file(method: str, place: Place, seed: int) -> Path:
    return RECORDS / "grid" / f"{method}-{place}-seed{seed}.json"


def defined_by(method: str, place: Place, seed: int, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record is known before its run."""
    return {
        "method": method,
        "class": budget.CLASSES[FAMILY],
        "staleness": place.staleness,
        "updates_per_rollout": place.updates,
        "seed": seed,
        "knobs": dict(knobs),
    }


def search_cell(method: str, number: int, out: Path) -> Cell:
    """One try; validated once, at the end, on more problems than the runs of the grid are."""
    knobs, name = tries(method)[number], f"{method}-{number}"
    watched = {"eval_every": budget.COMMON["steps"], "eval_problems": VALIDATION_PROBLEMS}
    settings = {**knobs, **TUNING_PLACE.settings, **watched}
    run = budget.experiment(FAMILY, method, budget.TUNING_SEED, settings, out / "search" / name)
    defined = {**defined_by(method, TUNING_PLACE, budget.TUNING_SEED, knobs), "try": number}
    return Cell(f"try {name}", run, search_file(method, number), defined, run.steps)


def grid_cell(method: str, place: Place, seed: int, knobs: Mapping[str, Any], out: Path) -> Cell:
    settings, name = {**knobs, **place.settings}, f"{method}-{place}-seed{seed}"
    run = budget.experiment(FAMILY, method, seed, settings, out / "grid" / name)
    return Cell(name, run, grid_file(method, place, seed), defined_by(method, place, seed, knobs), run.steps)


def plan_search(methods: Iterable[str], out: Path) -> list[Cell]:
    return [search_cell(method, number, out) for method in methods for number in range(len(tries(method)))]


def plan_grid(
    presets: Mapping[str, Mapping[str, Any]], places: Sequence[Place], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """Corners, then the cells between them; in each of the two seeds go round last."""
    corners, between = ([place for place in places if place.is_corner is wanted] for wanted in (True, False))
    return [
        grid_cell(method, place, seed, knobs, out)
        for ring in (corners, between)
        for seed in seeds
        for place in ring
        for method, knobs in presets.items()
    ]


def record_cell(cell: Cell) -> Record:
    """The curves of a finished run or try."""
    lines = read_lines(cell.folder / "metrics.jsonl")
    return rounded(
        {
            "schema": "lco-off-policy/1",
            **cell.defined,
            "validation_problems": cell.run.eval_problems,
            "curves": curves(lines),
            "tokens": sum(line.get("tokens", 0) for line in lines),
            "provenance": collect(),
        }
    )


def describe_record(record: Record) -> str:
    return f"pass@1 {record['curves']['validation']['pass@1'][-1]:.1%}"


def best_tries(methods: Iterable[str]) -> dict[str, Any]:
    """The best of the four of every method for which all are recorded; of equals the smaller rate."""
    found: dict[str, Any] = {}
    for method in methods:
        files = [search_file(method, number) for number in range(len(tries(method)))]
        if not all(file.exists() for file in files):
            continue
        tried = [
            {"knobs": record["knobs"], "validation_pass@1": record["curves"]["validation"]["pass@1"][-1]}
            for record in map(read_object, files)
        ]
        found[method] = {**max(tried, key=lambda one: one["validation_pass@1"]), "tried": tried}
    return found


def read_presets(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{method: its knobs in every cell}.

    Raises:
        UserError: a method has no tries yet.
    """
    known = read_object(PRESETS) if PRESETS.exists() else {}
    missing = [method for method in methods if method not in known]
    if missing:
        raise UserError(f"no learning rate was chosen yet for {', '.join(missing)}; run the part `search` first")
    return {method: known[method]["knobs"] for method in methods}


def read_records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RECORDS / "grid").glob("*.json"))]


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    add_parts(parser, *PARTS, "figures")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument(
        "--staleness", nargs="+", type=int, default=list(STALENESS), choices=STALENESS, help="these cells alone"
    )
    parser.add_argument(
        "--updates", nargs="+", type=int, default=list(UPDATES), choices=UPDATES, help="these cells alone"
    )
    parser.add_argument("--seeds", type=at_least_one, default=len(SEEDS), help="training seeds 0 … N−1 (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("runs/off_policy"), help="where the runs go")
    parser.add_argument("--report", type=Path, default=RECORDS / "report", help="where tables and figures go")
    add_processes(parser)
    return parser.parse_args()


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a record or run folder is of other knobs, a method has no tries yet, or runs failed.
    """
    parts = chosen.parts or list(PARTS)
    if "search" in parts:
        study = Study("tries", plan_search(chosen.methods, chosen.out), record_cell, describe_record)
        make_missing(study, chosen.processes).require_all()
        write_json(PRESETS, best_tries(METHODS))
    made = None
    if "grid" in parts:
        presets = read_presets(chosen.methods)
        places = [place for place in PLACES if place.staleness in chosen.staleness and place.updates in chosen.updates]
        study = Study(
            "off-policy", plan_grid(presets, places, range(chosen.seeds), chosen.out), record_cell, describe_record
        )
        refuse_others(
            plan_grid(presets, PLACES, SEEDS, chosen.out), study.remedy
        )  # the report takes in all that is there
        made = make_missing(study, chosen.processes)
    from reproduce.miniature.off_policy_report import build  # the methods' titles want torch, and figures matplotlib

    print(build(read_records(), best_tries(METHODS), chosen.report))
    if made is not None:
        made.require_all()


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE)


if __name__ == "__main__":
    main()
