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
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lco.config import Experiment
from lco.disk import in_words, write_json, write_text
from lco.errors import UserError
from lco.evaluation.tasks import check_names, tasks_folder
from lco.evidence import records
from lco.evidence.samples import choose_samples
from lco.methods import check_method
from reproduce.common import memory, reuse
from reproduce.common.entry import add_processes, command_parser, run_command
from reproduce.common.families import METHODS, Family, Scale, model_of, scale_named
from reproduce.common.smoke import train_apart
from reproduce.common.study import Cell, Made, Record, Study, make_missing

STAND_IN: Mapping[str, Any] = {
    "problems": "arithmetic", "prompt": "plain", "extraction": "hash", "prompts_per_step": 4, "samples": 4, "steps": 2,
    "minibatches": 2, "max_prompt_tokens": 32, "max_new_tokens": 16, "dtype": "float32", "rollouts": "transformers",
    "gradient_checkpointing": False, "micro_batch": 16, "device": "cpu", "engine": "torch", "limit": 200,
}  # fmt: skip
"""What `--smoke` sets apart: the same code, on a model of the same class shrunk to nothing."""
STAND_IN_TASKS = {"lco_miniature": ((1, 0.0), (4, 1.0)), "lco_miniature_validation": ((1, 0.0),)}
STAND_IN_SHAPE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip
STAND_IN_PROBLEMS = 8
"""Test problems of a stand-in's evaluation."""


@dataclass(frozen=True)
class Plan:
    """What a family command will do, before anything is done.

    Attributes:
        family, scale: whose.
        model: as records name it; `source` is the folder or hub id that is loaded.
        runs: {method: its configuration, but for seed, model and folder}.
        origins: {method: where its settings come from}.
        seeds, tasks: see `families`; every task with its (samples, temperature).
        limit: test problems of each task (0: all).
        stand_in: whether the model is a stand-in, which nothing is to be learnt from.
    """

    family: Family
    scale: Scale
    model: str
    source: str
    runs: Mapping[str, Experiment]
    origins: Mapping[str, str]
    seeds: Sequence[int]
    tasks: Mapping[str, Sequence[tuple[int, float]]]
    limit: int
    stand_in: bool

    @property
    def facts(self) -> dict[str, Any]:
        """All of it that decides a number, and nothing of this machine."""
        return {
            "family": self.family.name,
            "scale": self.scale.name,
            "model": self.model,
            "methods": {m: {"from": self.origins[m], "settings": reuse.settings(run)} for m, run in self.runs.items()},
            "seeds": list(self.seeds),
            "tasks": {name: [list(pair) for pair in kinds] for name, kinds in self.tasks.items()},
            "limit": self.limit,
        }

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def make_plan(family: Family, chosen: argparse.Namespace) -> Plan:
    """
    Raises:
        UserError: an unknown scale, variant, method or task.
    """
    scale = scale_named(family, chosen.scale)
    model = model_of(scale, chosen.variant)
    for method in chosen.methods:
        check_method(method)
    tasks = {name: family.tasks.get(name, ((1, 0.0),)) for name in chosen.tasks or family.tasks}
    check_names(list(tasks), tasks_folder())
    settings = {key: choice.value for key, choice in {**family.settings, **scale.settings}.items()}
    engine = {"engine": "deepspeed", "processes": scale.gpus} if scale.gpus > 1 else {"engine": "torch"}
    common = Experiment(**{**settings, **engine, "device": chosen.device, "data_dir": chosen.data_dir})
    if chosen.smoke:
        common, tasks = dataclasses.replace(common, **STAND_IN), STAND_IN_TASKS
    found = {method: settings_of(method, common, chosen.budget) for method in chosen.methods}
    return Plan(
        family=family,
        scale=scale,
        model=f"stand-in-{family.name}-{scale.name}" if chosen.smoke else Path(model).name,
        source=str(chosen.out / "stand-in") if chosen.smoke else chosen.model or model,
        runs={method: run for method, (run, _) in found.items()},
        origins={method: origin for method, (_, origin) in found.items()},
        seeds=range(chosen.seeds),
        tasks=tasks,
        limit=STAND_IN_PROBLEMS if chosen.smoke else 0,
        stand_in=chosen.smoke,
    )


def settings_of(method: str, common: Experiment, budget: str) -> tuple[Experiment, str]:
    """(a method's configuration, where it comes from): the suite's budget, or over it what its paper says."""
    from lco.methods import METHODS as REGISTERED  # torch, which a mistyped name does without

    run = dataclasses.replace(common, method=method)
    if budget == "suite":
        return run, "the suite's budget, the method's default knobs"
    known = REGISTERED[method]
    preset = known.paper_preset if known.paper_preset.source else known.released_preset
    if not preset.source:
        return run, "no settings of its paper are known: the suite's budget"
    return dataclasses.replace(run, hyper=dict(preset.hyper), **preset.settings), str(preset.source)


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


def keep_plan(plan: Plan, out: Path) -> Path:
    """Writes plan.json, or finds it there.

    Raises:
        UserError: another plan is there; the first line that differs is named.
    """
    place, facts = out / "plan.json", json.loads(json.dumps(plan.facts))
    if place.exists():
        before = reuse.read_object(place)
        was, now = flat(before), flat(facts)
        for key in dict.fromkeys([*now, *(key for key in was if key != "sha256")]):
            if was.get(key) != now.get(key):
                raise UserError(
                    f"{place} plans {key} {was.get(key)!r}, and this call asks for {now.get(key)!r}; give another --out for "
                    "another plan"
                )
        return place
    write_json(place, {**facts, "sha256": plan.sha256})
    return place


def flat(value: Any, stem: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in flat(item, f"{stem}.{key}" if stem else key).items()}
    return {stem: value}


def describe_plan(plan: Plan, cells: Sequence[Cell], rate: memory.Rate) -> str:
    """What a person reads before anything is loaded or downloaded."""
    if plan.stand_in:
        return f"{plan.model}: {len(cells)} cells on a stand-in with random weights; it shows that the road works, nothing else"
    scale, run = plan.scale, next(iter(plan.runs.values()))
    shape = memory.shape_of(scale.kind, scale.architecture)
    terms = memory.memory_terms(shape, run, scale.gpus)
    sampled, trained = memory.tokens_of(run)
    hours = memory.hours_of(shape, run, scale.gpus, rate)
    trains = [cell for cell in cells if cell.trains]
    reasons = {**plan.family.settings, **scale.settings}
    wide = max(map(len, reasons))
    lines = [
        f"{plan.model}: {shape.parameters / 1e9:.2f} billion parameters, {scale.gpus} GPU(s) of 80 GB; plan {plan.sha256[:12]}",
        *([scale.licence] if scale.licence else []),
        "",
        f"{len(cells)} cells: the start model, and {len(plan.runs)} methods ({', '.join(plan.runs)}) × {len(plan.seeds)} seeds",
        *(f"    {origin}: {', '.join(methods)}" for origin, methods in by_origin(plan).items()),
        "tasks: "
        + "; ".join(f"{name} ({', '.join(f'{n} at T {t:g}' for n, t in kinds)})" for name, kinds in plan.tasks.items()),
        "",
        "settings, equal for all methods but where a line above says otherwise",
        *(f"    {key:<{wide}} {getattr(run, key)!s:<10} {choice.reason}" for key, choice in reasons.items()),
        "",
        f"memory of a GPU, term by term{' (ZeRO-' + str(run.zero_stage) + ')' if scale.gpus > 1 else ''}",
        memory.table(terms),
        "",
        f"a run: at most {sampled / 1e6:.0f} million tokens sampled and {trained / 1e6:.0f} million trained on; about "
        f"{hours:.1f} hours, if a GPU does {rate} and responses take a third of their limit",
        f"all {len(trains)} runs: about {hours * len(trains):.0f} hours on {scale.gpus} GPU(s), "
        f"{in_words(memory.disk_of(shape) * len(trains))} of disk",
    ]
    return "\n".join(lines)


def by_origin(plan: Plan) -> dict[str, list[str]]:
    """{where settings come from: the methods whose they are}."""
    found: dict[str, list[str]] = {}
    for method, origin in plan.origins.items():
        found.setdefault(origin, []).append(method)
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
                    *(
                        sys.executable,
                        "-m",
                        "lco.cli",
                        "evaluate",
                        "--model",
                        model,
                        "--tasks",
                        task,
                        "--out",
                        str(place),
                    ),
                    *("--samples", str(samples), "--temperature", str(temperature), "--limit", str(plan.limit)),
                    *("--max-new-tokens", str(run.max_new_tokens), "--dtype", run.dtype, "--device", run.device),
                    *("--rollouts", run.rollouts, *(["--data-dir", run.data_dir] if run.data_dir else [])),
                ]
                code = subprocess.run(command, check=False).returncode
                if code:
                    raise UserError(f"lco evaluate ended with exit code {code}; its own message stands in the log")
            found.append(json.loads(file.read_text(encoding="utf-8")))
    return found


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
    return records.distil(cell.folder, final=found[0]["model"]["sha256"], **said)


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
    """done, running, begun (interrupted or failed: the last line of its log says why), or not run."""
    if cell.record.exists():
        return "done"
    if cell.lock.exists():
        lock = FileLock(cell.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return "running"
        lock.release()
    if not cell.folder.exists() and not cell.log.exists():
        return "not run"
    said = cell.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if cell.log.exists() else []
    return f"begun, not finished{': ' + said[-1][-160:] if said else ''}"


def show_status(cells: Sequence[Cell]) -> str:
    wide = max(len(cell.name) for cell in cells)
    found = {cell.name: status_of(cell) for cell in cells}
    done = sum(state == "done" for state in found.values())
    return "\n".join([*(f"{name:<{wide}}  {state}" for name, state in found.items()), f"{done} of {len(cells)} done"])


def batch_script(module: str, given: Sequence[str], plan: Plan, tasks: int) -> str:
    """A SLURM array whose tasks share the study's cells by their locks; each is the same call."""
    rest = " ".join(word for word in given if word not in ("--dry-run", "--slurm"))
    return (
        "#!/bin/bash\n"
        f"#SBATCH --job-name=lco-{plan.family.name}-{plan.scale.name}\n"
        f"#SBATCH --array=1-{tasks}\n"
        f"#SBATCH --gpus={plan.scale.gpus}\n"
        "#SBATCH --signal=B:TERM@300   # five minutes before the end: save after the rollout, and let the next call go on\n"
        "#SBATCH --requeue\n"
        f"exec .venv/bin/python -m {module} {rest} --processes 1\n"
    )


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
        choices=("suite", "paper"),
        help="equal settings for all methods, or over them those of each method's paper, where they are known",
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
    add_processes(parser)
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
    place = keep_plan(plan, chosen.out)
    print(describe_plan(plan, cells, memory.Rate()))
    print(f"\nwritten to {place}")
    if chosen.dry_run:
        if chosen.slurm:
            script = chosen.out / "run.sbatch"
            write_text(script, batch_script(module, given, plan, tasks=len(cells)))
            print(f"the batch script is {script}")
        return
    if chosen.smoke:
        build_stand_in(plan, Path(plan.source))
    made = make_cells(plan, cells, chosen.processes)
    print(show_status(cells))
    if any(cell.record.exists() for cell in cells):
        print_tables(chosen.records, chosen.out / "report")
    made.require_all()


def print_tables(source: Path, out: Path) -> None:
    """Builds the tables of the records that are there, and prints them."""
    from lco.evidence.formats import markdown
    from lco.evidence.report import build

    for table in build(source, out):
        print(markdown(table))
    print(f"the tables are in {out}")


def make_cells(plan: Plan, cells: Sequence[Cell], processes: int) -> Made:
    study = Study(
        f"{plan.family.name} {plan.scale.name}",
        cells,
        functools.partial(record_cell, plan),
        describe_record,
        run=train_apart,
        write=records.write,
        remedy="give another --out",
        threads=None,
    )
    return make_missing(study, processes)


def main(family: Family, module: str, text: str | None, given: Sequence[str]) -> None:
    """The command line of a family's script."""
    run_command(lambda: run_family(family, module, text, given), module)
