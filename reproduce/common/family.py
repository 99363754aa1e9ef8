"""One command per model family: plan, train, evaluate, record, report, for any scale of it.

    plan.json ──▶ cells (method × seed, and the start model) ──▶ records/<model>/<method>-seed-<n>.json ──▶ table

The plan is written and hashed before the first run, and every record carries the hash. Cells are those of common/study.py:
resumable, each with a lock, so that several calls, GPUs or machines on one file system share a study.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lco.config import Experiment
from lco.disk import check_space, write_text
from lco.errors import UserError
from lco.evidence import records
from lco.evidence.record_command import read_result
from lco.evidence.samples import choose_samples
from reproduce.common import memory, reuse
from reproduce.common.entry import at_least_one, command_parser, run_command
from reproduce.common.families import METHODS, Family
from reproduce.common.gpus import runs_at_a_time, visible_gpus, with_gpus
from reproduce.common.plan import Plan, batch_script, describe_plan, keep_plan, make_plan, terms_of
from reproduce.common.smoke import train_apart
from reproduce.common.study import Cell, Made, Record, Study, make_missing, stale_owner

STAND_IN_SHAPE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip


def cells_of(plan: Plan, out: Path, place: Path) -> list[Cell]:
    """The start model's scores first, then method by method, seed by seed."""
    first = next(iter(plan.runs.values()))
    start = dataclasses.replace(first, model=plan.source, out=str(out / "start"))
    found = [Cell("start", start, place / plan.model / "start.json", {}, len(plan.tasks), trains=False)]
    for seed in plan.seeds:
        for method, settings in plan.runs.items():
            run = dataclasses.replace(settings, model=plan.source, seed=seed, out=str(out / f"{method}-seed-{seed}"))
            record = place / plan.model / f"{method}-seed-{seed}.json"
            found.append(Cell(f"{method} seed {seed}", run, record, reuse.settings(run), run.steps + len(plan.tasks)))
    return found


def evaluate_model(model: str, plan: Plan, run: Experiment, place: Path) -> list[dict[str, Any]]:
    """The results of all tasks, each by `lco evaluate` in a process of its own; what is there is not repeated.

    Raises:
        UserError: the command failed.
    """
    found = []
    for task, kinds in plan.tasks.items():
        for samples, temperature in kinds:
            file = place / f"{task}-T{temperature:g}-n{samples}.json"
            if not file.exists():
                command = [
                    *(sys.executable, "-m", "lco.cli", "evaluate"),
                    *("--model", model, "--tasks", task, "--out", str(place)),
                    *("--samples", str(samples), "--temperature", str(temperature), "--limit", str(plan.limit)),
                    *("--max-new-tokens", str(run.max_new_tokens), "--dtype", run.dtype, "--device", run.device),
                    *("--rollouts", run.rollouts, *(["--data-dir", run.data_dir] if run.data_dir else [])),
                ]
                code = subprocess.run(command, check=False).returncode
                if code:
                    raise UserError(f"lco evaluate ended with exit code {code}; its own message stands in the log")
            found.append(read_result(file))
    return found


def planned_cost(plan: Plan, run: Experiment) -> dict[str, float] | None:
    """What the plan says that a run takes; None for a stand-in, of which it says nothing."""
    if plan.stand_in:
        return None
    shape, gpus = memory.shape_of(plan.scale.kind, plan.scale.architecture), plan.scale.gpus
    terms = terms_of(plan, shape, run.method)
    return {
        "device_hours": gpus * memory.hours_of(shape, run, gpus, memory.Rate()),
        "memory_gib": sum(terms.values()) / 2**30,
    }


def record_cell(plan: Plan, cell: Cell) -> Record:
    """The record of a finished cell; its samples are written beside it."""
    model = str(cell.folder / "checkpoints" / "final") if cell.trains else cell.run.model
    found = evaluate_model(model, plan, cell.run, cell.folder / "evals")
    samples = choose_samples(found)
    write_text(cell.record.with_suffix(".samples.jsonl"), samples)
    said = {
        "evaluations": found,
        "samples": hashlib.sha256(samples.encode()).hexdigest(),
        "plan": plan.sha256,
    }
    if not cell.trains:
        return records.distil_start(**said)
    final = found[0]["model"]["sha256"]
    return records.distil(cell.folder, final=final, planned=planned_cost(plan, cell.run), **said)


def describe_record(record: Record) -> str:
    shown = (
        f"{e['task']} {e['scores']['pass@1']:.1%} (T {e['sampling']['temperature']:g})" for e in record["evaluations"]
    )
    return ", ".join(shown)


def build_stand_in(plan: Plan, folder: Path) -> None:
    """A model of the scale's own class with a few thousand random weights, and the miniature's tokenizer of that family."""
    if (folder / "model.safetensors").exists():
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lco.models import load_tokenizer

    tokenizer = load_tokenizer(str(Path(__file__).parents[1] / "miniature" / "start" / plan.family.stand_in))
    shape = {key: STAND_IN_SHAPE.get(key, value) for key, value in plan.scale.architecture.items()}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **ends}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(plan.scale.kind, **shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def status_of(cell: Cell) -> str:
    """done, running, locked by what is left of an ended process, begun (interrupted or failed: the last line of its log says
    why), or not run."""
    if cell.record.exists():
        return "done"
    if cell.lock.exists():
        lock = FileLock(cell.lock, fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            ended = stale_owner(cell, patience=0.1)
            return f"locked, but its process (pid {ended}) has ended: end its children" if ended else "running"
        lock.release()
    if not cell.folder.exists() and not cell.log.exists():
        return "not run"
    said = cell.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if cell.log.exists() else []
    return f"begun, not finished{': ' + said[-1][-160:] if said else ''}"


def show_costs(records_of: Iterable[Record]) -> str:
    """What the plan said of the runs that are recorded, beside what they took; "" where nothing of the kind is known."""
    lines = []
    for record in records_of:
        said, took = record.get("planned"), record.get("cost", {})
        if not said:
            continue
        peak = took.get("peak_memory_gib", {}).get("device", 0.0)
        hours = f"{took['device_hours']:.2f} device hours, planned {said['device_hours']:.2f}"
        memory_said = f"; {peak:.1f} GiB of a GPU, planned {said['memory_gib']:.1f}" if peak else ""
        lines.append(f"{record['method']} seed {record['seed']}: {hours}{memory_said}")
    return "\n".join(lines)


def measured_hours(found: Sequence[Record], run: Experiment) -> float | None:
    """Device hours of a run of this plan at the rate of those that are recorded; None where none is."""
    known = [record for record in found if record["budget"]["rollouts"]]
    rollouts = sum(record["budget"]["rollouts"] for record in known)
    return sum(record["cost"]["device_hours"] for record in known) / rollouts * run.steps if rollouts else None


def recorded(cells: Sequence[Cell]) -> list[Record]:
    """The records of the cells that have one."""
    return [found for cell in cells if cell.record.exists() and (found := records.read_json(cell.record)) is not None]


def show_status(cells: Sequence[Cell]) -> str:
    wide = max(len(cell.name) for cell in cells)
    found = {cell.name: status_of(cell) for cell in cells}
    done = sum(state == "done" for state in found.values())
    return "\n".join([*(f"{name:<{wide}}  {state}" for name, state in found.items()), f"{done} of {len(cells)} done"])


def options(family: Family, module: str, text: str | None, given: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(module, text)
    scales = ", ".join(f"{scale.name} ({'|'.join(scale.models)})" for scale in family.scales)
    parser.add_argument("scale", metavar="SCALE", help=f"one of {scales}")
    parser.add_argument("--variant", default="", help="of the scale's models (default: the first)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="seeds a method, from 0 (default: 3)")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help=f"default: {' '.join(family.tasks)}")
    parser.add_argument(
        "--budget",
        default="suite",
        choices=("suite", "paper", "short"),
        help="equal settings for all methods, or over them those of each method's paper, where they are known; short: the "
        "suite's, cut to minutes of one GPU",
    )
    parser.add_argument("--model", default="", help="folder, GGUF file or mirror's id in place of the hub id")
    parser.add_argument("--data-dir", default="", help="folder of JSON Lines in place of hub ids")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", type=Path, help=f"where runs and plan.json go (default: runs/{family.name}-SCALE)")
    parser.add_argument("--records", type=Path, help="where records go (default: OUT/records)")
    parser.add_argument("--dry-run", action="store_true", help="print and write the plan, load and download nothing")
    parser.add_argument("--slurm", action="store_true", help="with --dry-run: write OUT/run.sbatch too")
    parser.add_argument("--status", action="store_true", help="say which cells are done, running, begun, not run")
    parser.add_argument("--smoke", action="store_true", help="the whole script on a stand-in, in minutes on a CPU")
    parser.add_argument(
        "--processes",
        type=at_least_one,
        metavar="N",
        help="runs at a time, each with GPUs of its own (default: as many as the machine's GPUs hold; 2 where it has none)",
    )
    chosen = parser.parse_args(given)
    chosen.out = chosen.out or Path("runs") / f"{family.name}-{chosen.scale}{'-smoke' if chosen.smoke else ''}"
    chosen.records = chosen.records or chosen.out / "records"
    if chosen.seeds < 1:
        raise UserError(f"seeds is {chosen.seeds}; give 1 or more")
    return chosen


def run_family(family: Family, module: str, text: str | None, given: Sequence[str]) -> None:
    """The whole command."""
    chosen = options(family, module, text, given)
    plan = make_plan(family, chosen)
    cells = cells_of(plan, chosen.out, chosen.records)
    if chosen.status:
        print(show_status(cells))
        return
    if not (chosen.dry_run or plan.stand_in):
        check_room(plan, cells, chosen.out)
    place = keep_plan(plan, chosen.out)
    print(describe_plan(plan, cells, memory.Rate()))
    hours = measured_hours(recorded(cells), next(iter(plan.runs.values())))
    if hours is not None:
        print(f"at the rate of the runs that are recorded: {hours:.2f} device hours a run")
    print(f"\nwritten to {place}")
    if chosen.dry_run:
        if chosen.slurm:
            script = chosen.out / "run.sbatch"
            write_text(script, batch_script(module, given, plan, tasks=len(cells)))
            print(f"the batch script is {script}")
        return
    if chosen.smoke:
        build_stand_in(plan, Path(plan.source))
    made = make_cells(plan, cells, gpus_of(plan, chosen.device), chosen.processes)
    print(show_status(cells))
    if costs := show_costs(recorded(cells)):
        print(f"\n{costs}")
    if any(cell.record.exists() for cell in cells):
        print_tables(chosen.records, chosen.out / "report")
    made.require_all()


def check_room(plan: Plan, cells: Sequence[Cell], out: Path) -> None:
    """
    Raises:
        UserError: the disk has no room for the checkpoints that the plan announces, of the runs that have not begun.
    """
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    left = [cell for cell in cells if cell.trains and not cell.begun]
    wanted = memory.disk_of(memory.shape_of(plan.scale.kind, plan.scale.architecture)) * len(left)
    if left:
        check_space(
            there,
            int(wanted),
            f"no room for the checkpoints of {len(left)} runs (fewer --methods or --seeds take less)",
        )


def print_tables(source: Path, out: Path) -> None:
    """Builds the tables of the records that are there, and prints them."""
    from lco.evidence.formats import markdown
    from lco.evidence.report import build

    for table in build(source, out):
        print(markdown(table))
    print(f"the tables are in {out}")


def gpus_of(plan: Plan, device: str) -> int:
    """How many GPUs a run has; 0 where it has none."""
    return 0 if plan.stand_in or device == "cpu" or not visible_gpus() else plan.scale.gpus


def make_cells(plan: Plan, cells: Sequence[Cell], each: int, processes: int | None) -> Made:
    """
    Args:
        each: GPUs of a run; 0 for none.
        processes: runs at a time, if a person says how many.

    Raises:
        UserError: a run wants more GPUs than there are, or as `make_missing`.
    """
    wanted = each and not all(cell.record.exists() for cell in cells)
    most = runs_at_a_time(each, visible_gpus()) if wanted else processes or 2
    study = Study(
        f"{plan.family.name} {plan.scale.name}",
        cells,
        functools.partial(with_gpus, each, functools.partial(record_cell, plan)),
        describe_record,
        run=functools.partial(with_gpus, each, train_apart),
        write=records.write,
        remedy="give another --out",
        threads=None,
    )
    return make_missing(study, min(most, processes or most))


def main(family: Family, module: str, text: str | None, given: Sequence[str]) -> None:
    """The command line of a family's script."""
    run_command(lambda: run_family(family, module, text, given), module)
