"""Rows → optimizer steps: what is asked once, each minibatch in micro-batches, and a report of all of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lco.config import Experiment
from lco.console import say
from lco.heads import HeadRequest, HeadStep
from lco.losses import token_scale
from lco.methods.objective import Objective, Prepared, Signal
from lco.policy import RowLoss, TokenLoss, ValueLoss
from lco.rollout.records import Batch, collate, sampler_record, select
from lco.training.engine import Engine, Norms, Step
from lco.training.metrics import average_prepared, compare_with_sampler, sum_over_tokens, summarise
from lco.training.noise import GradientMeter, GradientNoise, estimate_noise
from lco.training.once_per_rollout import (
    ask_reference,
    gather_statistics,
    measure_behaviour,
    snapshot_fixed_policies,
    stack_rows,
)
from lco.training.plan import MicroBatch, minibatches
from lco.training.state import Clock, Policies, Rollout, UpdateInputs, UpdateReport


@dataclass(frozen=True)
class Learner:
    """Learns from rollouts with one objective; every rank has one.

    Attributes:
        said: names of the notes that were said already.
        noise: of the gradients of the updates so far, where the method's learning rate follows it.
    """

    experiment: Experiment
    objective: Objective
    policies: Policies
    said: set[str] = field(default_factory=set)
    noise: GradientNoise = field(default_factory=GradientNoise)

    def learn(self, rollout: Rollout, clock: Clock) -> dict[str, Any]:
        """All optimizer steps of one rollout; what they were, for its metrics.

        Advantages come from all rows with a reward, the updates see those that the method keeps.
        """
        rows, objective = self.rows_to_update_on(rollout), self.objective
        if not rows:
            return {"updates": 0, "skipped": "no row left to learn from"}
        plan = self.plan_updates(rollout.step, rows)
        with clock.phase("logprobs"):
            signal, first, later = self.prepare_rollout(rollout, plan)
        if rollout.step < objective.needs.critic_warmup:
            with clock.phase("update"):
                return self.train_critic_alone(first, plan)
        reports, prepared, factors = list[UpdateReport](), list[Prepared](), list[float]()
        diagnosis: dict[str, float] = {}
        with clock.phase("update"):
            for number, rows_of_update in enumerate(plan):
                inputs, found = self.add_minibatch_constants(later if number else first, rows_of_update)
                prepared.append(found)
                if number == len(plan) - 1:
                    diagnosis = self.gradient_norms_by_sign(inputs, rows_of_update, rollout.step)
                factors.append(self.rate_factor())
                reports.append(self.update_policy(inputs, rows_of_update, factors[-1]))
                if self.policies.critic is not None:
                    self.update_critic(self.policies.critic, inputs, rows_of_update)
        return {
            "updates": len(plan),
            "rows_kept": len(rows),
            **summarise(reports, first.constants, signal, rows),
            **average_prepared(prepared),
            **({"lr_factor": sum(factors) / len(factors), **self.noise.describe()} if self.meter else {}),
            **self.method_metrics({**inputs.constants, **later.constants}, inputs.batch, plan[-1], reports[-1]),
            **(compare_with_sampler(rollout, plan, reports) if objective.source == "rollouts" else {}),
            **diagnosis,
        }

    def rows_to_update_on(self, rollout: Rollout) -> list[int]:
        """The numbers of the compared rows that the method keeps."""
        return [] if rollout.signal is None else self.objective.keep(rollout.signal).nonzero().flatten().tolist()

    def plan_updates(self, step: int, rows: Sequence[int]) -> list[list[int]]:
        """The rows of every optimizer step of rollout number `step`."""
        experiment = self.experiment
        return minibatches(rows, experiment.minibatches, experiment.epochs, step, experiment.seed, self.objective.unit)

    def measure(self, rollout: Rollout) -> Rollout:
        """The rollout with what is to be known of the current policy, which has sampled it, when it is learnt from under another
        one; as it is where there will be no update."""
        rows = self.rows_to_update_on(rollout)
        if not rows:
            return rollout
        batch, plan = collate([row.row for row in rollout.compared]), self.plan_updates(rollout.step, rows)
        return replace(rollout, behaviour=measure_behaviour(self.policies, self.objective, batch, plan, waits=True))

    def prepare_rollout(
        self, rollout: Rollout, plan: Sequence[Sequence[int]]
    ) -> tuple[Signal, UpdateInputs, UpdateInputs]:
        """(what the advantages are computed from, what the first update is given, what the later ones are).

        The later ones need what was asked of π_old before. In the first one π_old is the policy itself, whose own forward serves
        as "old", so that no kernel noise is clipped; but not where the rollout has waited and brings what was asked then.

        Raises:
            UserError: the sampler did not record what the method reads.
        """
        assert rollout.signal is not None
        sampled, needs = [row.row for row in rollout.compared], self.objective.needs
        batch, signal = collate(sampled), rollout.signal
        before = rollout.behaviour or measure_behaviour(self.policies, self.objective, batch, plan)
        fixed = snapshot_fixed_policies(self.policies, self.objective, batch, plan)
        signal = replace(
            signal,
            values=before.statistics.get("value"),
            ref_logprob=ask_reference(self.policies, self.objective, batch),
            old_logprob=before.statistics.get("old_logprob"),
            row_norms=before.row_norms,
        )
        constants = self.objective.advantage(signal)
        if needs.sampler_logprob:
            constants |= sampler_record(sampled, needs.sampler_top)
        measured = {name: value for name, value in before.statistics.items() if name.startswith("old_")}
        later = UpdateInputs(batch, {**constants, **measured}, before.snapshots, fixed)
        return signal, later if rollout.behaviour else UpdateInputs(batch, constants, {}, fixed), later

    def add_minibatch_constants(self, inputs: UpdateInputs, rows: Sequence[int]) -> tuple[UpdateInputs, Prepared]:
        """Adds to `inputs` what the method computes from the whole minibatch with the current weights (a forward pass
        without gradient); (those inputs, all that it found)."""
        chosen, batch = list(rows), inputs.batch
        names, forward = self.objective.prepare_statistics, self.policies.engine.forward
        step = self.head_step(inputs, chosen)
        found = gather_statistics(self.policies, batch, names, forward, chosen, inputs.constants, step)
        given = {name: value[chosen] for name, value in inputs.constants.items()}
        measured = {name: value[chosen] for name, value in found.items()}
        constants = dict(inputs.constants)
        further = self.objective.prepare_inputs(measured, given, batch.response_mask[chosen])
        self.say_once(further.notes)
        for name, value in further.inputs.items():
            constants[name] = value.new_zeros((len(batch.input_ids), *value.shape[1:])).index_copy(
                0, torch.tensor(chosen), value
            )
        return replace(inputs, constants=constants), further

    def head_step(self, inputs: UpdateInputs, rows: Sequence[int]) -> HeadStep | None:
        """The optimizer's coming step on the head, as far as the method asks for it."""
        wanted = self.objective.needs.head_step
        if wanted is None:
            return None
        step = replace(self.policies.engine.head_step(wanted.moments), top=wanted.top)
        return replace(step, gradient=self.head_gradient(inputs, rows)) if wanted.gradient else step

    def head_gradient(self, inputs: UpdateInputs, rows: Sequence[int]) -> Tensor:
        """[V, d], ∂/∂W of −Σ scale A log π(a) over a minibatch, before its micro-batches; in one process alone."""
        engine, scale = self.policies.engine, self.scale_tokens(inputs, rows)
        weight, total = engine.policy.head().weight, torch.zeros(())
        for part in self.policies.share(rows, self.objective.unit):
            constants, weights = self.constants_of(inputs, part, scale)
            mask = inputs.batch.response_mask[list(part.rows)]
            tokens = inputs.batch.response_ids[list(part.rows)][mask].to(engine.device)
            request = HeadRequest(tokens, ("logprob",), {"advantage": constants["advantage"]}, weights)
            answer = engine.forward(select(inputs.batch, part.rows), TokenLoss(policy_gradient, request))
            total = total.to(engine.device) + torch.autograd.grad(answer.loss, weight)[0].float()
        return total

    def say_once(self, notes: Mapping[str, str]) -> None:
        """Each sentence when its name comes up for the first time in this process, on rank 0."""
        for name, sentence in notes.items():
            if name not in self.said and self.policies.engine.rank == 0:
                say(f"{self.objective.name}: {sentence}")
            self.said.add(name)

    @functools.cached_property
    def meter(self) -> GradientMeter | None:
        """What measures each micro-batch's gradient, where the learning rate follows its noise."""
        return None if self.objective.rate is None else GradientMeter(self.policies.engine.policy)

    def rate_factor(self) -> float:
        """On the learning rate of the next update; 1 as long as nothing is known of the noise."""
        rule, known = self.objective.rate, self.noise
        if rule is None or known.signal is None or known.noise is None:
            return 1.0
        return rule.factor(known.signal, known.noise)

    def add_noise(self, squares: Sequence[float], step: Step) -> None:
        """Takes in an update's micro-batches, ‖g_k‖² each, all ranks together."""
        rule = self.objective.rate
        if rule is None or not step.applied:
            return
        if len(squares) < 2:
            self.say_once(
                {"one_micro_batch": "an update of one micro-batch has no noise to estimate; the learning rate stays"}
            )
            return
        self.noise.add(*estimate_noise(squares, step.gradient_norm**2), rule.decay)

    def update_policy(self, inputs: UpdateInputs, rows: Sequence[int], factor: float = 1.0) -> UpdateReport:
        """One optimizer step on a minibatch, in micro-batches; the divisor is the whole minibatch's. `factor` is one on the
        learning rate."""
        engine, scale = self.policies.engine, self.scale_tokens(inputs, rows)
        parts, meter = self.policies.share(rows, self.objective.unit), self.meter
        loss, mine, squares = 0.0, [], list[float]()
        for number, part in enumerate(parts):
            answer = engine.forward(select(inputs.batch, part.rows), self.loss_request(inputs, part, scale))
            engine.backward(answer.loss, last=number == len(parts) - 1)
            loss += float(answer.loss.detach())
            square = 0.0 if meter is None else meter.take()
            if meter is not None and part.real and bool(inputs.batch.response_mask[list(part.rows)].any()):
                squares.append(square)
            if part.real:
                mine.append((part.rows, {name: value.cpu() for name, value in answer.statistics.items()}))
        step = engine.step(factor)
        if meter is not None:
            self.add_noise([square for share in engine.gather(squares) for square in share], step)
        return report_update(step, inputs, engine.gather((loss, mine)), self.objective)

    def scale_tokens(self, inputs: UpdateInputs, rows: Sequence[int]) -> dict[int, Tensor]:
        """row → [T] weights of its tokens; their divisor is that of the whole minibatch."""
        chosen = list(rows)
        scale = token_scale(
            inputs.batch.response_mask[chosen],
            self.objective.reduction,
            inputs.constants["advantage"][chosen],
            self.experiment.max_new_tokens,
        )
        return dict(zip(chosen, scale, strict=True))

    def loss_request(self, inputs: UpdateInputs, part: MicroBatch, scale: Mapping[int, Tensor]) -> TokenLoss | RowLoss:
        """The method's loss on one micro-batch, as the request that its scope asks for."""
        objective = self.objective
        kind = TokenLoss if objective.scope == "token" else RowLoss
        value_loss = objective.value_loss if self.policies.critic is None else None
        return kind(objective.loss, self.head_request(inputs, part, scale), value_loss)

    def head_request(self, inputs: UpdateInputs, part: MicroBatch, scale: Mapping[int, Tensor]) -> HeadRequest:
        """What the head is asked about a micro-batch's N tokens, on the engine's device."""
        rows, device, objective = list(part.rows), self.policies.engine.device, self.objective
        constants, weights = self.constants_of(inputs, part, scale)
        fixed = {name: stack_rows(policy, rows, device) for name, policy in inputs.fixed.items()}
        return HeadRequest(
            tokens=inputs.batch.response_ids[rows][inputs.batch.response_mask[rows]].to(device),
            statistics=objective.statistics,
            inputs=constants,
            scale=weights,
            old=stack_rows(inputs.old, rows, device) if inputs.old else None,
            target=objective.target,
            fixed=fixed,
            report=tuple(dict.fromkeys([*objective.reported, *objective.metric_statistics])),
        )

    def constants_of(
        self, inputs: UpdateInputs, part: MicroBatch, scale: Mapping[int, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """(the loss's constants [N, …], the weights [N]) of a micro-batch's tokens; a row that is not real weighs nothing."""
        rows, device = list(part.rows), self.policies.engine.device
        mask = inputs.batch.response_mask[rows]
        constants = {name: value[rows][mask].to(device) for name, value in inputs.constants.items()}
        return constants, torch.stack([scale[row] for row in rows])[mask].to(device) * part.real

    def gradient_norms_by_sign(self, inputs: UpdateInputs, rows: Sequence[int], step: int) -> dict[str, float]:
        """Every `diagnose_every` rollouts: the norm of the parameters' gradient on one micro-batch, from the tokens with
        positive and with negative advantage apart, as the rollout's last update finds it; and the released code's statistic."""
        every = self.experiment.diagnose_every
        if not every or (step + 1) % every:
            return {}
        part, scale = self.policies.share(rows, self.objective.unit)[0], self.scale_tokens(inputs, rows)

        def norms(weights: Mapping[int, Tensor]) -> Norms:
            return self.policies.engine.probe(select(inputs.batch, part.rows), self.loss_request(inputs, part, weights))

        def of_sign(sign: int) -> dict[int, Tensor]:
            return {row: scale[row] * (sign * inputs.constants["advantage"][row] > 0) for row in part.rows}

        return {
            "gradient_norm_positive": norms(of_sign(1)).whole,
            "gradient_norm_negative": norms(of_sign(-1)).whole,
            "gradient_norm_projections": norms(scale).projections,
        }

    def update_critic(
        self, engine: Engine, inputs: UpdateInputs, rows: Sequence[int], body: bool = True
    ) -> tuple[Step, float]:
        """One optimizer step on the value loss of a minibatch; (what it did, the loss over all ranks).

        `body`: whether the gradient goes on into the body below the value head.
        """
        function = self.objective.value_loss
        assert function is not None
        scale, parts, loss = self.scale_tokens(inputs, rows), self.policies.share(rows, self.objective.unit), 0.0
        for number, part in enumerate(parts):
            request = ValueLoss(function, *self.constants_of(inputs, part, scale), body)
            answer = engine.forward(select(inputs.batch, part.rows), request)
            engine.backward(answer.loss, last=number == len(parts) - 1)
            loss += float(answer.loss.detach())
        return engine.step(), sum(engine.gather(loss))

    def train_critic_alone(self, inputs: UpdateInputs, plan: Sequence[Sequence[int]]) -> dict[str, Any]:
        """All updates of a rollout on the value loss; a body that the policy shares stays as it is."""
        critic = self.policies.critic
        engine = critic or self.policies.engine
        found = [self.update_critic(engine, inputs, rows, body=critic is not None) for rows in plan]
        norms = [step.gradient_norm for step, _ in found]
        return {
            "updates": 0,
            "critic_updates": len(found),
            "value_loss": sum(loss for _, loss in found) / len(found),
            "critic_gradient_norm": sum(norms) / len(norms),
        }

    def method_metrics(
        self, inputs: Mapping[str, Tensor], batch: Batch, rows: Sequence[int], report: UpdateReport
    ) -> dict[str, float]:
        """What the method itself wants logged, of the last minibatch; `inputs` [B, T, …] are its loss's constants."""
        chosen = list(rows)
        mask = batch.response_mask[chosen]
        statistics: dict[str, Tensor] = {}
        for i, row in enumerate(chosen):
            for name, value in {"logprob": report.logprobs[row].float(), **report.kept.get(row, {})}.items():
                if name not in statistics:
                    statistics[name] = value.new_zeros((*mask.shape, *value.shape[1:]))
                statistics[name][i, : len(value)] = value
        constants = {name: value[chosen] for name, value in inputs.items()}
        statistics["old_logprob"] = constants.get("old_logprob", statistics["logprob"])
        return self.objective.metrics(statistics, constants, mask)


def policy_gradient(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    """−A log π(a) of each token."""
    return -x["advantage"] * s["logprob"]


def report_update(
    step: Step, inputs: UpdateInputs, gathered: Sequence[tuple[float, Any]], objective: Objective
) -> UpdateReport:
    """What all ranks saw of one optimizer step: `gathered` are their losses and (rows, statistics) by micro-batch."""
    batch, logprobs, totals = inputs.batch, dict[int, Tensor](), dict[str, float]()
    kept: dict[int, dict[str, Tensor]] = {}
    for _, share in gathered:
        for indices, statistics in share:
            for i, row in enumerate(indices):
                length = int(batch.response_lengths[row])
                logprobs[row] = statistics["logprob"][i, :length]
                kept[row] = {name: statistics[name][i, :length] for name in objective.metric_statistics}
            chosen, summed = list(indices), {name: statistics[name] for name in objective.reported}
            found = sum_over_tokens(summed, inputs.constants["advantage"][chosen], batch.response_mask[chosen])
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + value
    return UpdateReport(step, sum(loss for loss, _ in gathered), totals, logprobs, kept)
