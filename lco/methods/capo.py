"""CAPO: tokens whose optimizer step is predicted to go wrong are left out of the update (arXiv 2510.00819).

Only the head is taken to move. For each token the step that the optimizer would make of that token's own gradient moves its
logits by δ = lr · G h (`lco.heads.step`); with v = e_a − π, s = vᵀδ and the Fisher matrix F = diag π − ππᵀ

    m_F = ½ s²                          the change of the policy, by the empirical Fisher matrix
    m_H = A s + ½ A (s² − δᵀF δ)        the change of A π′(a)/π(a), to second order

and a token stays in the loss iff m_F < δ_F and |m_H| < δ_H (`symmetric`, what is released) or, as the paper has it, δ_low ≤ m_H ≤
δ_H and m_F ≤ δ_F (`band`). The loss is GRPO's per token, of those that stay; a row without any leaves the count of rows.

With `optimizer=sgd` and `direction=token`, s = lr A ‖v‖² ‖h‖²: the Fisher bound is one on lr |A| ‖v‖² ‖h‖², so it removes what
was sampled against the odds, ‖v‖² = 1 − 2π(a) + Σ π². `adam` reads the optimizer's moments of the head before the step and its
current learning rate; before there are any moments, plain descent stands for it. `direction=batch`, which is this suite's, asks
what the minibatch's own step, before any token is left out, does to each token; it costs a further pass. DeepSpeed spreads both
over its ranks, so under it the step is plain descent and each token's own (`optimizer=sgd`).

`top` likeliest tokens and the sampled one stand for the vocabulary, π made a distribution on them (the released code: as many as
its sampler draws from, 50); 0 takes all, which is exact. The released code keeps moments of its own for the head; here they
are the optimizer's, whose gradients were averaged over a minibatch and clipped, and where the head is tied they hold the
embedding's gradients too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from lco.advantages import centred
from lco.heads import TokenFunction
from lco.losses import Reduction, token_scale
from lco.methods.grpo import BETA, CLIP, DUAL_CLIP, GRPO, advantage, dual_clip_conflict, with_reference
from lco.methods.grpo import loss as base_loss
from lco.methods.grpo import metrics as base_metrics
from lco.methods.method import Hyper, Hyperparameter, Method, Prepare, Preset, When
from lco.methods.objective import Needs, Prepared, Signal, StepNeeds


def centred_advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return with_reference(signal, {"advantage": centred(signal.rewards, signal.groups)[:, None] * signal.mask})


def reward(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return with_reference(signal, {"advantage": signal.rewards[:, None] * signal.mask})


def kept(s: Mapping[str, Tensor], a: Tensor, hyper: Hyper) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """([B, T] bool where the Fisher bound and where the curvature bound holds, m_F, m_H)."""
    slope, spread = s["step_slope"], s["step_spread"]
    fisher, hessian = slope.square() / 2, a * (slope + (slope.square() - spread) / 2)
    if hyper["hessian_rule"] == "symmetric":
        return fisher < hyper["delta_fisher"], hessian.abs() < hyper["delta_hessian"], fisher, hessian
    band = (hessian >= hyper["hessian_low"]) & (hessian <= hyper["delta_hessian"])
    return fisher <= hyper["delta_fisher"], band, fisher, hessian


def mask_tokens(
    reduction: Reduction,
) -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor, Hyper], Prepared]:
    """Before an update: which tokens stay, as a `weight` that is 0 for the others and makes the mean one over those that do."""

    def choose(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> Prepared:
        small, flat, fisher, hessian = kept(s, x["advantage"], hyper)
        stays, count = mask & small & flat, mask.sum().clamp(min=1)
        whole = token_scale(mask, reduction, x["advantage"], limit=1)
        weight = token_scale(stays, reduction, x["advantage"], limit=1) / whole.where(mask, whole.new_ones(()))
        numbers = {
            "rejected": float((mask & ~stays).sum() / count),
            "rejected_fisher": float((mask & ~small).sum() / count),
            "rejected_hessian": float((mask & ~flat).sum() / count),
            "predicted_fisher": float(fisher.where(mask, fisher.new_zeros(())).sum() / count),
            "predicted_hessian": float(hessian.where(mask, hessian.new_zeros(())).sum() / count),
        }
        notes = {}
        if not bool(stays.any()):
            notes["minibatches_all_rejected"] = (
                "every token of a minibatch is left out, so it teaches nothing; raise delta_fisher, delta_hessian, or lower --lr"
            )
        return Prepared({"weight": weight}, numbers, notes)

    return choose


def loss(hyper: Hyper) -> TokenFunction:
    base = base_loss(hyper)

    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return x["weight"] * base(s, x)

    return per_token


def needs(hyper: Hyper) -> Needs:
    step = StepNeeds(
        moments=hyper["optimizer"] == "adam", gradient=hyper["direction"] == "batch", top=int(hyper["top"])
    )
    return Needs(group=True, reference=hyper["beta"] > 0, head_step=step, on_ranks="optimizer=sgd direction=token")


PAPER = "Stabilizing Policy Gradients for Sample-Efficient RL in LLM Reasoning (arXiv 2510.00819)"
SETTINGS = {
    "lr": 1.5e-5, "prompts_per_step": 12, "samples": 8, "steps": 100, "minibatches": 1, "epochs": 1,
    "max_prompt_tokens": 512, "max_new_tokens": 1024,
}  # fmt: skip
RECIPE = "the released recipes, Qwen2.5-Math-7B on MATH, without their warm-up and cosine"
STATISTICS = ("step_slope", "step_spread")


def conflict(hyper: Hyper) -> str | None:
    low, high = hyper["hessian_low"], hyper["delta_hessian"]
    if hyper["hessian_rule"] == "band" and low > high:
        return f"hessian_low is {low}, above delta_hessian {high}: no token lies between"
    return dual_clip_conflict(hyper)


CAPO = Method(
    name="capo",
    page=__doc__,
    title="CAPO",
    paper=PAPER,
    summary="GRPO without the tokens whose optimizer step is predicted to be large or curved.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    reductions=(),
    own_reduction="weighs the tokens that stay so that its own mean is over them alone",
    hyperparameters={
        "delta_fisher": Hyperparameter(1e-4, "δ_F: bound on m_F", "released code", above=0),
        "delta_hessian": Hyperparameter(0.01, "δ_H: bound on m_H", "released code", above=0),
        "hessian_rule": Hyperparameter(
            "symmetric", "bound |m_H|, or m_H from below and above", "released code", ("symmetric", "band")
        ),
        "hessian_low": Hyperparameter(
            0.0, "least m_H of a token that stays", "released code without its symmetric bound",
            when=(When("hessian_rule", ("band",)),), least=0,
        ),
        "optimizer": Hyperparameter(
            "adam", "the step's model: the run's own Adam, or plain descent", "released code", ("adam", "sgd")
        ),
        "direction": Hyperparameter(
            "token", "whose gradient makes the step", "paper; batch is this suite's", ("token", "batch")
        ),
        "top": Hyperparameter(50, "likeliest tokens that stand for the vocabulary (0: all of it)", "released code", least=0),
        "clip": CLIP,
        "dual_clip": DUAL_CLIP,
        "beta": BETA,
        "ddof": GRPO.hyperparameters["ddof"],
        "epsilon_std": Hyperparameter(1e-4, "added to the standard deviation", "released code", above=0),
    },
    paper_preset=Preset(settings=SETTINGS, source=RECIPE),
    needs=needs,
    prepare=Prepare(STATISTICS, mask_tokens("seq_mean_token_mean")),
    conflict=conflict,
    metrics=base_metrics,
    certainty="formulae and released code certain; that each token has a step of its own, in the paper, is from a secondary page",
)  # fmt: skip

UNSCALED = {name: knob for name, knob in CAPO.hyperparameters.items() if name not in ("ddof", "epsilon_std")}

DR_CAPO = CAPO.variant(
    name="dr_capo",
    title="Dr. CAPO",
    summary="CAPO on Dr. GRPO: advantages are only centred, the divisor is the configured length.",
    hyper={"delta_fisher": 1e-3, "delta_hessian": 5e-4},
    advantage=centred_advantage,
    reduction="seq_mean_token_sum_const",
    prepare=Prepare(STATISTICS, mask_tokens("seq_mean_token_sum_const")),
    paper_preset=Preset(settings=SETTINGS, source=RECIPE),
)

REIN_CAPO = CAPO.variant(
    name="rein_capo",
    title="ReinCAPO",
    summary="CAPO with the reward itself as the advantage, without a baseline.",
    hyper={"delta_fisher": 1e-5, "delta_hessian": 0.1},
    advantage=reward,
    needs=lambda hyper: replace(needs(hyper), group=False),
    paper_preset=Preset(settings=SETTINGS, source=RECIPE + "; this one's file is named there but absent"),
)
