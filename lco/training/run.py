"""From a plan to a finished run folder: lock, load, train, watch, save, resume.

runs/<problems>/<method>/seed-<n>/
    config.json     every knob                     metrics.jsonl   one line per rollout
    manifest.json   provenance                     samples.jsonl   some responses of every rollout
    checkpoints/    step-N (to resume), final (to use)     evals/
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lco import disk
from lco.config import Experiment, dump, fields
from lco.errors import UserError
from lco.models.export import export
from lco.training import checkpoint
from lco.training.load import Loaded, load, start_sampler
from lco.training.resolve import Plan
from lco.training.state import Clock, Policies
from lco.training.watch import progress, say, validate, watch, write_samples
from lco.verifier import Pool

CRITIC = "critic"
"""Inside a checkpoint: the state of a critic that is a model of its own."""

OnStep = Callable[[dict[str, Any]], None]

MAY_CHANGE_ON_RESUME = {"steps", "save_every", "eval_every", "out"}


def train(plan: Plan, resume: bool = False, on_step: OnStep | None = None) -> Path:
    """Runs a plan to its end or to Ctrl-C; returns the run folder.

    `on_step` is called with each rollout's metrics and takes the place of the progress bar.

    Raises:
        UserError: anything a user can mend, before the model is loaded where possible.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = plan.experiment.folder
    with ExitStack() as stack:
        if rank == 0:
            for sentence in plan.warnings:
                say(sentence)
            stack.enter_context(checkpoint.claim_folder(folder, resume))
        loaded = load(plan, world, stack.enter_context(Pool(workers=1)))
        start = restore(plan.experiment, loaded) if resume else 0
        sampler = loaded.collector.sampler = start_sampler(plan, loaded, world)
        if sampler is not None:
            stack.callback(sampler.close)
        open_folder(plan.experiment, loaded, start)
        loop(plan, loaded, start, on_step)
    return folder


def restore(experiment: Experiment, loaded: Loaded) -> int:
    """Takes over the newest whole checkpoint of the folder's run; returns how many rollouts it has behind it."""
    folder, policies = experiment.folder, loaded.learner.policies
    same_run(folder, experiment, loaded.manifest)
    found = checkpoint.newest_checkpoint(folder, say if policies.engine.rank == 0 else lambda _: None)
    if found is None:
        return 0
    start, where = found
    policies.engine.load(where)
    if policies.critic is not None:
        policies.critic.load(where / CRITIC)
    return start


def open_folder(experiment: Experiment, loaded: Loaded, start: int) -> None:
    """Writes what the run is, leaves of an earlier part the lines before `start`, and gives the sampler the weights."""
    folder, engine = experiment.folder, loaded.learner.policies.engine
    loaded.collector.synchronise(engine.named_weights())
    if engine.rank == 0:
        disk.write_text(folder / "config.json", dump(experiment))
        disk.write_json(folder / "manifest.json", loaded.manifest)
        for name in ("metrics.jsonl", "samples.jsonl"):
            checkpoint.keep_lines_before(folder / name, start + 1 if start else 0)
    loaded.collector.history += engine.gather(mean_rewards(folder) if start and engine.rank == 0 else [])[0]


def mean_rewards(folder: Path) -> list[float]:
    """Mean reward of every rollout that a resumed run keeps."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    found = [json.loads(line) for line in lines if line]
    return [line["accuracy"] for line in found if "accuracy" in line]


def same_run(folder: Path, experiment: Experiment, manifest: dict[str, Any]) -> None:
    """Refuses to resume with another configuration, other data, other models or another number of ranks."""
    recorded = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    given = dataclasses.asdict(experiment)
    for name in fields():
        if name not in MAY_CHANGE_ON_RESUME and recorded.get(name) != given[name]:
            was, now = recorded.get(name), given[name]
            raise UserError(f"cannot resume {folder}: {name} was {was!r} and is now {now!r}; give the old value")
    before = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name in ("problems_sha256", "world_size", "model", "fixed_models", "critic_model"):
        was, now = before.get(name), manifest.get(name)
        if was != now:
            raise UserError(f"cannot resume {folder}: {name} was {was} and is now {now}; give back what it was")


def loop(plan: Plan, loaded: Loaded, start: int, on_step: OnStep | None) -> None:
    """Steps `start` … `steps`, with metrics, samples, validations and checkpoints; Ctrl-C ends it after the step."""
    experiment, collector, learner = plan.experiment, loaded.collector, loaded.learner
    folder, engine, validation = experiment.folder, learner.policies.engine, loaded.validation
    chief = engine.rank == 0
    with stop_on_interrupt() as stopped:
        if start == 0 and validation:
            score = validate(collector, validation, 0)
            if chief:
                disk.append_line(folder / "metrics.jsonl", {"step": 0, "validation": score})
        hidden = not chief or on_step is not None
        bar = tqdm(range(start, experiment.steps), desc=plan.objective.title, unit="rollout", disable=hidden)
        done = start
        for step in bar:
            begun, clock = time.perf_counter(), Clock()
            rollout = collector.collect(step, clock)
            report = learner.learn(rollout, clock)
            if "skipped" not in report:
                with clock.phase("sync"):
                    collector.synchronise(engine.named_weights())
            done = step + 1
            seconds = {**clock.seconds, "total": time.perf_counter() - begun}
            metrics = {"step": done, **rollout.metrics, **report, "seconds": rounded_seconds(seconds)}
            if validation and (done % experiment.eval_every == 0 or done == experiment.steps):
                metrics["validation"] = validate(collector, validation, done)
            if chief:
                disk.append_line(folder / "metrics.jsonl", metrics)
                write_samples(folder, done, rollout.rows)
                watch(metrics, done, experiment)
                bar.set_postfix_str(progress(metrics))
                if on_step is not None:
                    on_step(metrics)
            if any(engine.gather(stopped())):
                break
            if experiment.save_every and done % experiment.save_every == 0 and done < experiment.steps:
                save(learner.policies, folder, done)
        save(learner.policies, folder, done)
        if done == experiment.steps:
            export_final(loaded, folder)
        elif chief:
            say(f"stopped after {done} of {experiment.steps} rollouts; continue with --resume")


def rounded_seconds(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


@contextmanager
def stop_on_interrupt() -> Iterator[Any]:
    """The first Ctrl-C asks the loop to stop after the current rollout, a second one interrupts at once."""
    asked = False

    def ask(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("stopping after this rollout; press Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def save(policies: Policies, folder: Path, step: int) -> None:
    """A checkpoint of the whole run after `step` rollouts; every rank writes its part, rank 0 begins and finishes."""
    chief = policies.engine.rank == 0
    if chief:
        checkpoint.begin_checkpoint(folder, step)
    policies.engine.gather(None)
    policies.engine.save(checkpoint.partial_folder(folder, step))
    if policies.critic is not None:
        place = checkpoint.partial_folder(folder, step) / CRITIC
        if chief:
            place.mkdir()
        policies.engine.gather(None)
        policies.critic.save(place)
    policies.engine.gather(None)
    if chief:
        checkpoint.finish_checkpoint(folder, step)
    policies.engine.gather(None)


def export_final(loaded: Loaded, folder: Path) -> None:
    """`checkpoints/final`: weights as safetensors and the tokenizer, a folder that transformers loads."""
    engine = loaded.learner.policies.engine
    weights = dict(engine.named_weights())
    if engine.rank == 0:
        export(engine.policy.model, loaded.tokenizer, folder / "checkpoints" / "final", weights)
