"""Rewards become advantages, and for LCO advantages become targets."""

from lco.advantages.dense import LogProbabilityTilt, PreferenceRatioTilt
from lco.advantages.gae import gae, penalised_rewards, return_to_go, terminal_rewards, whiten
from lco.advantages.group import (
    centred,
    degenerate,
    group_mean,
    group_sizes,
    leave_one_out,
    soft_leave_one_out,
    standardised,
)
from lco.advantages.sparse import SparseTarget, SparseTilt, sparse_target, tilt

__all__ = [
    "LogProbabilityTilt",
    "PreferenceRatioTilt",
    "SparseTarget",
    "SparseTilt",
    "centred",
    "degenerate",
    "gae",
    "group_mean",
    "group_sizes",
    "leave_one_out",
    "penalised_rewards",
    "return_to_go",
    "soft_leave_one_out",
    "sparse_target",
    "standardised",
    "terminal_rewards",
    "tilt",
    "whiten",
]
