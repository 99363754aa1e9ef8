"""Generalised advantage estimation (1506.02438) over the real tokens of right-padded rows."""

from __future__ import annotations

import torch
from torch import Tensor


def terminal_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    """[B] → [B, T]: the reward on the last sampled token, found by mask; nothing for empty rows."""
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return last * rewards[:, None]


def penalised_rewards(
    rewards: Tensor, mask: Tensor, beta: float, old_logprob: Tensor | None, ref_logprob: Tensor | None
) -> Tensor:
    """[B, T]: r_t = 1[t = L] R − β (ℓ_old − ℓ_ref)_t, the KL to the reference by k1 inside the reward.

    As a reward k1 is right; as a loss its expected gradient would be zero. `old_logprob` and `ref_logprob` [B, T] are read
    where β > 0 alone.
    """
    token_rewards = terminal_rewards(rewards, mask)
    if not beta:
        return token_rewards
    assert old_logprob is not None
    assert ref_logprob is not None
    return token_rewards - beta * torch.where(mask, old_logprob - ref_logprob, 0.0)


def return_to_go(token_rewards: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: G_t = Σ_{u ≥ t} r_u over real tokens, undiscounted; 0 where padded."""
    return torch.where(mask, token_rewards, 0.0).flip(1).cumsum(1).flip(1) * mask


def gae(token_rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """δ_t = r_t + γ V_{t+1} − V_t and Â_t = δ_t + γλ Â_{t+1}, with V = Â = 0 after the last sampled token.

    Args:
        token_rewards, values: [B, T]; V_t is the value before token t. Padding is ignored whatever it holds.
        mask: [B, T] bool. A token between sampled ones that was put in is passed over.

    Returns:
        advantages and returns Â + V, [B, T] each, 0 where padded.
    """
    assert token_rewards.shape == values.shape == mask.shape
    values = torch.where(mask, values, 0.0)
    token_rewards = torch.where(mask, token_rewards, 0.0)
    advantages = torch.zeros_like(values)
    running, following = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        # At pads everything is 0 and stays so, so the recursion starts at the last sampled token.
        delta = token_rewards[:, t] + gamma * following - values[:, t]
        running = torch.where(mask[:, t], delta + gamma * lam * running, running)
        following = torch.where(mask[:, t], values[:, t], following)
        advantages[:, t] = running
    return advantages * mask, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(x − mean) / std over masked tokens (ddof 0); 0 where all are equal; unchanged for one token."""
    chosen = values[mask]
    if len(chosen) <= 1:
        return values
    # Equal values may differ from their own mean in the last bit, and a division by that would make them ±1.
    if chosen.max() == chosen.min():
        return torch.zeros_like(values)
    return torch.where(mask, (values - chosen.mean()) / chosen.std(correction=0).clamp(min=1e-8), 0.0)
