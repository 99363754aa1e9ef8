"""The language-model head: hidden states become per-token statistics and losses, a chunk of tokens at a time."""

from lco.heads.linear import LinearHead, OldHead, differentiable_statistics, statistics, token_loss
from lco.heads.statistics import STATISTICS, logcosh

__all__ = ["STATISTICS", "LinearHead", "OldHead", "differentiable_statistics", "logcosh", "statistics", "token_loss"]
