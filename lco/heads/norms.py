"""How large the gradient of a row's log-probability is, as far as it is the head's: ‖Σ_t (e_a − π) hᵀ‖² (float64 sums).

One [V, d] matrix at a time, and the logits of as many tokens as `CHUNK_ELEMENTS` are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lco.heads.linear import CHUNK_ELEMENTS, LinearHead


@torch.no_grad()
def row_score_norms(
    hidden: Tensor, head: LinearHead, tokens: Tensor, lengths: Sequence[int], chunk_size: int = 0
) -> Tensor:
    """[R] float64, 0 for a row without tokens.

    Args:
        hidden: [N, d] hidden states that predict the tokens, rows one after another.
        tokens: [N] sampled tokens.
        lengths: tokens of each of the R rows.
    """
    size = chunk_size or max(1, CHUNK_ELEMENTS // len(head.weight))
    total = torch.empty(head.weight.shape, dtype=head.wide, device=hidden.device)
    found = torch.zeros(len(lengths), dtype=torch.float64, device=hidden.device)
    rows = zip(hidden.split(list(lengths)), tokens.split(list(lengths)), strict=True)
    for row, (states, ids) in enumerate(rows):
        total.zero_()
        for some, sampled in zip(states.split(size), ids.split(size), strict=True):
            z = head.logits(some, torch.empty(len(some), len(head.weight), dtype=head.wide, device=some.device))
            away = z.softmax(1).neg_().scatter_add_(1, sampled[:, None], torch.ones_like(z[:, :1]))
            total.addmm_(away.T, some.to(head.wide))
        norms = torch.linalg.vector_norm(total, dim=1)  # by rows: their squares are then added in float64
        found[row] = norms.double().square().sum() / head.temperature**2
    return found
