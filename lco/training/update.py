"""One optimizer step on a minibatch of a rollout: its micro-batches, the request that each makes, and its diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lco.heads.linear import HIDDEN_GRADIENT
from lco.losses import token_scale
from lco.methods import Hyper, Method
from lco.policy import FixedPolicy, RowLoss, Statistics, TokenLoss
from lco.rollout.records import Batch, select
from lco.training.engine import Norms
from lco.training.known import Known, everywhere, micro_batches_of, of_rows
from lco.training.metrics import Seen, totals_of
from lco.training.plan import MicroBatch

if TYPE_CHECKING:
    from lco.training.loop import Run


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


def prepared(run: Run, frozen: Frozen, rows: Sequence[int]) -> Frozen:
    """With the constants that the method computes from the whole minibatch under the current policy."""
    prepare = run.method.prepare
    if prepare is None:
        return frozen
    chosen = list(rows)
    ask = Statistics(prepare.statistics)
    found = everywhere(run, frozen.batch, lambda part: run.engine.forward(part, ask), chosen)
    given = {name: value[chosen] for name, value in frozen.inputs.items()}
    of_rows = {name: value[chosen] for name, value in found.items()}
    inputs = dict(frozen.inputs)
    for name, value in prepare.inputs(of_rows, given, frozen.batch.response_mask[chosen], run.hyper).items():
        inputs[name] = value.new_zeros((len(frozen.batch.input_ids), *value.shape[1:])).index_copy(
            0, torch.tensor(chosen), value
        )
    return replace(frozen, inputs=inputs)


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
    totals: dict[str, float] = {}
    for _, share in gathered:
        for indices, statistics in share:
            count = [int(batch.response_lengths[row]) for row in indices]
            for i, row in enumerate(indices):
                logprobs[row] = statistics["logprob"][i, : count[i]]
            chosen = list(indices)
            found = totals_of(statistics, frozen.inputs["advantage"][chosen], batch.response_mask[chosen])
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + value
    return Seen(step, sum(part_loss for part_loss, _ in gathered), totals, logprobs)


def minibatch_scale(run: Run, frozen: Frozen, rows: Sequence[int]) -> dict[int, Tensor]:
    """row → [T] weights of its tokens; their divisor is that of the whole minibatch."""
    chosen = list(rows)
    scale = token_scale(
        frozen.batch.response_mask[chosen],
        run.method.reduction,
        frozen.inputs["advantage"][chosen],
        run.experiment.max_new_tokens,
    )
    return dict(zip(chosen, scale, strict=True))


def micro_batch_inputs(
    run: Run, frozen: Frozen, part: MicroBatch, scale: Mapping[int, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """(constants, weights) of a micro-batch's rows, cut to its longest response, on the engine's device."""
    rows, device = list(part.rows), run.engine.device
    width = max(1, int(frozen.batch.response_lengths[rows].max()))
    inputs = {name: value[rows, :width].to(device) for name, value in frozen.inputs.items()}
    return inputs, torch.stack([scale[row] for row in rows])[:, :width].to(device) * part.real


def loss_request(run: Run, frozen: Frozen, part: MicroBatch, scale: Mapping[int, Tensor]) -> TokenLoss | RowLoss:
    """The method's loss on one micro-batch, as the request that its scope asks for."""
    method, rows = run.method, part.rows
    inputs, weights = micro_batch_inputs(run, frozen, part, scale)
    kind = TokenLoss if method.scope == "token" else RowLoss
    return kind(
        function=method.loss(run.hyper),
        statistics=method.statistics(run.hyper),
        inputs=inputs,
        scale=weights,
        old=of_rows(frozen.old, rows) if frozen.old else None,
        report=reported(method, run.hyper),
        value_function=method.value_loss(run.hyper) if method.value_loss and run.critic is None else None,
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
