"""An objective: a method with its knobs bound, as training, the laboratory and the pages see it.

A `Method` is the page that a person writes; `Method.bind(hyper)` makes an `Objective` of it once, with every default filled
in, so that nobody else asks what a knob is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lco.heads import Target, TokenFunction
from lco.losses import Reduction
from lco.policy import ValueFunction

Scope = Literal["token", "row", "pair"]
Source = Literal["rollouts", "demonstrations", "pairs"]
RowNorms = Literal["", "logit", "head", "exact"]
Family = Literal["lco", "baseline", "imitation", "preference"]


@dataclass(frozen=True)
class Signal:
    """What is known about a rollout before the first update. B rows, T response positions.

    Attributes:
        rewards: [B] float32, finite.
        groups: [B] int64, rows of one prompt share a number.
        mask: [B, T] bool, True where the policy sampled the token.
        truncated: [B] bool, True where the length limit cut the row.
        length_limit: the configured longest response in tokens.
        responses: the rows' texts.
        reward_history: mean reward of every rollout before this one, oldest first.
        values: [B, T] the critic's values before each token, or None without a critic.
        ref_logprob: [B, T] the reference policy's log-probabilities, or None where the method needs none.
        old_logprob: [B, T] the current policy's, or None where the method's advantage needs none.
        row_norms: [B] ‖∇ log π(y)‖² of each row, or what stands for it; None where the method needs none.
    """

    rewards: Tensor
    groups: Tensor
    mask: Tensor
    truncated: Tensor
    length_limit: int = 0
    responses: tuple[str, ...] = ()
    reward_history: tuple[float, ...] = ()
    values: Tensor | None = None
    ref_logprob: Tensor | None = None
    old_logprob: Tensor | None = None
    row_norms: Tensor | None = None


@dataclass(frozen=True)
class StepNeeds:
    """What the statistics `step_slope` and `step_spread` are told of the optimizer's coming step on the head.

    Attributes:
        moments: the optimizer's moments of the head; else the step is plain descent.
        gradient: the minibatch's gradient, whose step is every token's; else each token has its own.
        top: likeliest tokens whose rows are followed, beside the sampled one; 0: all.
    """

    moments: bool
    gradient: bool
    top: int


@dataclass(frozen=True)
class Needs:
    """What a method asks of the loop; the loop provides, and never asks for a method by name.

    Attributes:
        group: at least two samples per prompt.
        reference: the reference policy's log-probabilities of the sampled tokens (`ref_logprob`).
        old_logprob: the policy's own in `Signal`, for a KL term inside the reward.
        refill_rounds: how often prompts are drawn again in place of groups of which `keep` left no row.
        critic_warmup: so many first rollouts train the critic alone.
        length_limit: tokens that the length limit of a response must have at least.
        sampler_logprob: the sampler's own log-probabilities of the sampled tokens, as inputs of the loss.
        sampler_top: those of its K likeliest tokens at every position as well; 0: none.
        row_norms: which `Signal.row_norms`: of the logits added up over tokens, of the head, of all parameters (exact); "":
            none.
        on_ranks: the knobs, NAME=VALUE …, at which the method reads nothing that DeepSpeed spreads over its ranks.
        head_step: what `prepare` is told of the optimizer's coming step on the head; None: nothing.
    """

    group: bool = False
    reference: bool = False
    old_logprob: bool = False
    refill_rounds: int = 0
    critic_warmup: int = 0
    length_limit: int = 0
    sampler_logprob: bool = False
    sampler_top: int = 0
    row_norms: RowNorms = ""
    head_step: StepNeeds | None = None
    on_ranks: str = ""


@dataclass(frozen=True)
class RateRule:
    """A factor on the learning rate of an update, from the noise of the gradients before it.

    Attributes:
        decay: of the moving averages over updates.
        factor: (square of the expected gradient, variance of the update's gradient), moving averages → factor.
    """

    decay: float
    factor: Callable[[float, float], float]


@dataclass(frozen=True)
class OldNeeds:
    """What must be known about π_old once the policy has moved.

    Attributes:
        whole: the whole distribution, kept as hidden states and head.
        statistics: else these scalars of every token, measured before the first update.
    """

    whole: bool
    statistics: tuple[str, ...]


@dataclass(frozen=True)
class Candidates:
    """The pairs of several rollouts, of which a method may choose what the updates see: P right and wrong answers.

    Attributes:
        gain: [P, 2] Σ_t (ℓ − ℓ_ref) of the right and of the wrong answer under the current policy.
        earlier: [P, 2] the same at the refresh before, or None where it was not measured.
        success: [P] share of the answers to the pair's problem that were right; they are the reference policy's.
    """

    gain: Tensor
    earlier: Tensor | None
    success: Tensor


@dataclass(frozen=True)
class Choice:
    """Which candidates the updates see.

    Attributes:
        chosen: [P] bool.
        metrics: what is logged of the choice, with the refresh's first rollout.
        notes: sentences for a person, where something is not as it should be.
    """

    chosen: Tensor
    metrics: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refresh:
    """A pool of pairs that is chosen from anew every so many rollouts; for methods whose rows are pairs.

    The pairs of the next `every` rollouts are drawn together, their margins measured under the current policy, and each
    rollout then learns from those of its pairs that were chosen. The first pool is not chosen from: the policy still is its
    reference, and every margin 0.

    Attributes:
        every: rollouts of one pool.
        twice: whether a pool's margins are measured at the refresh before, too (`Candidates.earlier`).
        choose: candidates → choice; the same on every rank.
    """

    every: int
    twice: bool
    choose: Callable[[Candidates], Choice]


class Prepared(NamedTuple):
    """What a method makes of a whole minibatch before its first micro-batch.

    Attributes:
        inputs: further constants of the loss, [R, T, …] of its R rows.
        numbers: what is logged, as the mean over a rollout's updates.
        notes: what could not be as meant, {name: sentence}; counted by name over a rollout's updates, said the first time.
    """

    inputs: dict[str, Tensor]
    numbers: Mapping[str, float] = MappingProxyType({})
    notes: Mapping[str, str] = MappingProxyType({})


PrepareInputs = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor], Prepared]
"""(statistics [R, T], inputs [R, T, …], mask [R, T]) of a minibatch's R rows → what is made of them"""


def prepare_nothing(statistics: Mapping[str, Tensor], inputs: Mapping[str, Tensor], mask: Tensor) -> Prepared:
    return Prepared({})


def keep_all_rows(signal: Signal) -> Tensor:
    return torch.ones_like(signal.truncated)


def report_nothing(statistics: Mapping[str, Tensor], inputs: Mapping[str, Tensor], mask: Tensor) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Objective:
    """What one run optimises.

    Attributes:
        name, title, family: of the method.
        hyper: the knobs that it reads, for records; everything below has them bound.
        scope, source, reduction: as Method says.
        advantage: signal → {input: [B, T]}, constants of the loss; "advantage" is always among them.
        loss: statistics and inputs → the loss of each token.
        statistics: the head statistics that the loss reads.
        needs: what the loop has to provide.
        old: what must be known about π_old once the policy has moved.
        reported: the statistics that every update logs.
        target: LCO's target policy; None for losses without one.
        fixed: names of the policies that do not learn and are read: reference, verifier, dpo.
        value_loss: the critic's loss per token; None without a critic.
        keep: signal → [B] bool, the rows that the updates see.
        refresh: how pairs are chosen for several rollouts at once; None where every pair is learnt from.
        prepare_statistics: what is measured before a minibatch's first micro-batch, for `prepare_inputs`.
        prepare_inputs: constants that depend on the whole minibatch under the current policy, all ranks together.
        metrics: (statistics [R, T, …], inputs [R, T, …], mask) → what the method wants logged of a minibatch.
        metric_statistics: the statistics that `metrics` reads.
        rate: a factor on the learning rate; None: 1.
    """

    name: str
    title: str
    family: Family
    hyper: Mapping[str, Any]
    scope: Scope
    source: Source
    reduction: Reduction
    advantage: Callable[[Signal], dict[str, Tensor]]
    loss: TokenFunction
    statistics: tuple[str, ...]
    needs: Needs = Needs()
    old: OldNeeds = OldNeeds(False, ())
    reported: tuple[str, ...] = ()
    target: Target | None = None
    fixed: tuple[str, ...] = ()
    value_loss: ValueFunction | None = None
    keep: Callable[[Signal], Tensor] = keep_all_rows
    refresh: Refresh | None = None
    prepare_statistics: tuple[str, ...] = ()
    prepare_inputs: PrepareInputs = prepare_nothing
    metrics: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor], dict[str, float]] = field(
        default=report_nothing
    )
    metric_statistics: tuple[str, ...] = ()
    rate: RateRule | None = None

    @property
    def critic(self) -> bool:
        """Whether it wants a critic."""
        return self.value_loss is not None

    @property
    def unit(self) -> int:
        """Rows that no minibatch may separate."""
        return 2 if self.scope == "pair" else 1
