"""Rows of preference pairs: row 2i is the right answer of pair i, row 2i + 1 the wrong one."""

from __future__ import annotations

from torch import Tensor


def lengths(mask: Tensor) -> Tensor:
    """[B, T] → [B] tokens of each row, at least 1."""
    return mask.sum(1).clamp(min=1)


def over_tokens(per_pair: Tensor, mask: Tensor) -> Tensor:
    """[B/2] → [B, T]: each pair's loss spread evenly over the tokens of its two rows, so that their sum is the loss."""
    count = mask.sum(1)
    tokens = (count[0::2] + count[1::2]).clamp(min=1)
    return (per_pair / tokens).repeat_interleave(2)[:, None] * mask
