"""From a plan to a finished run folder: lock, load, train, watch, save, resume.

runs/<problems>/<method>/seed-<n>/
    config.json     every knob                     metrics.jsonl   one line per rollout
    manifest.json   provenance                     samples.jsonl   some responses of every rollout
    memory.json     the processes' peaks           evals/
    checkpoints/    step-N (to resume), final (to use)
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from lco import disk
from lco.config import Experiment, dump
from lco.console import say
from lco.errors import UserError
from lco.models.export import export
from lco.policy import Statistics
from lco.rollout.agreement import check_agreement
from lco.rollout.records import Batch
from lco.stopping import Stopped, answered
from lco.training import checkpoint, run_folder, saved_rollouts
from lco.training.finite import diverged_named, refuse_diverged
from lco.training.launch import stopped_after
from lco.training.load import Loaded, load, start_sampler
from lco.training.peaks import keep_peaks
from lco.training.resolve import Plan
from lco.training.state import Clock, Policies
from lco.training.track import Track, numbers_of, tracking, without_paths
from lco.training.watch import Barren, progress, refuse_barren, validate, watch, write_samples
from lco.verifier import Pool

CRITIC = "critic"
"""Inside a checkpoint: the state of a critic that is a model of its own."""

POOL = "pool.json"
"""Inside a checkpoint: which pairs of the coming rollouts were chosen, for methods that choose."""

OnStep = Callable[[dict[str, Any]], None]


def train(plan: Plan, resume: bool = False, on_step: OnStep | None = None, start_over: bool = False) -> Path:
    """Runs a plan to its end; returns the run folder.

    Args:
        resume: go on where the folder's run stopped.
        on_step: called with each rollout's metrics; takes the place of the progress bar.
        start_over: remove what the folder's run left and make it again.

    Raises:
        UserError: anything a user can mend, before the model is loaded where possible.
        Stopped: Ctrl-C, SIGTERM or SIGHUP came before the last rollout; the run's checkpoint is written.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = plan.experiment.folder
    with ExitStack() as stack:
        if rank == 0:
            for sentence in plan.warnings:
                say(sentence)
            stack.enter_context(run_folder.claim_folder(folder, resume, start_over))
        loaded = load(plan, world, stack.enter_context(Pool(workers=1)))
        stack.enter_context(disk.full_disk_named(folder, "free some space, then continue with --resume"))
        start = restore(plan, loaded) if resume else 0
        if resume and start == plan.experiment.steps:
            if not (folder / "checkpoints" / "final").is_dir():
                finish(plan, loaded)  # it ended between its last checkpoint and this
            if rank == 0:
                say(f"{folder} has its {start} rollouts behind it; give more --steps to go on")
            return folder
        sampler = loaded.collector.sampler = start_sampler(plan, loaded, world)
        if sampler is not None:
            stack.callback(sampler.close)
        loaded.collector.synchronise(loaded.learner.policies.engine.named_weights())
        compare_policies(plan, loaded)
        open_folder(plan, loaded, start)
        track = stack.enter_context(tracker_of(plan, loaded, start))
        loop(plan, loaded, start, on_step, track)
    return folder


def tracker_of(plan: Plan, loaded: Loaded, start: int) -> AbstractContextManager[Track | None]:
    """The tracker that is asked for, on the first rank alone."""
    kind = plan.experiment.track if loaded.learner.policies.engine.rank == 0 else "none"
    return tracking(kind, plan.experiment.folder, start, loaded.manifest["run"], without_paths(plan.experiment))


def restore(plan: Plan, loaded: Loaded) -> int:
    """Takes over the newest whole checkpoint of the folder's run; returns how many rollouts it has behind it.

    Raises:
        UserError: the run is another one, has more rollouts behind it than are asked for, has finished some of which no
            whole checkpoint is left, or its lines are not those that the checkpoint was saved with.
    """
    folder, policies = plan.experiment.folder, loaded.learner.policies
    chief = policies.engine.rank == 0
    run_id = run_folder.same_run(folder, plan.experiment, loaded.manifest)
    loaded.manifest["run"] = run_id or loaded.manifest["run"]
    needed = [
        *policies.engine.files,
        *(f"{CRITIC}/{name}" for name in (policies.critic.files if policies.critic else ())),
        *([POOL] if loaded.pairs else []),
        *(saved_rollouts.FILES if loaded.waiting else ()),
    ]
    found = checkpoint.newest_checkpoint(folder, run_id, say if chief else lambda _: None, needed)
    if found is None:
        lost = run_folder.finished_rollouts(folder)
        if lost:
            raise UserError(
                f"cannot resume {folder}: {lost} rollouts are logged, but no whole checkpoint of them is left, so a resume would "
                "begin again at the first; nothing was changed, give --start-over for that"
            )
        return 0
    start, where = found
    if start > plan.experiment.steps:
        raise UserError(
            f"{folder} has {start} rollouts behind it, and steps is {plan.experiment.steps}; give --steps above {start} to go on"
        )
    run_folder.first_metrics(folder / "metrics.jsonl", start)
    checkpoint.check_lines(folder, where)
    policies.engine.load(where)
    if policies.critic is not None:
        policies.critic.load(where / CRITIC)
    if loaded.pairs is not None:
        loaded.pairs.load(where / POOL)
    if loaded.waiting is not None:
        loaded.waiting.load(where)
    return start


def open_folder(plan: Plan, loaded: Loaded, start: int) -> None:
    """Writes what the run is, and leaves of an earlier part the lines of the first `start` rollouts. The folder of a run that
    starts anew is emptied of an earlier one here, where nothing can be refused any more."""
    folder, engine = plan.experiment.folder, loaded.learner.policies.engine
    history: list[float] = []
    kept: list[dict[str, Any]] = []
    if engine.rank == 0:
        copies = plan.experiment.keep + bool(loaded.validation)
        wanted = copies * checkpoint_size(loaded.learner.policies)
        disk.check_space(folder, wanted, f"no room for the {copies} checkpoints that this run keeps")
        if not start:
            run_folder.remove_run(folder)
        run_folder.keep_metrics(folder / "metrics.jsonl", start)
        run_folder.keep_samples(folder / "samples.jsonl", start)
        # The configuration comes last: its presence says that a run has begun.
        disk.write_json(folder / "manifest.json", loaded.manifest)
        disk.write_text(folder / "config.json", dump(plan.experiment))
        final = folder / "checkpoints" / "final"
        if final.exists():  # of an earlier, shorter part: no longer the run's last model
            final.rename(final.with_name(f"final-{start:06d}"))
        if start:
            kept = disk.read_lines(folder / "metrics.jsonl")
            history = mean_rewards([*kept, *(loaded.waiting.metrics if loaded.waiting else ())])
    loaded.collector.history += engine.gather(history)[0]
    loaded.learner.noise.restore(engine.gather(kept)[0] if plan.objective.rate else ())


def compare_policies(plan: Plan, loaded: Loaded) -> None:
    """Refuses a sampler that is not the trainer's policy right after it was given the weights (`check_agreement`)."""
    collector, policies = loaded.collector, loaded.learner.policies
    asked = [(prompt.problem.id, prompt.ids) for prompt in collector.prompts]
    reference = policies.fixed["reference"] if plan.objective.source == "pairs" else None
    own = ask_logprob(plan, policies)

    def logprob(batch: Batch) -> Tensor:
        return own(batch) if reference is None else reference(batch, Statistics(["logprob"]))["logprob"]

    check_agreement(
        collector.sampler, logprob, policies.engine.gather, asked, collector.sampling, plan.experiment.dtype
    )


def ask_logprob(plan: Plan, policies: Policies) -> Callable[[Batch], Tensor]:
    """What asks the trained policy for log p [B, T] of a batch's responses; on every rank."""
    # ZeRO-3 expects every forward to visit the same modules, so a critic on the policy's body is asked too.
    names = ["logprob", "value"] if plan.objective.critic and policies.critic is None else ["logprob"]
    return lambda batch: policies.engine.forward(batch, Statistics(names))["logprob"]


def mean_rewards(lines: Sequence[dict[str, Any]]) -> list[float]:
    """Mean reward of every rollout that a resumed run keeps, from their metrics."""
    return [line.get("reward", line["accuracy"]) for line in lines if "accuracy" in line]


def checkpoint_size(policies: Policies) -> int:
    """Bytes of a checkpoint, about: float32 parameters and the two moments of AdamW."""
    engines = [policies.engine, *([policies.critic] if policies.critic is not None else [])]
    parameters = (p for engine in engines for p in engine.policy.parameters() if p.requires_grad)
    return 12 * sum(getattr(p, "ds_numel", p.numel()) for p in parameters)


def loop(plan: Plan, loaded: Loaded, start: int, on_step: OnStep | None, track: Track | None = None) -> None:
    """Steps `start` … `steps`, with metrics, samples, validations and checkpoints; Ctrl-C ends it after the step.

    Raises:
        Stopped: it did, and a checkpoint is written.
    """
    experiment, collector, learner = plan.experiment, loaded.collector, loaded.learner
    folder, engine, validation = experiment.folder, learner.policies.engine, loaded.validation
    chief = engine.rank == 0
    with stop_on_interrupt() as stopped_by:
        if start == 0 and validation:
            score = validate(collector, validation, 0)
            if chief:
                disk.append_line(folder / "metrics.jsonl", {"step": 0, "validation": score})
                if track is not None:
                    track(0, numbers_of({"validation": score}))
        hidden = not chief or on_step is not None
        bar = tqdm(range(start, experiment.steps), desc=plan.objective.title, unit="rollout", disable=hidden)
        done, loss, barren, whole, asked = start, 0.0, Barren(), {start}, list[int]()
        for step in bar:
            begun, clock = time.perf_counter(), Clock()
            with diverged_named(step + 1, experiment.lr):
                rollout = loaded.collect(step, clock)
            report = learner.learn(rollout, clock)
            if "skipped" not in report:
                with clock.phase("sync"):
                    collector.synchronise(engine.named_weights())
            done, loss = step + 1, report.get("loss", loss)
            seconds = {**clock.seconds, "total": time.perf_counter() - begun}
            metrics = {"step": done, **rollout.metrics, **report, "seconds": rounded_seconds(seconds)}
            if validation and (done % experiment.eval_every == 0 or done == experiment.steps):
                with diverged_named(done, experiment.lr):
                    metrics["validation"] = validate(collector, validation, done)
            if chief:
                disk.append_line(folder / "metrics.jsonl", metrics)
                write_samples(folder, done, rollout.rows)
                if track is not None:
                    track(done, numbers_of(metrics))
                with diverged_named(done, experiment.lr):
                    watch(metrics, done, experiment, plan.objective.needs.group)
                barren = barren.after(metrics)
                bar.set_postfix_str(progress(metrics))
                if on_step is not None:
                    on_step(metrics)
            asked = [number for number in engine.gather(stopped_by()) if number]
            if asked:
                break
            if experiment.save_every and done % experiment.save_every == 0 and done < experiment.steps:
                save(loaded, experiment, done, whole)
                keep_peaks(engine, folder)
        save(loaded, experiment, done, whole)
        keep_peaks(engine, folder)
        if done == experiment.steps:
            refuse_barren(barren, done - start, done, experiment.lr)
            finish(plan, loaded, loss)
        else:
            raise Stopped(asked[0], stopped_after(done, experiment))


def rounded_seconds(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], int]]:
    """The first Ctrl-C (or SIGTERM, or SIGHUP) asks the loop to stop after the current rollout, a second Ctrl-C interrupts at
    once. A second SIGTERM does not: a scheduler sends it to every process of a job, and a launcher sends its own after it.
    Yields what tells the first signal's number, 0 before there was one."""
    heard: list[int] = []

    def ask(number: int, _: Any) -> None:
        if number == signal.SIGINT and number in heard:
            raise Stopped(number)
        heard.append(number)
        if len(heard) == 1:
            say("stopping after this rollout; press Ctrl-C again to stop at once")

    with answered(ask):
        yield lambda: heard[0] if heard else 0


def save(loaded: Loaded, experiment: Experiment, step: int, whole: set[int]) -> None:
    """A checkpoint of the whole run after `step` rollouts; every rank writes its part, rank 0 begins and finishes.

    `whole` are the steps whose checkpoints are known to be whole; this one joins them.
    """
    policies, folder = loaded.learner.policies, experiment.folder
    engine, chief = policies.engine, policies.engine.rank == 0
    if chief:
        disk.check_space(folder, checkpoint_size(policies), f"no room for the checkpoint after rollout {step}")
        checkpoint.begin_checkpoint(folder, step)
    engine.gather(None)
    engine.save(checkpoint.partial_folder(folder, step))
    if policies.critic is not None:
        place = checkpoint.partial_folder(folder, step) / CRITIC
        if chief:
            place.mkdir()
        engine.gather(None)
        policies.critic.save(place)
    if chief and loaded.pairs is not None:
        loaded.pairs.save(checkpoint.partial_folder(folder, step) / POOL)
    if chief and loaded.waiting is not None:
        loaded.waiting.save(checkpoint.partial_folder(folder, step))
    engine.gather(None)
    whole.add(step)
    if chief:
        checkpoint.finish_checkpoint(folder, step, loaded.manifest["run"])
        checkpoint.prune_checkpoints(folder, whole, step, experiment.keep, checkpoint.validation_scores(folder))
    engine.gather(None)


def finish(plan: Plan, loaded: Loaded, loss: float = 0.0) -> None:
    """Writes the last model of a run that has all its rollouts behind it.

    Args:
        loss: of the last rollout that had an update, where it is known.

    Raises:
        UserError: the run has diverged.
    """
    experiment, policies = plan.experiment, loaded.learner.policies
    logprob, prompts = ask_logprob(plan, policies), loaded.collector.prompts
    refuse_diverged(policies.engine, logprob, prompts, loss, experiment.steps, experiment.lr)
    export_final(loaded, experiment.folder)


def export_final(loaded: Loaded, folder: Path) -> None:
    """`checkpoints/final`: weights as safetensors and the tokenizer, a folder that transformers loads. It appears whole."""
    engine = loaded.learner.policies.engine
    weights = dict(engine.named_weights())
    if engine.rank == 0:
        final, partial = folder / "checkpoints" / "final", folder / "checkpoints" / ".final.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of an export that did not come to its end
        export(engine.policy.model, loaded.tokenizer, partial, weights)
        disk.flush_tree(partial)
        partial.replace(final)
        disk.flush_folder(final.parent)
