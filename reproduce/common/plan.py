"""What a family command will do, as data: written and hashed before the first run, so that every record can name it."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.config import Experiment
from lco.disk import in_words, write_json
from lco.errors import UserError
from lco.evaluation.tasks import check_names, tasks_folder
from lco.methods import METHODS as REGISTERED
from lco.methods import check_method
from lco.problems.rewards import ALONE
from reproduce.common import memory, reuse
from reproduce.common.families import (
    SHORT,
    SHORT_LIMIT,
    SHORT_TASKS,
    Choice,
    Family,
    Scale,
    engine_of,
    model_of,
    scale_named,
)
from reproduce.common.study import Cell

STAND_IN: Mapping[str, Any] = {
    "problems": "arithmetic", "prompt": "plain", "extraction": "hash", "prompts_per_step": 4, "samples": 4, "steps": 2,
    "minibatches": 2, "max_prompt_tokens": 32, "max_new_tokens": 16, "dtype": "float32", "rollouts": "transformers",
    "gradient_checkpointing": False, "micro_batch": 16, "device": "cpu", "engine": "torch", "limit": 200,
}  # fmt: skip
"""What `--smoke` sets apart: the same code, on a model of the same class shrunk to nothing."""
STAND_IN_TASKS = {"lco_miniature": ((1, 0.0), (4, 1.0)), "lco_miniature_validation": ((1, 0.0),)}
YOUNGER: Mapping[str, Any] = {"reward": ALONE, "columns": {}, "thinking": ""}
"""Settings that the first plans did not have, with what was always so."""
STAND_IN_PROBLEMS = 8
"""Test problems of a stand-in's evaluation."""


@dataclass(frozen=True)
class Plan:
    """What a family command will do, before anything is done.

    Attributes:
        family, scale: whose.
        model: as records name it; `source` is the folder or hub id that is loaded.
        reasons: {setting: its value and why}, of what is equal for all methods.
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
    reasons: Mapping[str, Choice]
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
            "methods": {m: {"from": self.origins[m], "settings": planned(run)} for m, run in self.runs.items()},
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
    short = chosen.budget == "short"
    own = SHORT_TASKS if short else scale.tasks or family.tasks
    tasks = {name: own.get(name, ((1, 0.0),)) for name in chosen.tasks or own}
    check_names(list(tasks), tasks_folder())
    reasons = {**family.settings, **engine_of(scale), **scale.settings, **(SHORT if short else {})}
    settings = {key: choice.value for key, choice in reasons.items()}
    common = Experiment(**{**settings, "device": chosen.device, "data_dir": chosen.data_dir})
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
        reasons=reasons,
        limit=STAND_IN_PROBLEMS if chosen.smoke else SHORT_LIMIT if short else 0,
        stand_in=chosen.smoke,
    )


def planned(run: Experiment) -> dict[str, Any]:
    """What of a configuration a plan names: its settings, but for younger ones at their defaults, so that plans of earlier
    versions stay the plans that they were."""
    return {key: value for key, value in reuse.settings(run).items() if key not in YOUNGER or value != YOUNGER[key]}


def settings_of(method: str, common: Experiment, budget: str) -> tuple[Experiment, str]:
    """(a method's configuration, where it comes from): the suite's budget, or over it what its paper says."""
    run = dataclasses.replace(common, method=method)
    if budget != "paper":
        return run, f"the suite's {'short budget' if budget == 'short' else 'budget'}, the method's default knobs"
    known = REGISTERED[method]
    preset = known.paper_preset if known.paper_preset.source else known.released_preset
    if not preset.source:
        return run, "no settings of its paper are known: the suite's budget"
    return dataclasses.replace(run, hyper=dict(preset.hyper), **preset.settings), str(preset.source)


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
    terms = {method: terms_of(plan, shape, method) for method in plan.runs}
    largest = max(terms, key=lambda method: sum(terms[method].values()))
    said = [f"ZeRO-{plan.runs[largest].zero_stage}"] if scale.gpus > 1 else []
    said += [f"{largest}, which takes most"] if any(found != terms[largest] for found in terms.values()) else []
    hours = {method: memory.hours_of(shape, run, scale.gpus, rate) for method, run in plan.runs.items()}
    trains = [cell for cell in cells if cell.trains]
    wide = max(map(len, plan.reasons))
    lines = [
        f"{plan.model}: {shape.parameters / 1e9:.2f} billion parameters, {scale.gpus} GPU(s) of 80 GB; plan {plan.sha256[:12]}",
        *([scale.licence] if scale.licence else []),
        f"weights: {plan.source}; {place_of(plan.source)}",
        "",
        f"{len(cells)} cells: the start model, and {len(plan.runs)} methods ({', '.join(plan.runs)}) × {len(plan.seeds)} seeds",
        *(f"    {origin}: {', '.join(methods)}" for origin, methods in by_origin(plan).items()),
        "tasks: "
        + "; ".join(f"{name} ({', '.join(f'{n} at T {t:g}' for n, t in kinds)})" for name, kinds in plan.tasks.items()),
        "",
        "settings, equal for all methods but where a line above says otherwise",
        *(f"    {key:<{wide}} {getattr(run, key)!s:<10} {choice.reason}" for key, choice in plan.reasons.items()),
        "",
        f"memory of a GPU, term by term{' (' + ', '.join(said) + ')' if said else ''}",
        memory.table(terms[largest]),
        "",
        *describe_runs(plan, hours),
        f"Hours are of a GPU that does {rate}, and of responses that take a third of their limit.",
        f"all {len(trains)} runs: about {in_hours(sum(hours.values()) * len(plan.seeds))} on {scale.gpus} GPU(s), "
        f"{in_words(memory.disk_of(shape) * len(trains))} of disk",
    ]
    return "\n".join(lines)


def place_of(source: str) -> str:
    """Where weights come from, and what else could be given."""
    if Path(source).exists():
        return "of this machine"
    return (
        "from the hub or its cache (HF_HUB_OFFLINE=1 asks the cache alone, HF_ENDPOINT names a mirror); --model takes a folder "
        "or a GGUF file in its place, --data-dir a folder of problems"
    )


def terms_of(plan: Plan, shape: memory.Shape, method: str) -> dict[str, float]:
    """{term: bytes on one GPU} of a method's runs, with the policies that it reads beside its own."""
    from lco.methods import METHODS as REGISTERED  # torch

    run = plan.runs[method]
    fixed = len(REGISTERED[method].bind(run.hyper).fixed)
    return memory.memory_terms(shape, run, plan.scale.gpus, fixed)


def describe_runs(plan: Plan, hours: Mapping[str, float]) -> list[str]:
    """What a run takes: a line for all methods, or one for each of those that differ."""
    alike: dict[tuple[int, int, str], list[str]] = {}
    for method, run in plan.runs.items():
        alike.setdefault((*memory.tokens_of(run), in_hours(hours[method])), []).append(method)
    return [
        f"a run{' of ' + ', '.join(methods) if len(alike) > 1 else ''}: at most {sampled / 1e6:.0f} million tokens sampled and "
        f"{trained / 1e6:.0f} million trained on; about {time}"
        for (sampled, trained, time), methods in alike.items()
    ]


def in_hours(hours: float) -> str:
    """A length of time as a person says it: minutes below two hours."""
    if hours >= 2:
        return f"{hours:.1f} hours"
    minutes = max(1, round(hours * 60))
    return "1 minute" if minutes == 1 else f"{minutes} minutes"


def by_origin(plan: Plan) -> dict[str, list[str]]:
    """{where settings come from: the methods whose they are}."""
    found: dict[str, list[str]] = {}
    for method, origin in plan.origins.items():
        found.setdefault(origin, []).append(method)
    return found


def batch_script(module: str, given: Sequence[str], plan: Plan, tasks: int) -> str:
    """A SLURM array whose tasks share the study's cells by their locks; each is the same call."""
    rest = shlex.join(word for word in given if word not in ("--dry-run", "--slurm"))
    return (
        "#!/bin/bash\n"
        f"#SBATCH --job-name=lco-{plan.family.name}-{plan.scale.name}\n"
        f"#SBATCH --array=1-{tasks}\n"
        f"#SBATCH --gpus={plan.scale.gpus}\n"
        "#SBATCH --signal=B:TERM@300   # five minutes before the end: save after the rollout, and let the next call go on\n"
        "#SBATCH --requeue\n"
        f"exec .venv/bin/python -m {module} {rest} --processes 1\n"
    )
