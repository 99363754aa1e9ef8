"""A method is data: what it needs from the loop, and pure functions from rewards and statistics to a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from lco.errors import UserError, nearest
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
        values: [B, T] the critic's values before each token, or None without a critic.
    """

    rewards: Tensor
    groups: Tensor
    mask: Tensor
    truncated: Tensor
    values: Tensor | None = None


@dataclass(frozen=True)
class Needs:
    """What a method asks of the loop; the loop provides, and never asks for a method by name.

    Attributes:
        group: at least two samples per prompt.
        old: what must be known about π_old once the policy has moved: nothing, the sampled tokens' log-probabilities,
            or the whole distribution (kept as hidden states and head).
        critic: a value head on the shared body.
        verified_only: rows with reward 0 are dropped before the update.
    """

    group: bool = False
    old: Literal["nothing", "logprob", "distribution"] = "nothing"
    critic: bool = False
    verified_only: bool = False


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
        hyperparameters: every knob with its default.
        scope: "token" where a token's loss depends on that token alone, "row" where it couples a row.
        source: where the rows come from.
        value_loss: hyper → the critic's loss per token, for methods with a critic.
        certainty: how sure the specification is (methods.md's tags, spelled out).
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
    needs: Needs = Needs()
    scope: Literal["token", "row"] = "token"
    source: Literal["rollouts", "demonstrations"] = "rollouts"
    value_loss: Callable[[Hyper], ValueFunction] | None = None
    certainty: str = "certain"

    def hyper(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Defaults with overrides.

        Raises:
            UserError: an unknown name or a value outside the choices; the message names the nearest valid one.
        """
        values = {name: knob.default for name, knob in self.hyperparameters.items()}
        for name, value in (overrides or {}).items():
            if name not in values:
                raise UserError(f"{self.name} has no hyper-parameter {name!r}{nearest(name, values)}")
            knob = self.hyperparameters[name]
            if knob.choices and value not in knob.choices:
                raise UserError(f"{self.name}: {name} is {value!r}{nearest(value, knob.choices)}")
            values[name] = coerce(name, value, knob.default)
        return values


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
