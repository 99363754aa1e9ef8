"""A method is data: what it needs from the loop, and pure functions from rewards and statistics to a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from lco.errors import UserError, nearest
from lco.heads import Target, statistic
from lco.heads.linear import TokenFunction
from lco.losses import Reduction
from lco.policy import ValueFunction

Hyper = Mapping[str, Any]


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


@dataclass(frozen=True)
class Needs:
    """What a method asks of the loop; the loop provides, and never asks for a method by name.

    Attributes:
        group: at least two samples per prompt.
        reference: the reference policy's log-probabilities of the sampled tokens (`ref_logprob`).
        old_logprob: the policy's own in `Signal`, for a KL term inside the reward.
        refill_rounds: how often prompts are drawn again in place of groups of which `keep` left no row.
        critic_warmup: so many first rollouts train the critic alone.
    """

    group: bool = False
    reference: bool = False
    old_logprob: bool = False
    refill_rounds: int = 0
    critic_warmup: int = 0


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
class Prepare:
    """Constants of a loss that need the whole minibatch under the current policy, all ranks together.

    Attributes:
        statistics: what is measured without gradient before the minibatch's first micro-batch.
        inputs: (statistics [R, T], inputs [R, T, …], mask [R, T], hyper) → further inputs [R, T, …] of its R rows.
    """

    statistics: tuple[str, ...]
    inputs: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor, Hyper], dict[str, Tensor]]


@dataclass(frozen=True)
class Preset:
    """The settings of a method's paper, as far as this suite can express them.

    Attributes:
        hyper: the method's own knobs.
        settings: knobs of the run, by their names in `Experiment`.
        source: where they were read.
    """

    hyper: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Hyperparameter:
    """One knob of a method: its default, what it means, and where the default comes from."""

    default: Any
    help: str
    source: str = "suite"
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Method:
    """One method, complete.

    Attributes:
        name: as typed on the command line.
        title: as printed in tables.
        paper: where it comes from.
        summary: one sentence.
        advantage: (signal, hyper) → {input: [B, T]}, constants of the loss; "advantage" is always among them.
        loss: hyper → the per-token loss as a function of statistics and inputs.
        statistics: hyper → the head statistics that the loss reads.
        reduction: how per-token losses become one number.
        hyperparameters: every knob with its default, the suite's common setting.
        paper_preset: the settings of its paper.
        needs: hyper → what the loop has to provide.
        keep: (signal, hyper) → [B] bool, the rows that the updates see; None where that is all of them. Advantages are
            computed from all rows before.
        prepare: constants of the loss that depend on a whole minibatch, or None.
        scope: "token" where a token's loss depends on that token alone, "row" where it couples a row, "pair" where rows
            2i (right) and 2i + 1 (wrong) belong together.
        family: what it is compared as. "lco": the paper's losses and their variants, the subject of every comparison;
            "baseline": learns from the rewards of its own rollouts, as they do; "imitation": from right answers alone, its
            own or given ones; "preference": from pairs of a right and a wrong answer. Tables compare the first two with
            each other and set the others apart, because their data differ.
        source: where the rows come from; "pairs" are made from rollouts of the reference policy, verified.
        value_loss: hyper → the critic's loss per token, or None where these hyper-parameters want no critic.
        target: hyper → LCO's target policy, for losses that have one.
        conflict: hyper → why its values do not go together, or None.
        unread: hyper → {knob: the settings that read it} of the knobs that these values leave unread.
        metrics: (statistics, inputs, mask, hyper) → what this method wants logged of a minibatch: statistics [R, T] of
            its rows (`logprob`, and `old_logprob` from before the first update).
        certainty: how sure the specification is.
        variant_of: the method that this is a preset of, if it is one.
    """

    name: str
    title: str
    paper: str
    summary: str
    advantage: Callable[[Signal, Hyper], dict[str, Tensor]]
    loss: Callable[[Hyper], TokenFunction]
    statistics: Callable[[Hyper], tuple[str, ...]]
    reduction: Reduction
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    paper_preset: Preset = Preset()
    needs: Callable[[Hyper], Needs] = lambda hyper: Needs()
    keep: Callable[[Signal, Hyper], Tensor] | None = None
    prepare: Prepare | None = None
    scope: Literal["token", "row", "pair"] = "token"
    family: Literal["lco", "baseline", "imitation", "preference"] = "baseline"
    source: Literal["rollouts", "demonstrations", "pairs"] = "rollouts"
    value_loss: Callable[[Hyper], ValueFunction | None] | None = None
    target: Callable[[Hyper], Target] | None = None
    conflict: Callable[[Hyper], str | None] | None = None
    unread: Callable[[Hyper], Mapping[str, str]] | None = None
    metrics: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor, Hyper], dict[str, float]] | None = None
    certainty: str = "certain"
    variant_of: str = ""

    def hyper(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Defaults with overrides.

        Raises:
            UserError: an unknown name or a value outside the choices (the message names the nearest valid one), a value that
                nothing reads, or values that do not go together.
        """
        values = {name: knob.default for name, knob in self.hyperparameters.items()}
        for name, value in (overrides or {}).items():
            if name not in values:
                raise UserError(f"{self.name} has no hyper-parameter {name!r}{nearest(name, values)}")
            knob = self.hyperparameters[name]
            if knob.choices and value not in knob.choices:
                raise UserError(f"{self.name}: {name} is {value!r}{nearest(value, knob.choices)}")
            values[name] = coerce(name, value, knob.default)
        for name, readers in (self.unread(values) if self.unread else {}).items():
            default = self.hyperparameters[name].default
            if values[name] != default:
                raise UserError(
                    f"{self.name}: {name} is {values[name]!r}, which only {readers} reads; give that or leave {name} at its "
                    f"default {default!r}"
                )
        reason = self.conflict(values) if self.conflict else None
        if reason:
            raise UserError(f"{self.name}: {reason}")
        return values

    def old(self, hyper: Hyper) -> OldNeeds:
        """What the loss reads of π_old, found from its statistics."""
        names = self.statistics(hyper)
        target = self.target(hyper) if self.target else None
        whole = any(statistic(name).whole_old for name in names) or bool(target and target.dense)
        return OldNeeds(whole, () if whole else tuple(name for name in names if name.startswith("old_")))

    def critic(self, hyper: Hyper) -> bool:
        """Whether it wants a value head on the shared body."""
        return self.value_loss is not None and self.value_loss(hyper) is not None

    def variant(self, name: str, title: str, summary: str, **defaults: Any) -> Method:
        """The same method under another name with other defaults, so that both can stand in one table."""
        knobs = {
            key: replace(knob, default=defaults[key], source="this preset") if key in defaults else knob
            for key, knob in self.hyperparameters.items()
        }
        assert defaults.keys() <= knobs.keys()
        return replace(
            self, name=name, title=title, summary=summary, hyperparameters=knobs, variant_of=self.name,
            paper_preset=Preset(),
        )  # fmt: skip


def coerce(name: str, value: Any, default: Any) -> Any:
    """A value of the default's type; command lines and JSON deliver 2 where 2.0 is meant.

    Raises:
        UserError: the value cannot mean what the default means.
    """
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() in {"true", "false"}:
            return str(value).lower() == "true"
        raise UserError(f"{name} is {value!r}: give true or false")
    if isinstance(default, int | float):
        try:
            return type(default)(value)
        except (TypeError, ValueError):
            raise UserError(f"{name} is {value!r}: give a number such as {default}") from None
    return value
