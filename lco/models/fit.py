"""Whether the suite's arithmetic is the model's own: asked of the loaded model itself, not of a list of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lco.errors import UserError

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest relative difference between two ways to compute the same numbers; what is looked for here is far above it."""


@torch.no_grad()
def check_fit(model: nn.Module, name: str) -> None:
    """Refuses a model whose logits at a position are not a linear head on the hidden state of the tokens up to there.

    Losses, old policies and log-probabilities all rest on that.

    Raises:
        UserError: the model has no head, looks at later tokens (an encoder), or changes its logits after the head (a
            soft-cap, a scale).
    """
    network: Any = model
    said = f"{name} ({type(model).__name__})"
    head = network.get_output_embeddings()
    if head is None:
        raise UserError(f"{said} has no language-model head; give a causal language model")
    ids = probe(network)
    try:
        states, own = hidden_states(network, ids), network(input_ids=ids, use_cache=False).logits
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{said} cannot be asked for the hidden states of its tokens ({reason}); give another"
        ) from None
    half = ids.shape[1] // 2
    if far(states[0, :half], states[1, :half]):
        raise UserError(
            f"{said} reads later tokens when it predicts one, so it is an encoder; give a causal language model"
        )
    if far(head(states), own):
        raise UserError(
            f"{said} changes its logits after the linear head (a soft-cap, a scale, a layer of its own), which the suite does "
            "not compute; give a model whose logits are the head's"
        )


def hidden_states(network: Any, ids: Tensor) -> Tensor:
    """[B, S, d]: what the policy reads, asked for as the policy does."""
    mask = torch.ones_like(ids)
    found = network.base_model(
        input_ids=ids, attention_mask=mask, position_ids=mask.cumsum(1) - 1, use_cache=False
    ).last_hidden_state
    assert isinstance(found, Tensor)
    return found


def probe(network: Any) -> Tensor:
    """[2, S] ids: two rows alike in the first half and different in the second."""
    rows = network.get_input_embeddings().weight.shape[0]
    length = min(8, getattr(network.config, "max_position_embeddings", None) or 8)
    ids = torch.arange(3, 3 + length).repeat(2, 1)
    ids[1, length // 2 :] += length
    return (ids % rows).to(network.device)


def far(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors that should agree differ by more than rounding."""
    difference = torch.linalg.vector_norm(a.float() - b.float()) / torch.linalg.vector_norm(b.float()).clamp(min=1e-12)
    return not bool(difference < TOLERANCE.get(a.dtype, 5e-2))
