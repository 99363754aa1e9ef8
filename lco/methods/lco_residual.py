"""What LCO-MSE and LCO-LCH share: a penalty on the residual between the policy's logits and the optimal ones.

With d = z_θ − z_old and the tilt c = A/β the residual is, by `target_space`,

    centred   P(d − c), P = I − 11ᵀ/V, over the whole vocabulary
    raw       d − c on the tokens that carry an advantage (a dense c is centred under π_old first)
    moving    z_θ(a) − sg(z_θ(a)) − c, as the released code has it

Over the whole vocabulary the head sums the penalty; on the sampled token the method applies it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.lco_common import conflict as conflict_of_target
from lco.methods.lco_common import is_dense
from lco.methods.method import Hyper, Hyperparameter


@dataclass(frozen=True)
class Penalty:
    """A function of the residual, and the statistics that sum it over the vocabulary.

    Attributes:
        of: residual → penalty.
        centred, raw: the head's statistics of the centred residual and of a dense tilt's raw one.
        factor: times the statistic is the penalty.
        moving: residual → penalty where the target moves along.
    """

    of: Callable[[Tensor], Tensor]
    centred: str
    raw: str
    factor: float
    moving: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Space:
    """One kind of residual: statistics → error of each token, and the statistics that it reads."""

    error: Callable[[Mapping[str, Tensor]], Tensor]
    statistics: tuple[str, ...]


def spaces_of(penalty: Penalty) -> dict[str, Space]:
    """target_space → the error that it means for this penalty; "raw, dense" is `raw` where every token has a tilt."""
    p = penalty
    return {
        "centred": Space(lambda s: p.factor * s[p.centred], (p.centred,)),
        "raw": Space(lambda s: p.of(s["logit"] - s["old_logit"] - s["tilt"]), ("logit", "old_logit", "old_logprob", "tilt")),
        "raw, dense": Space(lambda s: p.factor * s[p.raw], (p.raw,)),
        "moving": Space(lambda s: p.moving(s["logit"] - s["logit"].detach() - s["tilt"]), ("logit", "old_logprob", "tilt")),
    }  # fmt: skip


def space_of(hyper: Hyper, spaces: Mapping[str, Space]) -> Space:
    dense_raw = hyper["target_space"] == "raw" and is_dense(hyper)
    return spaces["raw, dense" if dense_raw else hyper["target_space"]]


def loss_in(spaces: Mapping[str, Space]) -> Callable[[Hyper], TokenFunction]:
    """`Method.loss` of a loss whose target_space is one of these."""

    def loss(hyper: Hyper) -> TokenFunction:
        error = space_of(hyper, spaces).error

        def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
            return error(s)

        return per_token

    return loss


def target_space(spaces: Mapping[str, Space]) -> Hyperparameter:
    choices = tuple(name for name in spaces if name != "raw, dense")
    return Hyperparameter(
        "centred", "the space of the residual; see the equation", "suite: the paper does not say", choices
    )


SAMPLED_ONLY = ("moving", "token_logprob")
"""Spaces in which the sampled token alone has a target."""


def conflict(hyper: Hyper) -> str | None:
    if is_dense(hyper) and hyper["target_space"] in SAMPLED_ONLY:
        return (
            f"target_space {hyper['target_space']} knows the sampled token only, but estimator {hyper['estimator']} gives "
            "every token an advantage; use centred or raw"
        )
    return conflict_of_target(hyper)
