"""A method is data: what it needs from the loop, and pure functions from rewards and statistics to a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch import Tensor

from lco.config import REDUCTIONS
from lco.errors import UserError
from lco.heads import Target, TokenFunction, statistic
from lco.heads.linear import HIDDEN_GRADIENT
from lco.losses import Reduction
from lco.methods.knobs import Hyper, Hyperparameter, read_values
from lco.methods.knobs import When as When  # methods say it beside the rest
from lco.methods.objective import (
    Family,
    Needs,
    Objective,
    OldNeeds,
    Prepared,
    RateRule,
    Refresh,
    Scope,
    Signal,
    Source,
    keep_all_rows,
    prepare_nothing,
    report_nothing,
)
from lco.policy import ValueFunction


@dataclass(frozen=True)
class Prepare:
    """Constants of a loss that need the whole minibatch under the current policy, all ranks together.

    Attributes:
        statistics: what is measured without gradient before the minibatch's first micro-batch.
        inputs: (statistics [R, T], inputs [R, T, …], mask [R, T], hyper) → further inputs of its R rows, and what is logged.
    """

    statistics: tuple[str, ...]
    inputs: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor, Hyper], Prepared]


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
class Method:
    """One method, complete.

    Attributes:
        name: as typed on the command line.
        title: as printed in tables.
        paper: where it comes from.
        summary: one sentence.
        page: what `lco methods NAME` prints: purpose, equation, source; the docstring of the method's own file.
        advantage: (signal, hyper) → {input: [B, T]}, constants of the loss; "advantage" is always among them.
        loss: hyper → the per-token loss as a function of statistics and inputs.
        statistics: hyper → the head statistics that the loss reads.
        reduction: how per-token losses become one number, where a run does not choose (`--reduction`).
        reductions: what a run may choose.
        own_reduction: why it may not choose others, as the end of a sentence that the method's name begins.
        hyperparameters: every knob with its default, the suite's common setting.
        paper_preset: the settings of its paper.
        released_preset: the settings with which its authors' released code runs, where they are known and others.
        needs: hyper → what the loop has to provide.
        keep: (signal, hyper) → [B] bool, the rows that the updates see; None where that is all of them. Advantages are
            computed from all rows before.
        refresh: hyper → how pairs are chosen for several rollouts at once, or None where every pair is learnt from.
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
        metrics: (statistics, inputs, mask, hyper) → what this method wants logged of a minibatch: statistics [R, T, …] of
            its rows (`logprob`, what `metric_statistics` names, and `old_logprob` from before the first update).
        metric_statistics: hyper → statistics that `metrics` reads besides.
        rate: hyper → a factor on the learning rate from the gradient's noise, or None.
        detached: hyper → whether a part of the loss is held constant (a weight without gradient, a target that moves with
            the policy), so that its value does not follow its gradient.
        certainty: how sure the specification is; a method that does not say it has it unset.
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
    released_preset: Preset = Preset()
    needs: Callable[[Hyper], Needs] = lambda hyper: Needs()
    keep: Callable[[Signal, Hyper], Tensor] | None = None
    refresh: Callable[[Hyper], Refresh | None] = lambda hyper: None
    prepare: Prepare | None = None
    scope: Scope = "token"
    family: Family = "baseline"
    source: Source = "rollouts"
    value_loss: Callable[[Hyper], ValueFunction | None] = lambda hyper: None
    target: Callable[[Hyper], Target | None] = lambda hyper: None
    conflict: Callable[[Hyper], str | None] = lambda hyper: None
    metrics: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor, Hyper], dict[str, float]] | None = None
    metric_statistics: Callable[[Hyper], tuple[str, ...]] = lambda hyper: ()
    rate: Callable[[Hyper], RateRule | None] = lambda hyper: None
    detached: Callable[[Hyper], bool] = lambda hyper: False
    reductions: tuple[str, ...] = REDUCTIONS
    own_reduction: str = ""
    certainty: str = "unset"
    variant_of: str = ""
    page: str | None = ""

    def with_reduction(self, name: str) -> Method:
        """The same method with the reduction that a run chose; "" leaves the method's own.

        Raises:
            UserError: another reduction would be another method; says why, and what may be chosen.
        """
        if name in ("", self.reduction):
            return self
        if name not in self.reductions:
            others = [other for other in self.reductions if other != self.reduction]
            choice = f"give {', '.join(others)}, or leave it out" if others else "leave it out"
            raise UserError(
                f"reduction is {name!r}, but {self.name} {self.own_reduction or 'has its own'} ({self.reduction}); {choice}"
            )
        return replace(self, reduction=cast(Reduction, name))

    def bind(self, overrides: Hyper | None = None) -> Objective:
        """The objective that these knobs make of the method; what is not given has its default.

        Raises:
            UserError: an unknown name or a value outside the choices (the message names the nearest valid one), a value that
                nothing reads, or values that do not go together.
        """
        hyper, read = self.read_values(overrides or {})
        statistics, target, needs = self.statistics(hyper), self.target(hyper), self.needs(hyper)
        old = old_needs(statistics, target)
        fixed = {
            *(target.fixed if target else ()),
            *(["reference"] if needs.reference or self.source == "pairs" else []),
        }
        keep, prepare, metrics = self.keep, self.prepare, self.metrics
        return Objective(
            name=self.name,
            title=self.title,
            family=self.family,
            hyper=read,
            scope=self.scope,
            source=self.source,
            reduction=self.reduction,
            advantage=lambda signal: self.advantage(signal, hyper),
            loss=self.loss(hyper),
            statistics=statistics,
            needs=needs,
            old=old,
            reported=reported(statistics, old, target),
            target=target,
            fixed=tuple(sorted(fixed)),
            value_loss=self.value_loss(hyper),
            keep=(lambda signal: keep(signal, hyper)) if keep else keep_all_rows,
            refresh=self.refresh(hyper),
            prepare_statistics=prepare.statistics if prepare else (),
            prepare_inputs=(lambda s, x, mask: prepare.inputs(s, x, mask, hyper)) if prepare else prepare_nothing,
            metrics=(lambda s, x, mask: metrics(s, x, mask, hyper)) if metrics else report_nothing,
            metric_statistics=self.metric_statistics(hyper),
            rate=self.rate(hyper),
        )

    def read_values(self, overrides: Hyper) -> tuple[dict[str, Any], dict[str, Any]]:
        """(every knob with its value, those of them that are read); raises as `bind` says."""
        values, read = read_values(self.name, self.hyperparameters, overrides)
        reason = self.conflict(values)
        if reason:
            raise UserError(f"{self.name}: {reason}")
        return values, read

    def variant(self, name: str, title: str, summary: str, hyper: Hyper | None = None, **changes: Any) -> Method:
        """The same method under another name with other defaults, so that both can stand in one table.

        Args:
            hyper: other defaults of its knobs.
            changes: other values of any field. The paper's settings are the method's own and are not taken over.
        """
        defaults = hyper or {}
        assert defaults.keys() <= self.hyperparameters.keys()
        knobs = {
            key: replace(knob, default=defaults[key], source="this preset") if key in defaults else knob
            for key, knob in self.hyperparameters.items()
        }
        own: dict[str, Any] = {"hyperparameters": knobs, "variant_of": self.name}
        own |= {"paper_preset": Preset(), "released_preset": Preset()}
        return replace(self, name=name, title=title, summary=summary, **{**own, **changes})


def old_needs(statistics: tuple[str, ...], target: Target | None) -> OldNeeds:
    """What a loss reads of π_old, found from its statistics."""
    whole = any(statistic(name).whole_old for name in statistics) or bool(target and target.dense)
    return OldNeeds(whole, () if whole else tuple(name for name in statistics if name.startswith("old_")))


def reported(statistics: tuple[str, ...], old: OldNeeds, target: Target | None) -> tuple[str, ...]:
    """The statistics that every update logs; of LCO's target as far as the method keeps what they need."""
    names = ["logprob", "entropy", HIDDEN_GRADIENT]
    if target is not None:
        names += ["tilt_clamped", "target_tv", "target_kl"]
    if old.whole:
        names += ["kl_old", *(["kl_target"] if target is not None else [])]
    return (*names, *(name for name in statistics if name.startswith("outside_top")))
