"""The language-model head: hidden states become per-token statistics and losses, a chunk of tokens at a time."""

from lco.heads.chunk import Target
from lco.heads.linear import FixedHead, LinearHead, row_loss, spread, statistics, token_loss
from lco.heads.statistics import STATISTICS, logcosh, statistic

__all__ = [
    "STATISTICS",
    "FixedHead",
    "LinearHead",
    "Target",
    "logcosh",
    "row_loss",
    "spread",
    "statistic",
    "statistics",
    "token_loss",
]
