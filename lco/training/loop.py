"""The loop: problems → rollouts → rewards → advantages → updates, for every method, by what it declares.

`Run` is all that a run holds; `rollout_step` is one arrow after another. No method's name appears here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.config import Experiment
from lco.methods import Hyper, Method, Signal
from lco.models import checkpoint_weights
from lco.policy import PolicyModel
from lco.problems import Problem
from lco.rollout.records import Batch, Sampler, Sampling, collate
from lco.training.collect import comparable, demonstrated, kept, sampled, signal_of
from lco.training.critic import critic_update, train_critic_alone
from lco.training.engine import Engine
from lco.training.known import before_updates, fixed_policies, snapshot, unit
from lco.training.metrics import Judged, Seen, describe, from_the_policy, summarise
from lco.training.plan import minibatches
from lco.training.update import Frozen, by_sign, one_update, prepared
from lco.verifier import Verdict


@dataclass(frozen=True)
class Prompt:
    problem: Problem
    ids: tuple[int, ...]


@dataclass
class Run:
    """All state of a run besides the step number.

    Attributes:
        prompts: training prompts, none too long.
        demonstrations: worked solutions as ids, ending with a token on which the sampler stops; one per prompt.
        sampler: this rank's sampler, or None where another rank samples for it.
        verify: (response text, reference answer) pairs → verdicts.
        decode: ids → text.
        export: (folder, weights) → a model folder that transformers loads.
        fixed: the policies that do not learn, by name: reference, verifier, dpo.
        critic: the engine of a critic that is a model of its own; None where a value head stands on the policy's body.
        history: mean reward of every rollout so far.
    """

    experiment: Experiment
    method: Method
    hyper: Hyper
    engine: Engine
    prompts: Sequence[Prompt]
    demonstrations: Sequence[tuple[int, ...]]
    sampler: Sampler | None
    sampling: Sampling
    verify: Callable[[Sequence[tuple[str, str]]], Sequence[Verdict]]
    decode: Callable[[Sequence[int]], str]
    export: Callable[[Path, dict[str, Tensor]], None]
    fixed: Mapping[str, PolicyModel] = field(default_factory=dict)
    critic: Engine | None = None
    history: list[float] = field(default_factory=list)


@dataclass
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def rollout_step(run: Run, step: int) -> tuple[dict[str, Any], list[Judged]]:
    """Rollout number `step` (from 0) and its updates. Returns its metrics and all rows, identical on every rank."""
    clock = Clock()
    drawn: dict[str, Any] = {}
    if run.method.source == "demonstrations":
        judged = demonstrated(run, step)
    else:
        judged, drawn = sampled(run, step, clock)
    metrics = {**describe(judged), **drawn}
    rows = comparable(run, judged)
    if rows and bool(kept(run, signal_of(run, rows)).any()):
        metrics |= update(run, rows, step, clock)
        with clock.phase("sync"):
            synchronise(run)
    else:
        metrics |= {"updates": 0, "skipped": "no row left to learn from"}
    if "accuracy" in metrics:
        run.history.append(metrics["accuracy"])
    metrics["seconds"] = {name: round(value, 4) for name, value in clock.seconds.items()}
    return {"step": step + 1, **metrics}, judged


def synchronise(run: Run) -> None:
    """Gives the sampler the trainer's weights. Under ZeRO-3 every rank takes part in gathering them.

    The sampler of preference pairs is the reference policy's and keeps its weights.
    """
    if run.method.source == "pairs":
        return
    weights = run.engine.named_weights()
    if run.sampler is not None:
        run.sampler.sync(checkpoint_weights(run.engine.policy.model, weights))
    for _ in weights:
        pass


def update(run: Run, judged: Sequence[Judged], step: int, clock: Clock) -> dict[str, Any]:
    """All optimizer steps of one rollout. Advantages come from all rows, the updates see those that the method keeps."""
    experiment, method = run.experiment, run.method
    batch = collate([j.row for j in judged])
    signal = signal_of(run, judged)
    chosen = kept(run, signal).nonzero().flatten().tolist()
    plan = minibatches(chosen, experiment.minibatches, experiment.epochs, step, experiment.seed, unit(run))
    with clock.phase("logprobs"):
        signal, first, later = freeze(run, batch, signal, plan)
    if step < method.needs(run.hyper).critic_warmup:
        with clock.phase("update"):
            return train_critic_alone(run, first, plan)
    seen: list[Seen] = []
    probe: dict[str, float] = {}
    with clock.phase("update"):
        for number, rows in enumerate(plan):
            # On the first update π_old is π: the update's own forward serves as "old", so no kernel noise is clipped.
            frozen = prepared(run, later if number else first, rows)
            if number == len(plan) - 1:
                probe = by_sign(run, frozen, rows, step)
            seen.append(one_update(run, frozen, rows))
            if run.critic is not None:
                critic_update(run, run.critic, frozen, rows)
    return {
        "updates": len(plan),
        "rows_kept": len(chosen),
        **summarise(seen, first.inputs, signal, chosen),
        **method_metrics(run, later, plan[-1], seen[-1]),
        **(from_the_policy(judged, plan, seen) if run.method.source == "rollouts" else {}),
        **probe,
    }


def freeze(run: Run, batch: Batch, signal: Signal, plan: Sequence[Sequence[int]]) -> tuple[Signal, Frozen, Frozen]:
    """(what the advantages were computed from, what is constant in the first update, and in the later ones).

    In the first one π_old is the policy itself; the later ones need what was asked of it before.
    """
    known = before_updates(run, batch, plan)
    old, fixed = snapshot(run, batch, plan), fixed_policies(run, batch, plan)
    signal = replace(
        signal,
        values=known.get("value"),
        ref_logprob=known.get("ref_logprob"),
        old_logprob=known.get("old_logprob"),
    )
    inputs = run.method.advantage(signal, run.hyper)
    scalars = {name: value for name, value in known.items() if name.startswith("old_")}
    return signal, Frozen(batch, inputs, {}, fixed), Frozen(batch, {**inputs, **scalars}, old, fixed)


def method_metrics(run: Run, frozen: Frozen, rows: Sequence[int], seen: Seen) -> dict[str, float]:
    """What the method itself wants logged, of the last minibatch."""
    if run.method.metrics is None:
        return {}
    chosen = list(rows)
    mask = frozen.batch.response_mask[chosen]
    logprob = torch.zeros(mask.shape)
    for i, row in enumerate(chosen):
        logprob[i, : len(seen.logprobs[row])] = seen.logprobs[row].float()
    constants = {name: value[chosen] for name, value in frozen.inputs.items()}
    statistics = {"logprob": logprob, "old_logprob": constants.get("old_logprob", logprob)}
    return run.method.metrics(statistics, constants, mask, run.hyper)
