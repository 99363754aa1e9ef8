"""The verifier language model of LCO's log-probability advantage (arXiv 2603.00963; constants of the released code).

    L = −log σ(β_q (l̄_w − l̄_l) − γ_q) − c_s l̄_w                                              per pair

with l̄ the mean log-probability of a response's tokens, w a right and l a wrong answer to one problem, both sampled from
the start model and verified. The margin makes right answers likelier than wrong ones by γ_q/β_q nats a token, the
cross-entropy on the right answer keeps the model a language model; no reference is needed. Its next-token
log-probabilities are then the dense advantage log π_ver (`estimator=logprob`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import softplus

from lco.heads import TokenFunction
from lco.methods.lco_common import PAPER
from lco.methods.method import Hyper, Hyperparameter, Method
from lco.methods.objective import Needs, Signal
from lco.methods.pairs import lengths, over_tokens


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return {"advantage": (2 * signal.rewards - 1)[:, None] * signal.mask, "mask": signal.mask.float()}


def mean_logprobs(logprob: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(l̄_w, l̄_l), [B/2] each."""
    means = (logprob * mask).sum(1) / lengths(mask)
    return means[0::2], means[1::2]


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        right, wrong = mean_logprobs(s["logprob"], x["mask"])
        preference = softplus(hyper["margin"] - hyper["beta"] * (right - wrong))
        return over_tokens(preference - hyper["imitation"] * right, x["mask"])

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    right, wrong = mean_logprobs(s["logprob"], mask.float())
    return {"margin": float((right - wrong).mean()), "margin_positive": float((right > wrong).float().mean())}


PREFERENCE_VERIFIER = Method(
    name="preference_verifier",
    page=__doc__,
    title="preference verifier",
    family="preference",
    paper=PAPER,
    summary="Trains the verifier model that LCO's log-probability advantage reads, on right and wrong answers.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="pair_mean",
    reductions=(),
    own_reduction="is a loss of pairs of answers, whose mean is part of it",
    hyperparameters={
        "beta": Hyperparameter(
            0.2, "β_q: weight of the difference of mean log-probabilities", "released code", above=0
        ),
        "margin": Hyperparameter(2.0, "γ_q: subtracted inside the sigmoid", "released code", least=0),
        "imitation": Hyperparameter(
            1.0, "c_s: weight of the cross-entropy on the right answer", "released code", least=0
        ),
    },
    scope="pair",
    source="pairs",
    needs=lambda hyper: Needs(group=True),
    metrics=metrics,
    certainty="read in the released code; the paper's own description was not available",
)
