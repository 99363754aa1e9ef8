"""GRPO: PPO's clipped surrogate with the group as baseline (arXiv 2402.03300 §4).

    L = −min(r A, clip(r, 1 − ε, 1 + ε) A) + β k3(ℓ, ℓ_ref)   per token, averaged over each row's tokens, then over rows

with r = π_θ(a)/π_old(a), A = (R − mean)/(std + ε_std) within the group, and k3 = e^x − 1 − x, x = ℓ_ref − ℓ. A group whose
rewards are all equal has A = 0. With binary rewards of success rate s, A is √((1 − s)/s) or −√(s/(1 − s)): rare outcomes
weigh up to √(G − 1).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import standardised
from lco.heads import TokenFunction
from lco.losses import clip_shares, clipped_surrogate, k3, ratio
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rows = standardised(signal.rewards, signal.groups, hyper["ddof"], hyper["epsilon_std"])
    return with_reference(signal, {"advantage": rows[:, None] * signal.mask})


def with_reference(signal: Signal, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs, and the reference policy's log-probabilities where the loop was asked for them."""
    return inputs if signal.ref_logprob is None else {**inputs, "ref_logprob": signal.ref_logprob}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        surrogate = clipped_surrogate(r, x["advantage"], hyper["clip"], hyper["clip"], hyper["dual_clip"])
        return surrogate + hyper["beta"] * k3(s["logprob"], x["ref_logprob"]) if hyper["beta"] else surrogate

    return per_token


def needs(hyper: Hyper) -> Needs:
    return Needs(group=True, reference=hyper["beta"] > 0)


def dual_clip_conflict(hyper: Hyper) -> str | None:
    """A bound on the ratio below 1 would stop the gradient at the old policy itself."""
    if 0 < hyper["dual_clip"] < 1:
        return f"dual_clip is {hyper['dual_clip']}, below the ratio of the old policy itself; give 0 for none, or 1 or more"
    return None


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    r = ratio(s["logprob"], s["old_logprob"])
    found = clip_shares(r, x["advantage"], mask, hyper["clip"], hyper["clip"], hyper["dual_clip"])
    if hyper["beta"]:
        found["kl_reference"] = float((k3(s["logprob"], x["ref_logprob"]) * mask).sum() / mask.sum().clamp(min=1))
    return found


CLIP = Hyperparameter(0.2, "ε: the ratio is clipped to [1 − ε, 1 + ε]", "common in the field", least=0)
DUAL_CLIP = Hyperparameter(
    0.0, "bound on the ratio where A < 0 (0: none; 3 is usual)", "arXiv 1912.09729; TRL's delta", least=0
)
BETA = Hyperparameter(
    0.0, "β: weight of the KL to the reference policy, by k3 in the loss (0: none)", "common today", least=0
)

GRPO = Method(
    name="grpo",
    page=__doc__,
    title="GRPO",
    paper="DeepSeekMath (arXiv 2402.03300)",
    summary="Clipped surrogate with group-standardised advantages, averaged per response.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    hyperparameters={
        "clip": CLIP,
        "dual_clip": DUAL_CLIP,
        "beta": BETA,
        "ddof": Hyperparameter(
            1, "1: sample standard deviation, 0: population", "verl and TRL; the paper only says std", (0, 1)
        ),
        "epsilon_std": Hyperparameter(
            1e-6, "added to the standard deviation", "verl and TRL use 1e-6 to 1e-4", above=0
        ),
    },
    paper_preset=Preset(
        hyper={"beta": 0.04},
        settings={"lr": 1e-6, "samples": 64, "max_new_tokens": 1024, "minibatches": 1, "epochs": 1},
        source="the paper's §4 as remembered in the field, not re-read",
    ),
    needs=needs,
    conflict=dual_clip_conflict,
    metrics=metrics,
    certainty="certain",
)
