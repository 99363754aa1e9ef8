"""What the three LCO losses share: the tilt of the sampled token, c = A/β (methods.md A.1, A.2.1, A.14)."""

from __future__ import annotations

from torch import Tensor

from lco.advantages import centred, leave_one_out, standardised, tilt
from lco.methods.method import Hyper, Hyperparameter, Signal

PAPER = "Stabilizing Policy Optimization via Logits Convexity (arXiv 2603.00963)"

TILT_HYPERPARAMETERS = {
    "beta": Hyperparameter(
        2.0,
        "KL weight of the RL objective; the tilt is A/beta, a trust region of TV tanh(|A|/(4 beta)) per token",
        "released code's runner default; the paper's value is unknown",
    ),
    "beta_negative_scale": Hyperparameter(
        1.0,
        "beta is multiplied by this where A < 0; 100 in the released code (in effect positive-only learning)",
    ),
    "advantage": Hyperparameter(
        "group_mean",
        "A of every token of a row: R minus the group's mean; minus the others' mean; standardised; or ±1",
        "suite; the released code broadcasts ±1",
        ("group_mean", "leave_one_out", "group_std", "sign_broadcast"),
    ),
}


def row_advantage(signal: Signal, kind: str) -> Tensor:
    """[B] advantages of whole rows."""
    match kind:
        case "group_mean":
            return centred(signal.rewards, signal.groups)
        case "leave_one_out":
            return leave_one_out(signal.rewards, signal.groups)
        case "group_std":
            return standardised(signal.rewards, signal.groups)
        case _:
            return (signal.rewards > 0).float() * 2 - 1


def tilted_advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    """{"advantage": [B, T], "tilt": [B, T]}: the row's advantage on each of its tokens, and c = A/β."""
    advantage = row_advantage(signal, hyper["advantage"])[:, None] * signal.mask
    return {"advantage": advantage, "tilt": tilt(advantage, hyper["beta"], hyper["beta_negative_scale"])}
