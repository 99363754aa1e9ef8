"""What the LCO losses share: where the tilt c = A/β of the optimal policy π* ∝ π_old e^c comes from (arXiv 2603.00963).

`advantage` names a registered method, whose advantage at its defaults is A, with what that needs, a critic included; or one
of `OTHER_ADVANTAGES`. `estimator` says which tokens carry an advantage:

sparse       A on the sampled token alone, from rewards
sparse_ips   the same divided by π_old(a), which makes its expectation A (this suite's, not the paper's)
logprob      A(v) = log π_ver(v), a verifier language model over the whole vocabulary
dpo_ratio    A(v) = β_dpo (log π_dpo(v) − log π_ref(v)), a DPO model and its reference
"""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any

from torch import Tensor

from lco.errors import UserError, nearest
from lco.heads import Target
from lco.heads.mixture import TILT_BOUND
from lco.methods import METHODS
from lco.methods.method import Hyper, Hyperparameter, Preset, When
from lco.methods.objective import Needs, Objective, Signal
from lco.policy import ValueFunction
from lco.targets import LogProbabilityTilt, PreferenceRatioTilt, SparseTilt, UnbiasedSparseTilt

PAPER = "Stabilizing Policy Optimization via Logits Convexity (arXiv 2603.00963)"

RELEASED = "released code"

ESTIMATORS: dict[str, type[Any]] = {
    "sparse": SparseTilt,
    "sparse_ips": UnbiasedSparseTilt,
    "logprob": LogProbabilityTilt,
    "dpo_ratio": PreferenceRatioTilt,
}
"""estimator → its target; a target's fields are the knobs that the estimator reads"""

DENSE = tuple(name for name, target in ESTIMATORS.items() if target.dense)
SPARSE = tuple(name for name in ESTIMATORS if name not in DENSE)


def readers(knob: str) -> tuple[When, ...]:
    """The estimators that own a knob."""
    return (
        When("estimator", tuple(n for n, target in ESTIMATORS.items() if knob in {f.name for f in fields(target)})),
    )


OTHER_ADVANTAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "reward": ("reinforce", {"baseline": "none"}),
    "running_mean": ("reinforce", {"baseline": "running_mean"}),
    "group_mean": ("dr_grpo", {}),
    "leave_one_out": ("rloo", {}),
    "soft_leave_one_out": ("pmd_partition", {}),
    "group_std": ("grpo", {}),
    "batch_mean": ("reinforce", {}),
    "batch_std": ("reinforce_pp", {}),
    "gae": ("ppo", {}),
}
"""Names of advantages → (method, its knobs): two that no method has at its defaults, and what older records call the rest."""

SIGN = "sign_broadcast"
"""±1 on every token of a right or wrong row, as the released code has it."""

BETA = Hyperparameter(
    2.0,
    "KL weight of the RL objective; the tilt is A/beta, a trust region of TV tanh(|A|/(4 beta)) per token",
    "released code's runner default; the paper's value is unknown",
    above=0,
)

ADVANTAGE = Hyperparameter(
    "dr_grpo",
    "A of every token: a method's name takes that method's advantage at its defaults, and its critic; or reward (R itself), "
    f"running_mean (R minus that of earlier rollouts), {SIGN} (±1)",
    "suite: R minus the group's mean; the released code broadcasts ±1",
)


def released_preset(**own: Any) -> Preset:
    """What the released code's runners start with; `own` are the knobs by which one loss departs from its equation."""
    return Preset(
        hyper={"beta": 2.0, "beta_negative_scale": 100.0, "advantage": SIGN, **own},
        settings={
            "lr": 1e-5,
            "dtype": "bfloat16",
            "samples": 1,
            "temperature": 1.0,
            "max_new_tokens": 1024,
            "epochs": 1,
        },
        source="entry points of the authors' released code (github.com/homzer/llama-rlhf); the paper's own values are unknown",
    )


TARGET_HYPERPARAMETERS = {
    "beta": BETA,
    "estimator": Hyperparameter(
        "sparse",
        "which tokens carry an advantage: the sampled one, the same unbiased, or all by a verifier or a DPO model",
        "paper (sparse, logprob, dpo_ratio); sparse_ips is the suite's",
        tuple(ESTIMATORS),
    ),
    "advantage": Hyperparameter(ADVANTAGE.default, ADVANTAGE.help, ADVANTAGE.source, when=(When("estimator", SPARSE),)),
    "beta_negative_scale": Hyperparameter(
        1.0,
        "beta is multiplied by this where A < 0; 100 in the released code (in effect positive-only learning)",
        when=readers("beta_negative_scale"),
        above=0,
    ),
    "tilt_bound": Hyperparameter(
        TILT_BOUND, "the tilt A/beta is clamped to ± this", when=readers("tilt_bound"), above=0, most=80
    ),
    "least_probability": Hyperparameter(
        0.05, "the advantage is divided by max(π_old(a), this)", when=readers("least_probability"), above=0, most=1
    ),
    "beta_dpo": Hyperparameter(
        0.1,
        "the β that the DPO model was trained with",
        "DPO's own default",
        when=(*readers("beta_dpo"), When("dense_scale", ("none",))),
        above=0,
    ),
    "dense_top": Hyperparameter(
        0, "restrict to so many tokens (0: none; 5 in the released code)", when=readers("dense_top"), least=0
    ),
    "dense_scale": Hyperparameter(
        "none",
        "top_std divides by the standard deviation over the dense_top tokens",
        "suite: none; the released code: top_std",
        ("none", "top_std"),
        when=readers("dense_scale"),
    ),
    "agreement_scale": Hyperparameter(
        1.0,
        "beta is multiplied by this where policy and verifier are sure of the sampled token",
        when=readers("agreement_scale"),
        above=0,
    ),
}


@functools.cache
def lender(advantage: str) -> Objective | None:
    """The method whose advantage this is, bound once; None for ±1.

    Raises:
        UserError: no method of that name, or one that has no advantage to lend.
    """
    if advantage == SIGN:
        return None
    name, knobs = OTHER_ADVANTAGES.get(advantage, (advantage, {}))
    if name not in METHODS:
        raise UserError(f"advantage is {name!r}{nearest(name, [*METHODS, *OTHER_ADVANTAGES, SIGN])}")
    if METHODS[name].source != "rollouts" or "advantage" in METHODS[name].hyperparameters:
        raise UserError(
            f"advantage is {name!r}, which has none of its own to lend; name a method that learns from rewards"
        )
    return METHODS[name].bind(knobs)


def broadcast_advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    """{"advantage": [B, T], …}: the lending method's inputs, or ±1; a dense estimator does not read it."""
    method = lender(hyper["advantage"])
    if method is None:
        return {"advantage": ((signal.rewards > 0).float() * 2 - 1)[:, None] * signal.mask}
    return dict(method.advantage(signal))


def needs(hyper: Hyper) -> Needs:
    """What the lending method's advantage reads; what its loss, its refill and its warm-up need stays its own."""
    method = lender(hyper["advantage"])
    found = Needs() if method is None else method.needs
    return Needs(
        group=found.group,
        reference=found.reference,
        old_logprob=found.old_logprob,
        length_limit=found.length_limit,
        row_norms=found.row_norms,
    )


def value_loss(hyper: Hyper) -> ValueFunction | None:
    """The critic's loss where the lending method has a critic."""
    method = lender(hyper["advantage"])
    return None if method is None else method.value_loss


def target_of(hyper: Hyper, **own: Any) -> Target:
    """The estimator's target with the knobs that it owns; `own` are values that a loss sets itself, where they apply."""
    target = ESTIMATORS[hyper["estimator"]]
    known = {**hyper, **own}
    return target(**{f.name: known[f.name] for f in fields(target) if f.name in known})


def is_dense(hyper: Hyper) -> bool:
    return hyper["estimator"] in DENSE


def conflict(hyper: Hyper) -> str | None:
    """Why the estimator's knobs do not go together, if they do not."""
    if is_dense(hyper) and hyper["dense_scale"] == "top_std" and not hyper["dense_top"]:
        return "dense_scale top_std is the spread over the dense_top tokens, but dense_top is 0; give dense_top=5"
    return None
