"""Generalised advantage estimation (1506.02438) over the real tokens of right-padded rows."""

from __future__ import annotations

import torch
from torch import Tensor


def terminal_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    """[B] → [B, T]: the reward on the last sampled token, found by mask; nothing for empty rows."""
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return last * rewards[:, None]


def gae(token_rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """δ_t = r_t + γ V_{t+1} − V_t and Â_t = δ_t + γλ Â_{t+1}, with V = Â = 0 after the last sampled token.

    Args:
        token_rewards, values: [B, T]; V_t is the value before token t. Padding is ignored whatever it holds.
        mask: [B, T] bool, a prefix of each row.

    Returns:
        advantages and returns Â + V, [B, T] each, 0 where padded.
    """
    assert token_rewards.shape == values.shape == mask.shape
    values = torch.where(mask, values, 0.0)
    token_rewards = torch.where(mask, token_rewards, 0.0)
    advantages = torch.zeros_like(values)
    running, following = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        # At pads everything is 0, so the recursion starts afresh at the last real token.
        delta = token_rewards[:, t] + gamma * following - values[:, t]
        running = delta + gamma * lam * running
        advantages[:, t] = running
        following = values[:, t]
    return advantages * mask, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(x − mean) / std over masked tokens (ddof 0); 0 where the standard deviation is 0; unchanged for one token."""
    count = mask.sum()
    if count <= 1:
        return values
    mean = values[mask].mean()
    std = values[mask].std(correction=0)
    return torch.where(mask & (std > 0), (values - mean) / std.clamp(min=1e-8), 0.0)
