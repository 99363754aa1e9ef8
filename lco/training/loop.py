"""The loop: problems → rollouts → rewards → advantages → updates, for every method, by what it declares.

`Run` is all that a run holds; `rollout_step` is one arrow after another. No method's name appears here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.advantages import degenerate
from lco.config import Experiment
from lco.heads.linear import HIDDEN_GRADIENT
from lco.losses import LOG_RATIO_BOUND, token_scale
from lco.methods import Hyper, Method, Signal
from lco.policy import Answer, FixedPolicy, PolicyModel, RowLoss, Snapshot, Statistics, TokenLoss
from lco.problems import Problem
from lco.randomness import derived_seed
from lco.rollout.records import Batch, Row, Sampler, Sampling, collate
from lco.training.engine import Engine, Norms, Step
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
    plan = minibatches(range(len(judged)), experiment.minibatches, experiment.epochs, step, experiment.seed, unit(run))
    with clock.phase("logprobs"):
        known = before_updates(run, batch, len(plan))
        old = snapshot(run, batch, plan)
        fixed = fixed_policies(run, batch, plan)
    signal = Signal(
        rewards=torch.tensor([float(j.verdict.correct) for j in judged]),
        groups=group_numbers(judged),
        mask=batch.response_mask,
        truncated=torch.tensor([j.row.finish_reason == "length" for j in judged]),
        values=known.get("value"),
        ref_logprob=known.get("ref_logprob"),
    )
    inputs = method.advantage(signal, run.hyper)
    old_statistics = {name: value for name, value in known.items() if name.startswith("old_")}
    seen: list[Seen] = []
    probe: dict[str, float] = {}
    with clock.phase("update"):
        for number, rows in enumerate(plan):
            first = number == 0
            # On the first update π_old is π: the update's own forward serves as "old", so no kernel noise is clipped.
            constants = inputs if first else {**inputs, **old_statistics}
            kept = None if first else old
            if number == len(plan) - 1:
                probe = by_sign(run, batch, rows, constants, kept, fixed, step)
            seen.append(one_update(run, batch, rows, constants, kept, fixed))
    return {
        "updates": len(plan),
        **summarise(seen, inputs, signal),
        **method_metrics(run, batch, plan, inputs, known, seen),
        **(from_the_policy(judged, plan, seen) if run.method.source == "rollouts" else {}),
        **probe,
    }


def unit(run: Run) -> int:
    """Rows that no minibatch may separate."""
    return 2 if run.method.scope == "pair" else 1


def before_updates(run: Run, batch: Batch, updates: int) -> dict[str, Tensor]:
    """What is asked once a rollout, [B, T, …] each: the critic's values, the reference's log-probabilities, and what the
    loss reads of π_old (`old_…`) where there will be more than one update."""
    wanted = []
    if run.method.critic(run.hyper):
        wanted.append("value")
    if updates > 1:
        wanted += run.method.old(run.hyper).statistics
    known = everywhere(run, batch, lambda part: run.engine.forward(part, Statistics(wanted))) if wanted else {}
    if run.method.needs.reference:
        reference = run.fixed["reference"]
        found = everywhere(run, batch, lambda part: reference(part.to(run.engine.device), Statistics(["logprob"])))
        known["ref_logprob"] = found["logprob"]
    return known


def everywhere(run: Run, batch: Batch, ask: Callable[[Batch], Answer]) -> dict[str, Tensor]:
    """Statistics [B, T, …] of all rows on every rank, each rank asking for its share."""
    mine = []
    rows = range(len(batch.input_ids))
    for part in micro_batches(rows, run.experiment.micro_batch, run.engine.rank, run.engine.world):
        with torch.no_grad():
            answer = ask(select(batch, part.rows))
        if part.real:
            mine.append((part.rows, {name: value.cpu() for name, value in answer.statistics.items()}))
    found: dict[str, Tensor] = {}
    for share in run.engine.gather(mine):
        for indices, statistics in share:
            for name, value in statistics.items():
                if name not in found:
                    found[name] = value.new_zeros((*batch.response_mask.shape, *value.shape[2:]))
                found[name][list(indices), : value.shape[1]] = value
    return found


def snapshot(run: Run, batch: Batch, plan: Sequence[Sequence[int]]) -> dict[int, FixedPolicy]:
    """π_old of every row that this rank updates on after the first update; empty where nothing has to be kept."""
    if not run.method.old(run.hyper).whole or len(plan) == 1:
        return {}
    return remembered(run, batch, plan[1:], run.engine.forward)


def fixed_policies(run: Run, batch: Batch, plan: Sequence[Sequence[int]]) -> dict[str, dict[int, FixedPolicy]]:
    """The policies that the target reads, of every row that this rank updates on."""
    target = run.method.target(run.hyper) if run.method.target else None
    return {
        name: remembered(run, batch, plan, lambda part, asked, policy=run.fixed[name]: policy(part, asked))  # type: ignore[misc]
        for name in (target.fixed if target else ())
    }


def remembered(
    run: Run, batch: Batch, plan: Sequence[Sequence[int]], ask: Callable[[Batch, Snapshot], Answer]
) -> dict[int, FixedPolicy]:
    """Hidden states and head of a policy at the rows of `plan` that are this rank's."""
    engine, size = run.engine, run.experiment.micro_batch
    needed = sorted({row for rows in plan for part in micro_batches_of(run, rows) for row in part.rows})
    longest = max(engine.gather(len(needed)))
    kept: dict[int, FixedPolicy] = {}
    for start in range(0, longest, size):
        rows = needed[start : start + size]
        with torch.no_grad():
            old = ask(select(batch, rows or [0]).to(engine.device), Snapshot()).snapshot
        assert old is not None
        kept |= {row: old.rows([i]) for i, row in enumerate(rows)}
    return share_head(kept)


def micro_batches_of(run: Run, rows: Sequence[int]) -> list[MicroBatch]:
    """This rank's micro-batches of a minibatch."""
    engine = run.engine
    return list(micro_batches(rows, run.experiment.micro_batch, engine.rank, engine.world, unit(run)))


def share_head(kept: Mapping[int, FixedPolicy]) -> dict[int, FixedPolicy]:
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
    """What one optimizer step saw of the tokens of its minibatch, all ranks together.

    Attributes:
        totals: sums over tokens of every reported statistic, `tokens` among them, and ‖∂L/∂h‖² by sign of advantage.
        logprobs: row → log-probabilities of its sampled tokens.
    """

    step: Step
    loss: float
    totals: dict[str, float]
    logprobs: dict[int, Tensor]


Known = Mapping[str, Mapping[int, FixedPolicy]]
"""name of a fixed policy → row → its hidden states and head"""


def one_update(
    run: Run,
    batch: Batch,
    rows: Sequence[int],
    inputs: Mapping[str, Tensor],
    old: Mapping[int, FixedPolicy] | None,
    fixed: Known,
) -> Seen:
    """One optimizer step on a minibatch, in micro-batches; the divisor is the whole minibatch's."""
    scale = minibatch_scale(run, batch, rows, inputs)
    parts = micro_batches_of(run, rows)
    loss, mine = 0.0, []
    for number, part in enumerate(parts):
        request = loss_request(run, batch, part, inputs, scale, old, fixed)
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
            for name, value in totals_of(statistics, inputs["advantage"][list(indices)]).items():
                totals[name] = totals.get(name, 0.0) + value
    return Seen(step, sum(part_loss for part_loss, _ in gathered), totals, logprobs)


def totals_of(statistics: Mapping[str, Tensor], advantage: Tensor) -> dict[str, float]:
    """Sums over the tokens of a micro-batch (statistics are 0 where padded)."""
    sums = {name: float(value.double().sum()) for name, value in statistics.items() if name != HIDDEN_GRADIENT}
    slopes = statistics[HIDDEN_GRADIENT].double()
    sign = advantage[:, : slopes.shape[1]]
    return {
        **sums,
        "hidden_gradient_positive": float(slopes[sign > 0].sum()),
        "hidden_gradient_negative": float(slopes[sign < 0].sum()),
    }


def minibatch_scale(run: Run, batch: Batch, rows: Sequence[int], inputs: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """row → [T] weights of its tokens; their divisor is that of the whole minibatch."""
    chosen = list(rows)
    scale = token_scale(batch.response_mask[chosen], run.method.reduction, inputs["advantage"][chosen])
    return dict(zip(chosen, scale, strict=True))


def loss_request(
    run: Run,
    batch: Batch,
    part: MicroBatch,
    inputs: Mapping[str, Tensor],
    scale: Mapping[int, Tensor],
    old: Mapping[int, FixedPolicy] | None,
    fixed: Known,
) -> TokenLoss | RowLoss:
    """The method's loss on one micro-batch, as the request that its scope asks for."""
    method, rows, device = run.method, list(part.rows), run.engine.device
    width = max(1, int(batch.response_lengths[rows].max()))
    kind = TokenLoss if method.scope == "token" else RowLoss
    return kind(
        function=method.loss(run.hyper),
        statistics=method.statistics(run.hyper),
        inputs={name: value[rows, :width].to(device) for name, value in inputs.items()},
        scale=torch.stack([scale[row] for row in rows])[:, :width].to(device) * part.real,
        old=of_rows(old, rows) if old else None,
        report=reported(method, run.hyper),
        value_function=method.value_loss(run.hyper) if method.value_loss else None,
        target=method.target(run.hyper) if method.target else None,
        fixed={name: of_rows(policy, rows) for name, policy in fixed.items()},
    )


def of_rows(policy: Mapping[int, FixedPolicy], rows: Sequence[int]) -> FixedPolicy:
    first = policy[rows[0]]
    return FixedPolicy(tuple(h for row in rows for h in policy[row].hidden), first.weight, first.bias)


def reported(method: Method, hyper: Hyper) -> tuple[str, ...]:
    """The statistics that every update logs; of LCO's target as far as the method keeps what they need."""
    names = ["logprob", "entropy", HIDDEN_GRADIENT]
    old, read = method.old(hyper), method.statistics(hyper)
    if method.target is not None:
        names += ["tilt_clamped", "target_tv", "target_kl"]
    if old.whole:
        names += ["kl_old", *(["kl_target"] if method.target is not None else [])]
    return (*names, *(name for name in read if name.startswith("outside_top")))


def by_sign(
    run: Run,
    batch: Batch,
    rows: Sequence[int],
    inputs: Mapping[str, Tensor],
    old: Mapping[int, FixedPolicy] | None,
    fixed: Known,
    step: int,
) -> dict[str, float]:
    """Every `diagnose_every` rollouts: the norm of the parameters' gradient on one micro-batch, from the tokens with
    positive and with negative advantage apart, as the rollout's last update finds it; and the released code's statistic."""
    every = run.experiment.diagnose_every
    if not every or (step + 1) % every:
        return {}
    part = micro_batches_of(run, rows)[0]
    scale = minibatch_scale(run, batch, rows, inputs)

    def norms(weights: Mapping[int, Tensor]) -> Norms:
        request = loss_request(run, batch, part, inputs, weights, old, fixed)
        return run.engine.probe(select(batch, part.rows), request)

    def of_sign(sign: int) -> dict[int, Tensor]:
        return {row: scale[row] * (sign * inputs["advantage"][row] > 0) for row in part.rows}

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


def log_ratios(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> Tensor:
    """log p of the trainer − log p of the sampler, one per sampled token of an update (empty for demonstrations)."""
    known = [row for row in rows if judged[row].row.logprobs]
    parts = [seen.logprobs[row].float() - torch.tensor(judged[row].row.logprobs) for row in known]
    return torch.cat(parts) if parts else torch.zeros(0)


def from_the_policy(judged: Sequence[Judged], plan: Sequence[Sequence[int]], seen: Sequence[Seen]) -> dict[str, Any]:
    """What compares trainer and sampler, where the rows are the policy's own."""
    return {**agreement(judged, plan[0], seen[0]), **drift(judged, plan[-1], seen[-1])}


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


OF_THE_LAST = {"kl_old": "kl_old_exact", "kl_target": "kl_target"}
"""Divergences are the last update's, where they are largest; other statistics are means over all updates. `kl_old` in the
metrics is every method's estimate on sampled tokens, so the exact one has a name of its own."""

BY_SIGN = {"hidden_gradient_positive", "hidden_gradient_negative"}
"""‖∂L/∂h‖ over the tokens of one sign of advantage: root mean square over the updates."""


def summarise(seen: Sequence[Seen], inputs: Mapping[str, Tensor], signal: Signal) -> dict[str, Any]:
    """Token-weighted means over the step's updates; the divergence is the last update's, where it is largest."""
    tokens = max(1.0, sum(s.totals["tokens"] for s in seen))

    def mean(name: str) -> float:
        return sum(s.totals[name] for s in seen) / tokens

    norms = [s.step.gradient_norm for s in seen]
    advantage = inputs["advantage"][signal.mask]
    metrics = {
        "loss": sum(s.loss for s in seen) / len(seen),
        "gradient_norm": sum(norms) / len(norms),
        "gradient_norm_max": max(norms),
        "updates_skipped": sum(not s.step.applied for s in seen),
        **{name: mean(name) for name in seen[-1].totals if name not in {"tokens", *OF_THE_LAST, *BY_SIGN}},
        **{
            shown: seen[-1].totals[name] / max(1.0, seen[-1].totals["tokens"])
            for name, shown in OF_THE_LAST.items()
            if name in seen[-1].totals
        },
        **{name: math.sqrt(sum(s.totals[name] for s in seen) / len(seen)) for name in BY_SIGN},
        "advantage_positive": float((advantage > 0).float().mean()) if len(advantage) else None,
        "lr": seen[-1].step.lr,
    }
    if "return" in inputs and signal.values is not None:
        target = inputs["return"][signal.mask]
        spread = float(target.var(correction=0)) if len(target) else 0.0
        left = float((target - signal.values[signal.mask]).var(correction=0)) if len(target) else 0.0
        metrics["explained_variance"] = 1 - left / spread if spread > 0 else None
    return metrics
