"""DPO: preference pairs without a reward model (arXiv 2305.18290).

    L = −log σ(m),   m = β [(Σℓ_w − Σℓ_w,ref) − (Σℓ_l − Σℓ_l,ref)]                          per pair

w is a right and l a wrong answer to one problem, both sampled from the reference policy (the start model) and verified;
sums run over a response's tokens. The weight of the right answer's tokens is β σ(−m), of the wrong one's −β σ(−m). Here
it is what LCO's preference-ratio advantage reads (`estimator=dpo_ratio`): β_dpo (log π_dpo − log π_ref) is the advantage
that the trained model implies for every token.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import softplus

from lco.heads import TokenFunction
from lco.methods.method import Hyper, Hyperparameter, Method
from lco.methods.objective import Needs, Signal
from lco.methods.pairs import lengths, over_tokens


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    """±1 for right and wrong; the loss reads the reference's log-probabilities."""
    assert signal.ref_logprob is not None
    return {
        "advantage": (2 * signal.rewards - 1)[:, None] * signal.mask,
        "ref_logprob": signal.ref_logprob,
        "mask": signal.mask.float(),
    }


def margin(logprob: Tensor, ref_logprob: Tensor, mask: Tensor, beta: float) -> Tensor:
    """m of every pair, [B/2], from [B, T] tables."""
    gain = ((logprob - ref_logprob) * mask).sum(1)
    return beta * (gain[0::2] - gain[1::2])


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        m = margin(s["logprob"], x["ref_logprob"], x["mask"], hyper["beta"])
        return over_tokens(softplus(-m), x["mask"])

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    m = margin(s["logprob"], x["ref_logprob"], mask.float(), hyper["beta"])
    right = ((s["logprob"] - x["ref_logprob"]) * mask).sum(1)[0::2] / lengths(mask.float())[0::2]
    return {
        "margin": float(m.mean()),
        "margin_positive": float((m > 0).float().mean()),
        "right_logprob_drift": float(right.mean()),
    }


DPO = Method(
    name="dpo",
    page=__doc__,
    title="DPO",
    family="preference",
    paper="Direct Preference Optimization (arXiv 2305.18290)",
    summary="Preference pairs of right and wrong answers against a reference policy.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="pair_mean",
    reductions=(),
    own_reduction="is a loss of pairs of answers, whose mean is part of it",
    hyperparameters={"beta": Hyperparameter(0.1, "β of the margin", "paper; TRL", above=0)},
    scope="pair",
    source="pairs",
    needs=lambda hyper: Needs(group=True, reference=True),
    metrics=metrics,
    certainty="certain",
)
