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

from lco.advantages import degenerate
from lco.advantages.sparse import TILT_BOUND
from lco.config import Experiment
from lco.losses import LOG_RATIO_BOUND, token_scale
from lco.methods import Hyper, Method, Signal
from lco.policy import OldPolicy, RowLoss, Snapshot, Statistics, TokenLoss
from lco.problems import Problem
from lco.randomness import derived_seed
from lco.rollout.records import Batch, Row, Sampler, Sampling, collate
from lco.training.engine import Engine, Step
from lco.training.plan import MicroBatch, micro_batches, minibatches, prompt_indices
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


@dataclass
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Judged:
    """A row with its verdict."""

    row: Row
    problem: Problem
    verdict: Verdict


def rollout_step(run: Run, step: int) -> tuple[dict[str, Any], list[Judged]]:
    """Rollout number `step` (from 0) and its updates. Returns its metrics and all rows, identical on every rank."""
    clock = Clock()
    judged = demonstrated(run, step) if run.method.source == "demonstrations" else sampled(run, step, clock)
    signal_rows = [j for j in judged if j.verdict.correct or not run.method.needs.verified_only]
    metrics = describe(judged)
    if signal_rows:
        metrics |= update(run, signal_rows, step, clock)
        with clock.phase("sync"):
            synchronise(run)
    else:
        metrics |= {"updates": 0, "skipped": "no row left to learn from"}
    metrics["seconds"] = {name: round(value, 4) for name, value in clock.seconds.items()}
    return {"step": step + 1, **metrics}, judged


def synchronise(run: Run) -> None:
    """Gives the sampler the trainer's weights. Under ZeRO-3 every rank takes part in gathering them."""
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


def group_numbers(judged: Sequence[Judged]) -> Tensor:
    """[B]: rows with one group id share a number."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(j.row.group, len(numbers)) for j in judged])


def describe(judged: Sequence[Judged]) -> dict[str, Any]:
    """What the rollout looks like, before any update."""
    rewards = torch.tensor([float(j.verdict.correct) for j in judged])
    lengths = torch.tensor([len(j.row.response_ids) for j in judged], dtype=torch.float32)
    groups = group_numbers(judged)
    flat = degenerate(rewards, groups)
    return {
        "accuracy": float(rewards.mean()),
        "response_length": float(lengths.mean()),
        "length_right": float(lengths[rewards > 0].mean()) if (rewards > 0).any() else None,
        "length_wrong": float(lengths[rewards == 0].mean()) if (rewards == 0).any() else None,
        "truncated": sum(j.row.finish_reason == "length" for j in judged) / len(judged),
        "no_answer": sum(j.verdict.extracted is None and not j.verdict.correct for j in judged) / len(judged),
        "degenerate_all_right": float((flat & (rewards > 0)).float().mean()),
        "degenerate_all_wrong": float((flat & (rewards == 0)).float().mean()),
        "tokens": int(lengths.sum()),
        "rows": len(judged),
    }


def update(run: Run, judged: Sequence[Judged], step: int, clock: Clock) -> dict[str, Any]:
    """All optimizer steps of one rollout."""
    experiment, method = run.experiment, run.method
    batch = collate([j.row for j in judged])
    plan = minibatches(range(len(judged)), experiment.minibatches, experiment.epochs, step, experiment.seed)
    with clock.phase("logprobs"):
        values, old_logprobs = before_updates(run, batch, len(plan))
        old = snapshot(run, batch, plan)
    signal = Signal(
        rewards=torch.tensor([float(j.verdict.correct) for j in judged]),
        groups=group_numbers(judged),
        mask=batch.response_mask,
        truncated=torch.tensor([j.row.finish_reason == "length" for j in judged]),
        values=values,
    )
    inputs = method.advantage(signal, run.hyper)
    seen: list[Seen] = []
    with clock.phase("update"):
        for number, rows in enumerate(plan):
            first = number == 0
            # On the first update π_old is π: the update's own forward serves as "old", so no kernel noise is clipped.
            constants = inputs if first or old_logprobs is None else {**inputs, "old_logprob": old_logprobs}
            seen.append(one_update(run, batch, rows, constants, None if first else old))
    return {
        "updates": len(plan),
        **summarise(seen, inputs, signal),
        **agreement(judged, plan[0], seen[0]),
        **drift(judged, plan[-1], seen[-1]),
    }


def before_updates(run: Run, batch: Batch, updates: int) -> tuple[Tensor | None, Tensor | None]:
    """The critic's values and the old log-probabilities [B, T], where the method needs them."""
    wanted = []
    if run.method.needs.critic:
        wanted.append("value")
    if run.method.needs.old == "logprob" and updates > 1:
        wanted.append("logprob")
    if not wanted:
        return None, None
    found = {name: torch.zeros(batch.response_mask.shape) for name in wanted}
    mine = []
    rows = range(len(batch.input_ids))
    for part in micro_batches(rows, run.experiment.micro_batch, run.engine.rank, run.engine.world):
        with torch.no_grad():
            answer = run.engine.forward(select(batch, part.rows), Statistics(wanted))
        if part.real:
            mine.append((part.rows, {name: value.float().cpu() for name, value in answer.statistics.items()}))
    for share in run.engine.gather(mine):
        for indices, statistics in share:
            for name, value in statistics.items():
                found[name][list(indices), : value.shape[1]] = value
    return found.get("value"), found.get("logprob")


def snapshot(run: Run, batch: Batch, plan: Sequence[Sequence[int]]) -> dict[int, OldPolicy] | None:
    """π_old of every row that this rank updates on after the first update, or None where nothing has to be kept."""
    if run.method.needs.old != "distribution" or len(plan) == 1:
        return None
    engine, size = run.engine, run.experiment.micro_batch
    needed = sorted({row for rows in plan[1:] for row in rows[engine.rank :: engine.world]})
    longest = max(engine.gather(len(needed)))
    kept: dict[int, OldPolicy] = {}
    for start in range(0, longest, size):
        rows = needed[start : start + size]
        with torch.no_grad():
            old = engine.forward(select(batch, rows or [0]), Snapshot()).snapshot
        assert old is not None
        kept |= {row: old.rows([i]) for i, row in enumerate(rows)}
    return share_head(kept)


def share_head(kept: Mapping[int, OldPolicy]) -> dict[int, OldPolicy]:
    """One copy of the head for all rows: every snapshot of a rollout was taken from the same weights."""
    if not kept:
        return {}
    first = next(iter(kept.values()))
    return {row: replace(old, weight=first.weight, bias=first.bias) for row, old in kept.items()}


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, cut to their own longest prompt + response."""
    index = torch.tensor(list(rows))
    responses = batch.response_lengths[index]
    width = int((batch.prompt_lengths[index] + responses).max())
    longest = max(1, int(responses.max()))
    return Batch(
        batch.input_ids[index, :width],
        batch.attention_mask[index, :width],
        batch.prompt_lengths[index],
        responses,
        batch.response_ids[index, :longest],
        batch.response_mask[index, :longest],
    )


@dataclass(frozen=True)
class Seen:
    """What one optimizer step saw: totals over the tokens of its minibatch, all ranks together."""

    step: Step
    loss: float
    totals: dict[str, float]
    logprobs: dict[int, Tensor]


def one_update(
    run: Run, batch: Batch, rows: Sequence[int], inputs: Mapping[str, Tensor], old: Mapping[int, OldPolicy] | None
) -> Seen:
    """One optimizer step on a minibatch, in micro-batches; the divisor is the whole minibatch's."""
    scale = token_scale(batch.response_mask[list(rows)], run.method.reduction)
    position = {row: i for i, row in enumerate(rows)}
    parts = list(micro_batches(rows, run.experiment.micro_batch, run.engine.rank, run.engine.world))
    loss, mine = 0.0, []
    for number, part in enumerate(parts):
        request = loss_request(run, batch, part, inputs, scale[[position[row] for row in part.rows]], old)
        answer = run.engine.forward(select(batch, part.rows), request)
        assert answer.loss is not None
        run.engine.backward(answer.loss, last=number == len(parts) - 1)
        loss += float(answer.loss.detach())
        if part.real:
            mine.append((part.rows, {name: value.cpu() for name, value in answer.statistics.items()}))
    step = run.engine.step()
    gathered = run.engine.gather((loss, mine))
    logprobs, totals = {}, {"entropy": 0.0, "logprob": 0.0, "tokens": 0.0}
    for _, share in gathered:
        for indices, statistics in share:
            count = [int(batch.response_lengths[row]) for row in indices]
            for i, row in enumerate(indices):
                logprobs[row] = statistics["logprob"][i, : count[i]]
            totals["tokens"] += sum(count)
            totals["entropy"] += float(statistics["entropy"].sum())
            totals["logprob"] += float(statistics["logprob"].sum())
    return Seen(step, sum(part_loss for part_loss, _ in gathered), totals, logprobs)


def loss_request(
    run: Run,
    batch: Batch,
    part: MicroBatch,
    inputs: Mapping[str, Tensor],
    scale: Tensor,
    old: Mapping[int, OldPolicy] | None,
) -> TokenLoss | RowLoss:
    """The method's loss on one micro-batch, as the request that its scope asks for."""
    method, rows, device = run.method, list(part.rows), run.engine.device
    width = max(1, int(batch.response_lengths[rows].max()))
    policy = None
    if old:
        first = old[rows[0]]
        policy = OldPolicy(tuple(h for row in rows for h in old[row].hidden), first.weight, first.bias)
    kind = TokenLoss if method.scope == "token" else RowLoss
    return kind(
        function=method.loss(run.hyper),
        statistics=method.statistics(run.hyper),
        inputs={name: value[rows, :width].to(device) for name, value in inputs.items()},
        scale=scale[:, :width].to(device) * part.real,
        old=policy,
        report=("logprob", "entropy"),
        value_function=method.value_loss(run.hyper) if method.value_loss else None,
    )


def log_ratios(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> Tensor:
    """log p of the trainer − log p of the sampler, one per sampled token of an update (empty for demonstrations)."""
    known = [row for row in rows if judged[row].row.logprobs]
    parts = [seen.logprobs[row].float() - torch.tensor(judged[row].row.logprobs) for row in known]
    return torch.cat(parts) if parts else torch.zeros(0)


def agreement(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> dict[str, Any]:
    """How far trainer and sampler are apart on the first update's tokens, where both are the same policy."""
    gap = log_ratios(judged, rows, seen).abs()
    return {"sampler_gap_mean": float(gap.mean()), "sampler_gap_max": float(gap.max())} if len(gap) else {}


def drift(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> dict[str, Any]:
    """How far the last update's policy has left the one that sampled: KL(π_old ‖ π) by its k3 estimate on the sampled
    tokens, r − 1 − log r, and the share of tokens whose ratio r left [0.8, 1.2]."""
    x = log_ratios(judged, rows, seen).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    if not len(x):
        return {}
    return {
        "kl_old": float((torch.expm1(x) - x).mean()),
        "ratio_outside": float(((x.exp() - 1).abs() > 0.2).float().mean()),
    }


def summarise(seen: Sequence[Seen], inputs: Mapping[str, Tensor], signal: Signal) -> dict[str, Any]:
    """Token-weighted means over the step's updates; the divergence is the last update's, where it is largest."""
    tokens = sum(s.totals["tokens"] for s in seen)
    norms = [s.step.gradient_norm for s in seen]
    advantage = inputs["advantage"][signal.mask]
    metrics = {
        "loss": sum(s.loss for s in seen) / len(seen),
        "gradient_norm": sum(norms) / len(norms),
        "gradient_norm_max": max(norms),
        "updates_skipped": sum(not s.step.applied for s in seen),
        "entropy": sum(s.totals["entropy"] for s in seen) / max(1.0, tokens),
        "logprob": sum(s.totals["logprob"] for s in seen) / max(1.0, tokens),
        "advantage_positive": float((advantage > 0).float().mean()) if len(advantage) else None,
        "lr": seen[-1].step.lr,
    }
    if "tilt" in inputs:
        metrics["tilt_clamped"] = float((inputs["tilt"][signal.mask].abs() >= TILT_BOUND).float().mean())
    if "return" in inputs and signal.values is not None:
        target = inputs["return"][signal.mask]
        spread = float(target.var(correction=0)) if len(target) else 0.0
        left = float((target - signal.values[signal.mask]).var(correction=0)) if len(target) else 0.0
        metrics["explained_variance"] = 1 - left / spread if spread > 0 else None
    return metrics
