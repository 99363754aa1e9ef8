"""The language-model head: hidden states become per-token statistics and losses, a chunk of tokens at a time."""

from lco.heads.chunk import Target
from lco.heads.linear import (
    FixedHead,
    HeadRequest,
    LinearHead,
    TokenFunction,
    row_loss,
    spread,
    token_loss,
    token_statistics,
)
from lco.heads.statistics import STATISTICS, logcosh, statistic
from lco.heads.step import HeadStep

__all__ = [
    "STATISTICS",
    "FixedHead",
    "HeadRequest",
    "HeadStep",
    "LinearHead",
    "Target",
    "TokenFunction",
    "logcosh",
    "row_loss",
    "spread",
    "statistic",
    "token_loss",
    "token_statistics",
]
