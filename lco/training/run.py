"""From a configuration to a finished run folder: check, load, lock, train, watch, save, resume.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lco import disk
from lco.config import Experiment, dump, fields
from lco.config_check import check, unread
from lco.errors import UserError
from lco.training import checkpoint
from lco.training.loop import Prompt, Run, rollout_step, synchronise
from lco.training.prepare import build_sampler, prepare
from lco.training.watch import progress, say, validate, watch, write_samples
from lco.verifier import Pool

CRITIC = "critic"
"""Inside a checkpoint: the state of a critic that is a model of its own."""

OnStep = Callable[[dict[str, Any]], None]

MAY_CHANGE_ON_RESUME = {"steps", "save_every", "eval_every", "out"}


def train(experiment: Experiment, resume: bool = False, on_step: OnStep | None = None) -> Path:
    """Runs an experiment to its end or to Ctrl-C; returns the run folder.

    `on_step` is called with each rollout's metrics and takes the place of the progress bar.

    Raises:
        UserError: anything a user can mend, before the model is loaded where possible.
    """
    check(experiment)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = experiment.folder
    lock = None
    if rank == 0:
        for sentence in unread(experiment):
            say(sentence)
        lock = checkpoint.claim_folder(folder, resume)
    try:
        with Pool(workers=1) as pool:
            return _train(experiment, resume, folder, rank, world, pool, on_step)
    finally:
        if lock is not None:
            lock.close()


def _train(
    experiment: Experiment, resume: bool, folder: Path, rank: int, world: int, pool: Pool, on_step: OnStep | None
) -> Path:
    run, validation, manifest = prepare(experiment, world, pool)
    start = 0
    if resume:
        same_run(folder, experiment, manifest)
        found = checkpoint.newest_checkpoint(folder, say if rank == 0 else lambda _: None)
        if found is not None:
            start, where = found
            run.engine.load(where)
            if run.critic is not None:
                run.critic.load(where / CRITIC)
    run.sampler = build_sampler(run, experiment, world)
    synchronise(run)
    if rank == 0:
        disk.write_text(folder / "config.json", dump(experiment))
        disk.write_json(folder / "manifest.json", manifest)
        for name in ("metrics.jsonl", "samples.jsonl"):
            checkpoint.keep_lines_before(folder / name, start + 1 if start else 0)
    run.history += run.engine.gather(mean_rewards(folder) if start and rank == 0 else [])[0]
    try:
        loop(run, validation, folder, start, on_step)
    finally:
        if run.sampler is not None:
            run.sampler.close()
    return folder


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


def loop(run: Run, validation: Sequence[Prompt], folder: Path, start: int, on_step: OnStep | None) -> None:
    """Steps `start` … `steps`, with metrics, samples, validations and checkpoints; Ctrl-C ends it after the step."""
    experiment, chief = run.experiment, run.engine.rank == 0
    with stop_on_interrupt() as stopped:
        if start == 0 and validation:
            score = validate(run, validation, 0)
            if chief:
                disk.append_line(folder / "metrics.jsonl", {"step": 0, "validation": score})
        bar = tqdm(
            range(start, experiment.steps),
            desc=run.method.title,
            unit="rollout",
            disable=not chief or on_step is not None,
        )
        done = start
        for step in bar:
            begun = time.perf_counter()
            metrics, judged = rollout_step(run, step)
            done = step + 1
            metrics["seconds"]["total"] = round(time.perf_counter() - begun, 4)
            if validation and (done % experiment.eval_every == 0 or done == experiment.steps):
                metrics["validation"] = validate(run, validation, done)
            if chief:
                disk.append_line(folder / "metrics.jsonl", metrics)
                write_samples(run, folder, done, judged)
                watch(metrics, done, experiment)
                bar.set_postfix_str(progress(metrics))
                if on_step is not None:
                    on_step(metrics)
            if any(run.engine.gather(stopped())):
                break
            if experiment.save_every and done % experiment.save_every == 0 and done < experiment.steps:
                save(run, folder, done)
        save(run, folder, done)
        if done == experiment.steps:
            export_final(run, folder)
        elif chief:
            say(f"stopped after {done} of {experiment.steps} rollouts; continue with --resume")


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


def save(run: Run, folder: Path, step: int) -> None:
    """A checkpoint of the whole run after `step` rollouts; every rank writes its part, rank 0 begins and finishes."""
    chief = run.engine.rank == 0
    if chief:
        checkpoint.begin_checkpoint(folder, step)
    run.engine.gather(None)
    run.engine.save(checkpoint.partial_folder(folder, step))
    if run.critic is not None:
        place = checkpoint.partial_folder(folder, step) / CRITIC
        if chief:
            place.mkdir()
        run.engine.gather(None)
        run.critic.save(place)
    run.engine.gather(None)
    if chief:
        checkpoint.finish_checkpoint(folder, step)
    run.engine.gather(None)


def export_final(run: Run, folder: Path) -> None:
    """`checkpoints/final`: weights as safetensors and the tokenizer, a folder that transformers loads."""
    weights = dict(run.engine.named_weights())
    if run.engine.rank == 0:
        run.export(folder / "checkpoints" / "final", weights)
