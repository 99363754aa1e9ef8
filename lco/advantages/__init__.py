"""Rewards become advantages: pure functions of a rollout's rewards, groups and values."""

from lco.advantages.gae import gae, penalised_rewards, return_to_go, terminal_rewards, whiten
from lco.advantages.group import (
    centred,
    degenerate,
    group_mean,
    group_sizes,
    leave_one_out,
    soft_leave_one_out,
    standardised,
    weighted_leave_one_out,
)

__all__ = [
    "centred",
    "degenerate",
    "gae",
    "group_mean",
    "group_sizes",
    "leave_one_out",
    "penalised_rewards",
    "return_to_go",
    "soft_leave_one_out",
    "standardised",
    "terminal_rewards",
    "weighted_leave_one_out",
    "whiten",
]
