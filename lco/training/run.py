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
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lco.evidence.provenance import collect
from lco.problems.prompts import encode, end_token_ids, style_named
from lco.problems.sets import content_sha256, load_problems
from tqdm import tqdm

from lco.config import Experiment, check, dump, fields
from lco.errors import UserError
from lco.methods import method_named
from lco.policy import PolicyModel
from lco.randomness import derived_seed
from lco.rollout.records import Sampler, Sampling
from lco.training import checkpoint as disk
from lco.training import models
from lco.training.engine import Engine, TorchEngine
from lco.training.loop import Judged, Prompt, Run, judge, rollout_step
from lco.verifier import Pool, Rules

MAY_CHANGE_ON_RESUME = {"steps", "save_every", "eval_every", "out"}
SAMPLER_GAP_LIMIT = {"float32": 0.01, "bfloat16": 0.2}
"""Mean |Δ log p| between sampler and trainer above which a run stops: ten times what agreeing engines show."""


def train(experiment: Experiment, resume: bool = False) -> Path:
    """Runs an experiment to its end or to Ctrl-C; returns the run folder.

    Raises:
        UserError: anything a user can mend, before the model is loaded where possible.
    """
    check(experiment)
    # A file may read "lr": 1e-6 and a flag may name a folder relative to here: from now on only values count.
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = experiment.folder
    lock = None
    if rank == 0:
        if (folder / "config.json").exists() and not resume:
            raise UserError(f"{folder} holds a run already; give --resume to continue it or another --out")
        if resume and not (folder / "config.json").exists():
            raise UserError(f"there is no run to resume in {folder}; leave --resume out")
        lock = disk.lock_folder(folder)
    try:
        with Pool(workers=1) as pool:
            return _train(experiment, resume, folder, rank, world, pool)
    finally:
        if lock is not None:
            lock.close()


def _train(experiment: Experiment, resume: bool, folder: Path, rank: int, world: int, pool: Pool) -> Path:
    run, validation, manifest = prepare(experiment, world, pool)
    start = 0
    if resume:
        same_run(folder, experiment, manifest)
        found = disk.newest_checkpoint(folder, say if rank == 0 else lambda _: None)
        if found is not None:
            start, where = found
            run.engine.load(where)
    run.sampler = build_sampler(run, experiment, world)
    if run.sampler is not None:
        run.sampler.sync(run.engine.named_weights())
    if rank == 0:
        disk.write_text(folder / "config.json", dump(experiment))
        disk.write_json(folder / "manifest.json", manifest)
        for name in ("metrics.jsonl", "samples.jsonl"):
            disk.keep_lines_before(folder / name, start + 1 if start else 0)
    try:
        loop(run, validation, folder, start)
    finally:
        if run.sampler is not None:
            run.sampler.close()
    return folder


def prepare(experiment: Experiment, world: int, pool: Pool) -> tuple[Run, Sequence[Prompt], dict[str, Any]]:
    """Everything but the sampler: problems first, then tokenizer, then the model, so that mistakes cost seconds."""
    problems = load_problems(experiment.problems, experiment.split, experiment.data_dir, experiment.limit)
    held_out = []
    if experiment.eval_every:
        held_out = load_problems(
            experiment.problems, experiment.eval_split, experiment.data_dir, experiment.eval_problems
        )
    config, tokenizer = models.load_config(experiment.model), models.load_tokenizer(experiment.model)
    context = models.context_length(config)
    room = experiment.max_prompt_tokens + experiment.max_new_tokens
    if context is not None and room > context:
        raise UserError(
            f"max_prompt_tokens + max_new_tokens is {room}, but {experiment.model} reads at most {context} tokens; "
            "lower one of them"
        )
    style = style_named(experiment.prompt)
    prompts = [Prompt(p, encode(tokenizer, p, style)) for p in problems]
    kept = [p for p in prompts if len(p.ids) <= experiment.max_prompt_tokens]
    if len(kept) < len(prompts):
        say(
            f"{len(prompts) - len(kept)} of {len(prompts)} prompts are longer than {experiment.max_prompt_tokens} tokens: dropped"
        )
    if not kept:
        raise UserError(f"every prompt is longer than max_prompt_tokens = {experiment.max_prompt_tokens}; raise it")
    ends = end_token_ids(tokenizer, experiment.model)
    method = method_named(experiment.method)
    device = models.resolve_device(experiment.device)
    model = models.load_model(experiment.model, experiment.dtype, device)
    if experiment.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    manifest = {
        **collect(),
        "model": {
            "class": type(model).__name__,
            "name": Path(experiment.model).name if Path(experiment.model).exists() else experiment.model,
            "sha256": models.weights_sha256(model),
        },
        "problems_sha256": content_sha256([p.problem for p in kept]),
        "problems_used": len(kept),
        "problems_dropped": len(prompts) - len(kept),
        "end_token_ids": list(ends),
        "world_size": world,
    }
    torch.manual_seed(derived_seed(experiment.seed, 0, "new heads") % 2**32)
    policy = PolicyModel(model, experiment.temperature, critic=method.needs.critic).to(device)
    sampling = Sampling(experiment.temperature, 1.0, 0, experiment.max_new_tokens, experiment.samples, ends)
    rules = Rules(extraction=experiment.extraction)
    run = Run(
        experiment=experiment,
        method=method,
        hyper=method.hyper(experiment.hyper),
        engine=build_engine(policy, experiment),
        prompts=kept,
        demonstrations=demonstrations(kept, tokenizer, ends) if method.source == "demonstrations" else (),
        sampler=None,
        sampling=sampling,
        verify=lambda pairs: pool.verify_many(pairs, rules),
        decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        export=lambda where, weights: export(model, tokenizer, where, weights),
    )
    return run, [Prompt(p, encode(tokenizer, p, style)) for p in held_out], manifest


def demonstrations(prompts: Sequence[Prompt], tokenizer: Any, ends: Sequence[int]) -> list[tuple[int, ...]]:
    """Worked solutions as ids, each ending with the tokenizer's end token, on which the sampler stops."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0]
    missing = next((p.problem.id for p in prompts if not p.problem.solution), None)
    if missing is not None:
        raise UserError(
            f"problem {missing!r} has no worked solution to imitate; use a set with solutions or another method"
        )
    return [(*tokenizer.encode(p.problem.solution, add_special_tokens=False), end) for p in prompts]


def build_engine(policy: PolicyModel, experiment: Experiment) -> Engine:
    if experiment.engine == "torch":
        return TorchEngine(policy, experiment)
    from lco.training.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(policy, experiment)


def build_sampler(run: Run, experiment: Experiment, world: int) -> Sampler | None:
    """The sampler of this rank. vLLM beside several ranks is one process of its own, owned by rank 0."""
    if run.method.source != "rollouts" and not experiment.eval_every:
        return None
    if experiment.rollouts == "transformers":
        from lco.rollout.transformers import TransformersSampler

        return TransformersSampler(run.engine.policy.model)
    if run.engine.rank != 0:
        return None
    from lco.rollout.vllm import VLLMSampler

    return VLLMSampler(
        experiment.model,
        dtype=experiment.dtype,
        cache_gib=experiment.vllm_cache_gib,
        max_model_len=experiment.max_prompt_tokens + experiment.max_new_tokens,
        separate_process=world > 1,
    )


def same_run(folder: Path, experiment: Experiment, manifest: dict[str, Any]) -> None:
    """Refuses to resume with another configuration, other data, another model or another number of ranks."""
    recorded = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    given = dataclasses.asdict(experiment)
    for name in fields():
        if name not in MAY_CHANGE_ON_RESUME and recorded.get(name) != given[name]:
            raise UserError(
                f"cannot resume {folder}: {name} was {recorded.get(name)!r} and is now {given[name]!r}; give the old value or another --out"
            )
    before = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name in ("problems_sha256", "world_size", "model"):
        if before.get(name) != manifest[name]:
            raise UserError(f"cannot resume {folder}: {name} was {before.get(name)} and is now {manifest[name]}")


def loop(run: Run, validation: Sequence[Prompt], folder: Path, start: int) -> None:
    """Steps `start` … `steps`, with metrics, samples, validations and checkpoints; Ctrl-C ends it after the step."""
    experiment, chief = run.experiment, run.engine.rank == 0
    with stop_on_interrupt() as stopped:
        if start == 0 and validation:
            score = validate(run, validation, 0)
            if chief:
                disk.append_line(folder / "metrics.jsonl", {"step": 0, "validation": score})
        bar = tqdm(range(start, experiment.steps), desc=run.method.title, unit="rollout", disable=not chief)
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
    """A checkpoint of the whole run after `step` rollouts. Under DeepSpeed every rank writes its part."""
    if run.engine.world == 1:
        disk.save_checkpoint(folder, step, run.engine.save)
    else:
        run.engine.save(folder)


def export_final(run: Run, folder: Path) -> None:
    """`checkpoints/final`: what `AutoModelForCausalLM.from_pretrained` loads, weights as safetensors, with tokenizer."""
    weights = dict(run.engine.named_weights())
    if run.engine.rank == 0:
        run.export(folder / "checkpoints" / "final", weights)


def export(model: Any, tokenizer: Any, where: Path, weights: dict[str, torch.Tensor]) -> None:
    model.save_pretrained(where, state_dict={name: tensor.cpu() for name, tensor in weights.items()})
    tokenizer.save_pretrained(where)


def validate(run: Run, prompts: Sequence[Prompt], step: int) -> dict[str, float]:
    """pass@1 at T = 1 (four samples a problem) and greedy, by the training sampler, on validation problems."""
    scores: dict[str, float] = {}
    if run.sampler is not None:
        named = [(p.problem.id, p.ids) for p in prompts]
        for name, temperature, samples in (("pass@1", 1.0, 4), ("greedy", 0.0, 1)):
            sampling = dataclasses.replace(run.sampling, temperature=temperature, samples=samples)
            rows = run.sampler.sample(named, sampling, derived_seed(run.experiment.seed, step, "validation"))
            judged = judge(run, rows, [p.problem for p in prompts for _ in range(samples)])
            scores[name] = sum(j.verdict.correct for j in judged) / len(judged)
            if name == "pass@1":
                scores["response_length"] = sum(len(j.row.response_ids) for j in judged) / len(judged)
    return next(found for found in run.engine.gather(scores) if found)


def write_samples(run: Run, folder: Path, step: int, judged: Sequence[Judged], count: int = 4) -> None:
    for j in judged[:: max(1, len(judged) // count)][:count]:
        line = {
            "step": step,
            "problem": j.problem.id,
            "question": j.problem.problem,
            "response": run.decode(j.row.response_ids),
            "answer": j.problem.answer,
            "correct": j.verdict.correct,
            "reason": j.verdict.reason,
            "finish": j.row.finish_reason,
            "tokens": len(j.row.response_ids),
        }
        disk.append_line(folder / "samples.jsonl", line)


def watch(metrics: dict[str, Any], step: int, experiment: Experiment) -> None:
    """Says early what would make a flat curve, and stops where sampler and trainer are not the same policy.

    Raises:
        UserError: the sampler's log-probabilities are far from the trainer's: the synchronisation is broken.
    """
    gap, limit = metrics.get("sampler_gap_mean"), SAMPLER_GAP_LIMIT[experiment.dtype]
    if gap is not None and gap > limit:
        raise UserError(
            f"rollout {step}: sampler and trainer differ by {gap:.3g} per token (limit {limit}): the sampler has other weights or another temperature"
        )
    if step > 3:
        return
    if metrics["truncated"] > 0.9:
        say(f"rollout {step}: {metrics['truncated']:.0%} of the responses are cut at max_new_tokens; raise it")
    if metrics["no_answer"] > 0.95:
        say(
            f"rollout {step}: almost no response holds an answer that the verifier finds; check --prompt and --extraction"
        )
    if metrics["degenerate_all_right"] + metrics["degenerate_all_wrong"] >= 1:
        say(
            f"rollout {step}: every group is all right or all wrong, so group-relative methods have nothing to learn from"
        )


def progress(metrics: dict[str, Any]) -> str:
    rate = metrics["tokens"] / max(1e-9, metrics["seconds"]["total"])
    return f"right {metrics['accuracy']:.0%}, entropy {metrics.get('entropy', float('nan')):.2f}, {rate:.0f} tokens/s"


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
