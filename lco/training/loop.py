"""The loop: problems → rollouts → rewards → advantages → updates, for every method, by what it declares.

`Run` is all that a run holds; `rollout_step` is one arrow after another. No method's name appears here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.config import Experiment
from lco.heads.linear import HIDDEN_GRADIENT
from lco.losses import token_scale
from lco.methods import Hyper, Method, Signal
from lco.policy import FixedPolicy, PolicyModel, RowLoss, TokenLoss
from lco.problems import Problem
from lco.randomness import derived_seed
from lco.rollout.records import Batch, Row, Sampler, Sampling, collate, select
from lco.training.engine import Engine, Norms
from lco.training.known import (
    Known,
    before_updates,
    fixed_policies,
    micro_batches_of,
    of_rows,
    snapshot,
    unit,
)
from lco.training.metrics import (
    Judged,
    Seen,
    describe,
    from_the_policy,
    group_numbers,
    summarise,
    totals_of,
)
from lco.training.plan import MicroBatch, minibatches, prompt_indices
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
    judged = demonstrated(run, step) if run.method.source == "demonstrations" else sampled(run, step, clock)
    metrics = describe(judged)
    rows = rows_to_learn_from(run.method, judged)
    if rows:
        metrics |= update(run, rows, step, clock)
        with clock.phase("sync"):
            synchronise(run)
    else:
        metrics |= {"updates": 0, "skipped": "no row left to learn from"}
    metrics["seconds"] = {name: round(value, 4) for name, value in clock.seconds.items()}
    return {"step": step + 1, **metrics}, judged


def rows_to_learn_from(method: Method, judged: Sequence[Judged]) -> list[Judged]:
    """The rows that the updates see: all; the right ones; or pairs, row 2i right and row 2i + 1 wrong."""
    if method.source == "pairs":
        return pairs(judged)
    return [j for j in judged if j.verdict.correct or not method.needs.verified_only]


def pairs(judged: Sequence[Judged]) -> list[Judged]:
    """Right against wrong answers to one prompt, each used at most once; empty responses and lone sides are left out."""
    sides: dict[str, tuple[list[Judged], list[Judged]]] = {}
    for j in judged:
        if j.row.response_ids:
            sides.setdefault(j.row.group, ([], []))[not j.verdict.correct].append(j)
    return [row for right, wrong in sides.values() for pair in zip(right, wrong, strict=False) for row in pair]


def synchronise(run: Run) -> None:
    """Gives the sampler the trainer's weights. Under ZeRO-3 every rank takes part in gathering them.

    The sampler of preference pairs is the reference policy's and keeps its weights.
    """
    if run.method.source == "pairs":
        return
    weights = run.engine.named_weights()
    if run.sampler is not None:
        run.sampler.sync(weights)
    for _ in weights:
        pass


def demonstrated(run: Run, step: int) -> list[Judged]:
    """As many rows as a rollout has, one worked solution per problem."""
    chosen = prompt_indices(len(run.prompts), run.experiment.rows_per_step, step, run.experiment.seed)
    verdict = Verdict(True, None, "demonstration", 0.0)
    rows = []
    for i in chosen:
        prompt, response = run.prompts[i], run.demonstrations[i]
        rows.append(Judged(Row(prompt.problem.id, prompt.ids, response, "stop", ()), prompt.problem, verdict))
    return rows


def sampled(run: Run, step: int, clock: Clock) -> list[Judged]:
    """A rollout, verified. Ranks that have a sampler share the prompts; all ranks get all rows."""
    engine, experiment = run.engine, run.experiment
    chosen = [
        run.prompts[i] for i in prompt_indices(len(run.prompts), experiment.prompts_per_step, step, experiment.seed)
    ]
    samplers = [rank for rank, has in enumerate(engine.gather(run.sampler is not None)) if has]
    mine: list[Judged] = []
    if run.sampler is not None:
        share = chosen[samplers.index(engine.rank) :: len(samplers)]
        with clock.phase("generation"):
            seed = derived_seed(experiment.seed, step, f"rollout/{engine.rank}")
            # The position makes groups unique where a small set repeats a problem within one rollout.
            first, stride = samplers.index(engine.rank), len(samplers)
            named = [(f"{p.problem.id}#{first + i * stride}", p.ids) for i, p in enumerate(share)]
            rows = run.sampler.sample(named, run.sampling, seed)
        with clock.phase("reward"):
            problems = [p.problem for p in share for _ in range(run.sampling.samples)]
            mine = judge(run, rows, problems)
    shares = engine.gather(mine)
    samples = run.sampling.samples
    return [
        judged
        for i in range(len(chosen))
        for judged in _group(shares[samplers[i % len(samplers)]], i // len(samplers), samples)
    ]


def _group(rows: Sequence[Judged], index: int, samples: int) -> Sequence[Judged]:
    return rows[index * samples : (index + 1) * samples]


def judge(run: Run, rows: Sequence[Row], problems: Sequence[Problem]) -> list[Judged]:
    texts = [run.decode(row.response_ids) for row in rows]
    verdicts = run.verify([(text, problem.answer) for text, problem in zip(texts, problems, strict=True)])
    return [Judged(*triple) for triple in zip(rows, problems, verdicts, strict=True)]


def update(run: Run, judged: Sequence[Judged], step: int, clock: Clock) -> dict[str, Any]:
    """All optimizer steps of one rollout."""
    experiment, method = run.experiment, run.method
    batch = collate([j.row for j in judged])
    plan = minibatches(range(len(judged)), experiment.minibatches, experiment.epochs, step, experiment.seed, unit(run))
    with clock.phase("logprobs"):
        known = before_updates(run, batch, len(plan))
        old = snapshot(run, batch, plan)
        fixed = fixed_policies(run, batch, plan)
    signal = signal_of(judged, batch, known)
    inputs = method.advantage(signal, run.hyper)
    first, later = Frozen(batch, inputs, {}, fixed), Frozen(batch, {**inputs, **old_statistics(known)}, old, fixed)
    seen: list[Seen] = []
    probe: dict[str, float] = {}
    with clock.phase("update"):
        for number, rows in enumerate(plan):
            # On the first update π_old is π: the update's own forward serves as "old", so no kernel noise is clipped.
            frozen = later if number else first
            if number == len(plan) - 1:
                probe = by_sign(run, frozen, rows, step)
            seen.append(one_update(run, frozen, rows))
    return {
        "updates": len(plan),
        **summarise(seen, inputs, signal),
        **method_metrics(run, batch, plan, inputs, known, seen),
        **(from_the_policy(judged, plan, seen) if run.method.source == "rollouts" else {}),
        **probe,
    }


@dataclass(frozen=True)
class Frozen:
    """What stays as it is while a rollout's updates run.

    Attributes:
        batch: all rows.
        inputs: the loss's constants, [B, T, …].
        old: π_old by row; empty where it is the current policy or nothing has to be kept.
        fixed: the policies that the target reads.
    """

    batch: Batch
    inputs: Mapping[str, Tensor]
    old: Mapping[int, FixedPolicy]
    fixed: Known


def signal_of(judged: Sequence[Judged], batch: Batch, known: Mapping[str, Tensor]) -> Signal:
    """What the method's advantage may read."""
    return Signal(
        rewards=torch.tensor([float(j.verdict.correct) for j in judged]),
        groups=group_numbers(judged),
        mask=batch.response_mask,
        truncated=torch.tensor([j.row.finish_reason == "length" for j in judged]),
        values=known.get("value"),
        ref_logprob=known.get("ref_logprob"),
    )


def old_statistics(known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is known of π_old as scalars, for the updates after the first."""
    return {name: value for name, value in known.items() if name.startswith("old_")}


def one_update(run: Run, frozen: Frozen, rows: Sequence[int]) -> Seen:
    """One optimizer step on a minibatch, in micro-batches; the divisor is the whole minibatch's."""
    batch, scale = frozen.batch, minibatch_scale(run, frozen, rows)
    parts = micro_batches_of(run, rows)
    loss, mine = 0.0, []
    for number, part in enumerate(parts):
        request = loss_request(run, frozen, part, scale)
        answer = run.engine.forward(select(batch, part.rows), request)
        assert answer.loss is not None
        run.engine.backward(answer.loss, last=number == len(parts) - 1)
        loss += float(answer.loss.detach())
        if part.real:
            mine.append((part.rows, {name: value.cpu() for name, value in answer.statistics.items()}))
    step = run.engine.step()
    gathered = run.engine.gather((loss, mine))
    logprobs: dict[int, Tensor] = {}
    totals: dict[str, float] = {"tokens": 0.0}
    for _, share in gathered:
        for indices, statistics in share:
            count = [int(batch.response_lengths[row]) for row in indices]
            for i, row in enumerate(indices):
                logprobs[row] = statistics["logprob"][i, : count[i]]
            totals["tokens"] += sum(count)
            for name, value in totals_of(statistics, frozen.inputs["advantage"][list(indices)]).items():
                totals[name] = totals.get(name, 0.0) + value
    return Seen(step, sum(part_loss for part_loss, _ in gathered), totals, logprobs)


def minibatch_scale(run: Run, frozen: Frozen, rows: Sequence[int]) -> dict[int, Tensor]:
    """row → [T] weights of its tokens; their divisor is that of the whole minibatch."""
    chosen = list(rows)
    scale = token_scale(frozen.batch.response_mask[chosen], run.method.reduction, frozen.inputs["advantage"][chosen])
    return dict(zip(chosen, scale, strict=True))


def loss_request(run: Run, frozen: Frozen, part: MicroBatch, scale: Mapping[int, Tensor]) -> TokenLoss | RowLoss:
    """The method's loss on one micro-batch, as the request that its scope asks for."""
    method, rows, device = run.method, list(part.rows), run.engine.device
    width = max(1, int(frozen.batch.response_lengths[rows].max()))
    kind = TokenLoss if method.scope == "token" else RowLoss
    return kind(
        function=method.loss(run.hyper),
        statistics=method.statistics(run.hyper),
        inputs={name: value[rows, :width].to(device) for name, value in frozen.inputs.items()},
        scale=torch.stack([scale[row] for row in rows])[:, :width].to(device) * part.real,
        old=of_rows(frozen.old, rows) if frozen.old else None,
        report=reported(method, run.hyper),
        value_function=method.value_loss(run.hyper) if method.value_loss else None,
        target=method.target(run.hyper) if method.target else None,
        fixed={name: of_rows(policy, rows) for name, policy in frozen.fixed.items()},
    )


def reported(method: Method, hyper: Hyper) -> tuple[str, ...]:
    """The statistics that every update logs; of LCO's target as far as the method keeps what they need."""
    names = ["logprob", "entropy", HIDDEN_GRADIENT]
    old, read = method.old(hyper), method.statistics(hyper)
    if method.target is not None:
        names += ["tilt_clamped", "target_tv", "target_kl"]
    if old.whole:
        names += ["kl_old", *(["kl_target"] if method.target is not None else [])]
    return (*names, *(name for name in read if name.startswith("outside_top")))


def by_sign(run: Run, frozen: Frozen, rows: Sequence[int], step: int) -> dict[str, float]:
    """Every `diagnose_every` rollouts: the norm of the parameters' gradient on one micro-batch, from the tokens with
    positive and with negative advantage apart, as the rollout's last update finds it; and the released code's statistic."""
    every = run.experiment.diagnose_every
    if not every or (step + 1) % every:
        return {}
    part, scale = micro_batches_of(run, rows)[0], minibatch_scale(run, frozen, rows)

    def norms(weights: Mapping[int, Tensor]) -> Norms:
        request = loss_request(run, frozen, part, weights)
        return run.engine.probe(select(frozen.batch, part.rows), request)

    def of_sign(sign: int) -> dict[int, Tensor]:
        return {row: scale[row] * (sign * frozen.inputs["advantage"][row] > 0) for row in part.rows}

    return {
        "gradient_norm_positive": norms(of_sign(1)).whole,
        "gradient_norm_negative": norms(of_sign(-1)).whole,
        "gradient_norm_projections": norms(scale).projections,
    }


def method_metrics(
    run: Run,
    batch: Batch,
    plan: Sequence[Sequence[int]],
    inputs: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    seen: Sequence[Seen],
) -> dict[str, float]:
    """What the method itself wants logged, of the last minibatch."""
    if run.method.metrics is None:
        return {}
    rows = list(plan[-1])
    mask = batch.response_mask[rows]
    logprob = torch.zeros(mask.shape)
    for i, row in enumerate(rows):
        logprob[i, : len(seen[-1].logprobs[row])] = seen[-1].logprobs[row].float()
    old = known["old_logprob"][rows] if "old_logprob" in known else logprob
    constants = {name: value[rows] for name, value in inputs.items()}
    return run.method.metrics({"logprob": logprob, "old_logprob": old}, constants, mask, run.hyper)
