"""Does the whole road work on a real model? What the family scripts (`reproduce/qwen.py`, `reproduce/llama.py`) run today.

first_steps  LCO-KLD for five rollouts with one optimizer step on each (vLLM samples, weights synchronised after every step),
             under plain torch or DeepSpeed ZeRO-2 with two ranks. What the record shows: every step had groups with right
             and wrong answers and a gradient that is not zero, and sampler and trainer agreed.
smoke        LCO-KLD and GRPO with equal budgets: 24 optimizer steps each, four on every rollout; the same model, prompts,
             samples, token limit, learning rate, seeds and number of updates for both, and learning curves from the records.

lm-eval scores the first 32 test problems greedily before and after. So few steps of one seed show that the road works, and
how gradients, entropies and divergences behave where π_old is not π; they rank nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.config import Experiment, dump
from lco.disk import read_lines, write_text
from lco.errors import UserError
from lco.evidence import records
from lco.methods import METHODS
from lco.scratch import scratch_folder
from lco.stopping import Stopped
from lco.training.launch import die_with_parent, wait
from reproduce.common import reuse
from reproduce.common.entry import command_parser, run_command
from reproduce.common.processes import Tick
from reproduce.common.study import RESULTS, Cell, Record, Study, add_start_weights, make_missing

BUDGET = Experiment(
    method="lco_kld", rollouts="vllm", steps=5, prompts_per_step=8, samples=8, micro_batch=16, lr=5e-6, device="cpu",
    vllm_cache_gib=1.0, processes=2,
)  # fmt: skip
"""First steps: equal for all families, but for what a family's `Smoke` changes."""
SMOKE_BUDGET: dict[str, Any] = {
    "steps": 6, "minibatches": 4, "engine": "torch", "diagnose_every": 2, "warmup_updates": 4,
}  # fmt: skip
"""What the comparison changes of that: 24 optimizer steps, four on every rollout."""
FOLDERS = {"first_steps": "first_steps", "smoke": "twenty_steps"}
"""command → where in results/ its records are; the second folder keeps the name that the command once had."""
REMEDY = "give another --out and --records, or remove this file and its run folder"
COMPARED = ("lco_kld", "grpo")
EVALUATION_UNITS = 2
"""A test evaluation takes about as long as this many rollouts; for the progress bar only."""
TEST_PROBLEMS = 32


@dataclass(frozen=True)
class Smoke:
    """How one scale of a model family is tried.

    Args:
        scale: what run folders and records are called.
        task: of lm-eval, for the scores before and after.
        settings: configuration keys: problems, prompt, lengths, and where they must differ from `BUDGET`, sizes.
        shortest: first steps train on so many problems with the shortest question and solution; 0: on the set as it is.
    """

    scale: str
    task: str
    settings: Mapping[str, Any]
    shortest: int = 0


def plan_first_steps(smoke: Smoke, chosen: argparse.Namespace) -> Cell:
    name = f"{smoke.scale}-{chosen.engine}"
    run = dataclasses.replace(BUDGET, **smoke.settings, engine=chosen.engine)
    return plan_cell(f"{smoke.scale} under {chosen.engine}", run, name, chosen, chosen.records / f"{name}.json")


def plan_smoke(smoke: Smoke, method: str, chosen: argparse.Namespace) -> Cell:
    run = dataclasses.replace(BUDGET, **{**smoke.settings, **SMOKE_BUDGET}, method=method, device=chosen.device)
    record = chosen.records / smoke.scale / f"{method}.json"
    return plan_cell(f"{smoke.scale} {method}", run, f"{smoke.scale}-{method}", chosen, record)


def plan_cell(name: str, run: Experiment, folder: str, chosen: argparse.Namespace, record: Path) -> Cell:
    """The cell of a run in `--out`/`folder` on the model and data of the command line."""
    out = str(chosen.out / folder)
    run = dataclasses.replace(run, model=chosen.model, data_dir=chosen.data_dir, out=out)
    defined = {**reuse.settings(run), "problems": Path(run.problems).stem}
    return Cell(name, run, record, defined, run.steps + EVALUATION_UNITS)


def train_on_shortest(cell: Cell, count: int) -> Cell:
    """The cell on a file, written here, with the `count` shortest problems of its set in the set's order."""
    from lco.problems.sets import load_problems  # the hub's client, which --help does without

    run = cell.run
    problems = load_problems(run.problems, run.split, run.data_dir)
    size = sorted(len(p.problem) + len(p.solution or "") for p in problems)[count - 1]
    kept = [p for p in problems if len(p.problem) + len(p.solution or "") <= size][:count]
    path = cell.folder.with_name(f"{run.problems}-shortest-{count}.jsonl")
    lines = [json.dumps({k: v for k, v in dataclasses.asdict(p).items() if v}, ensure_ascii=False) for p in kept]
    write_text(path, "\n".join(lines) + "\n")
    run = dataclasses.replace(run, problems=str(path), data_dir="")
    return dataclasses.replace(cell, run=run, defined={**cell.defined, "problems": path.stem})


def train_apart(cell: Cell, tick: Tick) -> None:
    """Trains by `lco train` in a process of its own, under any engine, so that no memory is left from it when lm-eval scores.

    Raises:
        KeyboardInterrupt: Ctrl-C came before the last rollout; the run's checkpoint is written.
        UserError: the command failed.
    """
    if (cell.folder / "checkpoints" / "final").exists():
        return
    tick(0, f"{cell.name}: training")
    with scratch_folder() as place:
        config = place / "config.json"
        config.write_text(dump(cell.run), encoding="utf-8")
        resume = ["--resume"] if (cell.folder / "config.json").exists() else []
        command = [sys.executable, "-m", "lco.cli", "train", "--config", str(config), *resume]
        ended = wait(subprocess.Popen(command, process_group=0, preexec_fn=die_with_parent))
    if ended.asked:
        raise Stopped(ended.asked)
    if ended.code:
        raise UserError(f"lco train ended with exit code {ended.code}; its own message stands in the log")


def evaluate(model: str, task: str, run: Experiment, data_dir: str, out: Path) -> dict[str, Any]:
    """Greedy scores on the first test problems, by `lco evaluate` in a process of its own; not repeated if they are there.

    Raises:
        UserError: the command failed.
    """
    found = out / f"{task}-T0-n1.json"
    if not found.exists():
        command = [
            *(sys.executable, "-m", "lco.cli", "evaluate", "--model", model, "--tasks", task, "--temperature", "0"),
            *("--limit", str(TEST_PROBLEMS), "--max-new-tokens", str(run.max_new_tokens), "--device", run.device),
            *("--out", str(out), *(["--data-dir", data_dir] if data_dir else [])),
        ]
        code = subprocess.run(command, check=False).returncode
        if code:
            raise UserError(f"lco evaluate ended with exit code {code}; its own message stands in the log")
    return json.loads(found.read_text(encoding="utf-8"))


def record_smoke(smoke: Smoke, data_dir: str, cell: Cell) -> Record:
    """The record of a finished run, with its model's scores before and after."""
    start = cell.folder.with_name(f"{smoke.scale}-before")
    before = evaluate(cell.run.model, smoke.task, cell.run, data_dir, start)
    final, place = cell.folder / "checkpoints" / "final", cell.folder / "evals"
    after = evaluate(str(final), smoke.task, cell.run, data_dir, place)
    return {
        **records.distil(cell.folder, [after]),
        "before": records.rounded(records.distil_evaluation(before)),
    }


def record_first_steps(smoke: Smoke, data_dir: str, cell: Cell) -> Record:
    """The same, and whether every step had something to learn from."""
    record = dict(record_smoke(smoke, data_dir, cell))
    record["experiment"] = {**record["experiment"], "problems": cell.defined["problems"]}
    lines = [line for line in read_lines(cell.folder / "metrics.jsonl") if line["step"] > 0]
    record["every_step_mixed"] = all(line["degenerate_all_right"] + line["degenerate_all_wrong"] < 1 for line in lines)
    record["every_gradient_nonzero"] = all((line.get("gradient_norm") or 0) > 0 for line in lines)
    return record


def describe_smoke(record: Record) -> str:
    before, after = record["before"]["scores"]["pass@1"], record["evaluations"][0]["scores"]["pass@1"]
    return f"{before:.1%} → {after:.1%} greedy on {record['before']['problems']} problems"


def describe_first_steps(record: Record) -> str:
    return (
        f"{describe_smoke(record)}; every step mixed: {record['every_step_mixed']}; every gradient non-zero: "
        f"{record['every_gradient_nonzero']}. Five steps prove the road, not the method."
    )


def draw_curves(folder: Path) -> None:
    """The learning curves of the records in the folder."""
    from lco.evidence.plots import learning_curves  # matplotlib: after the work

    learning_curves(records.read_all(folder), {name: m.title for name, m in METHODS.items()}, folder / "curves")


def options(module: str, text: str | None) -> argparse.Namespace:
    parser = command_parser(module, text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    first = commands.add_parser("first_steps", help="five rollouts of LCO-KLD, one optimizer step on each")
    first.add_argument("--engine", default="torch", choices=("torch", "deepspeed"))
    first.set_defaults(run=run_first_steps)
    smoke = commands.add_parser("smoke", help="LCO-KLD and GRPO, 24 optimizer steps each, four on every rollout")
    smoke.add_argument("--methods", nargs="+", default=list(COMPARED), metavar="METHOD")
    smoke.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    smoke.set_defaults(run=run_smoke)
    for name, command in commands.choices.items():
        command.add_argument("--model", required=True, help="folder or hub id of the pretrained model")
        command.add_argument("--data-dir", default="", help="folder of JSON Lines in place of hub ids")
        command.add_argument("--out", type=Path, help=f"where the runs go (default: runs/{name})")
        command.add_argument("--records", type=Path, help=f"where records go (default: results/{FOLDERS[name]})")
    chosen = parser.parse_args()
    chosen.out = chosen.out or Path("runs") / chosen.command
    chosen.records = chosen.records or RESULTS / FOLDERS[chosen.command]
    return chosen


def run_first_steps(smoke: Smoke, chosen: argparse.Namespace) -> None:
    cell = plan_first_steps(smoke, chosen)
    if smoke.shortest:
        cell = train_on_shortest(cell, smoke.shortest)
    make_missing(plan_study(record_first_steps, describe_first_steps, smoke, [cell], chosen), 1).require_all()


def run_smoke(smoke: Smoke, chosen: argparse.Namespace) -> None:
    cells = [plan_smoke(smoke, method, chosen) for method in chosen.methods]
    made = make_missing(plan_study(record_smoke, describe_smoke, smoke, cells, chosen), 1)
    if any(cell.record.exists() for cell in cells):
        draw_curves(chosen.records / smoke.scale)
    made.require_all()


def plan_study(
    record: Callable[[Smoke, str, Cell], Record],
    describe: Callable[[Record], str],
    smoke: Smoke,
    cells: Sequence[Cell],
    chosen: argparse.Namespace,
) -> Study:
    return Study(
        f"{smoke.scale} {chosen.command}",
        add_start_weights(cells),
        functools.partial(record, smoke, chosen.data_dir),
        describe,
        run=train_apart,
        write=records.write,
        remedy=REMEDY,
        threads=None,
    )


def main(smoke: Smoke, module: str, text: str | None) -> None:
    """The command line of a family's script."""
    chosen = options(module, text)
    run_command(lambda: chosen.run(smoke, chosen), module)
