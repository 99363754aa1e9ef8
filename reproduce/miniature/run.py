"""The main job: which of eight methods learns how much with equal budgets? A miniature of both model classes, offline, on a CPU.

Two small models (0.45 M parameters, one Qwen2ForCausalLM, one LlamaForCausalLM) that solve short arithmetic word problems
about three times in ten are improved by reinforcement learning from a verifier's reward. Every method gets the same
prompts, samples, token limit, updates and seeds, and the knobs that `tune.py` chose for it on validation problems; the test
problems are read by lm-eval at the end of a run. What comes out:

    runs/miniature/<class>/<method>/seed-<n>/    the runs: configuration, metrics, samples, checkpoint, evaluations
    runs/miniature/records/                      one result record a run
    runs/miniature/report/                       table, learning curves, a page for the browser

    make reproduce                                              one seed, about ten minutes on two quiet cores
    python -m reproduce.miniature.run --seeds 5                 more seeds
    python -m reproduce.miniature.run --methods all --seeds 5   twenty methods, about two hours
    python -m reproduce.miniature.run --methods grpo lco_kld --classes qwen
    python -m reproduce.miniature.run --methods lco_mse --wider   knobs from more than four tries (`tune --wider`)
    python -m reproduce.miniature.run --from-scratch            also pretrains the start models again, three minutes

Finished runs are not repeated: an interrupted call continues where it stopped, and Ctrl-C lets the rollouts in progress
end first. What an earlier call left under other knobs or from other start weights is refused by name, not taken over. Two
runs at a time, one thread each. It leaves out what a miniature cannot show: long responses, real language, models that
know the test set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lco.config import Experiment
from lco.evidence import records
from reproduce.common import reuse
from reproduce.common.entry import add_processes, command_parser, run_command
from reproduce.common.study import Cell, Record, Study, add_start_weights, make_missing, refuse_others
from reproduce.miniature import budget
from reproduce.miniature.pretrain import build_starts
from reproduce.miniature.recipe import Recipe

MODULE = "reproduce.miniature.run"
EVALUATION_UNITS = 4
"""A run's test evaluation takes about as long as this many rollouts; for the progress bar only."""
REMEDY = "give another --out or --records, or remove this file and its run folder"


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    parser.add_argument("--seeds", type=int, default=1, help="training seeds 0 … N−1 for every method (default: 1)")
    parser.add_argument(
        "--methods", nargs="+", default=list(budget.METHODS), choices=["all", *budget.TRIES], metavar="METHOD"
    )
    parser.add_argument("--classes", nargs="+", default=list(budget.CLASSES), choices=list(budget.CLASSES))
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"), help="where runs, records and report go")
    parser.add_argument("--records", type=Path, help="where records go (default: OUT/records)")
    parser.add_argument("--report", type=Path, help="where table, figure and page go (default: OUT/report)")
    add_processes(parser)
    parser.add_argument("--wider", action="store_true", help="knobs from more tries than four, see `tune --wider`")
    parser.add_argument("--from-scratch", action="store_true", help="pretrain the start models again first")
    chosen = parser.parse_args()
    if "all" in chosen.methods:
        chosen.methods = [*budget.METHODS, *budget.BASELINES]
    unknown = set(chosen.methods) - budget.WIDER.keys() if chosen.wider else ()
    if unknown:
        parser.error(f"--wider has knobs for {', '.join(budget.WIDER)}, not for {', '.join(sorted(unknown))}")
    return chosen


def start_cell(family: str, out: Path, records_folder: Path) -> Cell:
    """The scores of a class's start model, which nothing trains."""
    run = Experiment(model=str(budget.START / family), out=str(out / family / "start"))
    return Cell(f"{family} start", run, records_folder / family / "start.json", {}, EVALUATION_UNITS, trains=False)


def training_cell(family: str, row: str, seed: int, knobs: dict[str, Any], out: Path, records_folder: Path) -> Cell:
    """A run of a row of the table: of the method of that name, or of the one that its knobs name."""
    others = {name: value for name, value in knobs.items() if name != "method"}
    run = budget.experiment(family, knobs.get("method", row), seed, others, out / family / row / f"seed-{seed}")
    record = records_folder / family / row / f"seed-{seed}.json"
    return Cell(f"{family} {row} seed {seed}", run, record, reuse.settings(run), run.steps + EVALUATION_UNITS)


def training_cells(
    families: Sequence[str], presets: Mapping[str, dict[str, Any]], seeds: int, out: Path, records_folder: Path
) -> list[Cell]:
    """Seed after seed, so that an interrupted call is complete for the seeds it has."""
    return [
        training_cell(family, row, seed, knobs, out, records_folder)
        for seed in range(seeds)
        for row, knobs in presets.items()
        for family in families
    ]


def plan_cells(
    families: Sequence[str], presets: Mapping[str, dict[str, Any]], seeds: int, out: Path, records_folder: Path
) -> list[Cell]:
    """Start models first, then the runs."""
    return [
        *(start_cell(family, out, records_folder) for family in families),
        *training_cells(families, presets, seeds, out, records_folder),
    ]


def record_cell(cell: Cell) -> Record:
    from reproduce.miniature.scores import record_run, record_start  # torch and lm-eval, which workers need alone

    return record_run(cell.folder) if cell.trains else record_start(Path(cell.run.model))


def describe_record(record: Record) -> str:
    """`pass@1 93.2%, greedy 98.4%`."""
    at_1, greedy = (evaluation["scores"]["pass@1"] for evaluation in record["evaluations"][:2])
    return f"pass@1 {at_1:.1%}, greedy {greedy:.1%}"


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: what an earlier call left is not what this one makes, or cells failed.
    """
    records_folder, report = chosen.records or chosen.out / "records", chosen.report or chosen.out / "report"
    begun = time.perf_counter()
    known = budget.read_presets(budget.WIDER_PRESETS if chosen.wider else budget.PRESETS)
    presets = {method: known[method] for method in chosen.methods}
    cells = plan_cells(chosen.classes, presets, chosen.seeds, chosen.out, records_folder)
    if chosen.from_scratch:
        # Knobs before minutes of pretraining; the weights of the start models are known only after it.
        refuse_others(cells, REMEDY)
        build_starts(budget.START, Recipe())
    study = Study(
        "miniature", add_start_weights(cells), record_cell, describe_record, write=records.write, remedy=REMEDY
    )
    made = make_missing(study, chosen.processes)
    if any(cell.record.exists() for cell in cells):
        from reproduce.miniature.screen import build_report  # matplotlib, after the work

        build_report(records_folder, report)
        print(f"\n{(time.perf_counter() - begun) / 60:.1f} minutes")
    made.require_all()


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE)


if __name__ == "__main__":
    main()
