"""Whether a sampler and a trainer are the same policy, asked of a few tokens before anything is built on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from lco.errors import UserError
from lco.rollout.records import Batch, Row, Sampler, Sampling, collate, refuse_unrecorded

GAP_LIMIT = {"float32": 0.01, "bfloat16": 0.2}
"""Mean |Δ log p| a token between sampler and trainer above which a run stops: ten times what agreeing engines show."""

PROMPTS, TOKENS = 4, 8
"""What is sampled for the comparison: prompts, and the most tokens of each response."""

Prompts = Sequence[tuple[str, tuple[int, ...]]]


def check_agreement(
    sampler: Sampler | None, logprob: Callable[[Batch], Tensor], gather: Callable[[Any], list[Any]],
    prompts: Prompts, sampling: Sampling, dtype: str,
) -> float:  # fmt: skip
    """Samples a few tokens and compares their log-probabilities with the trainer's; to be called right after the first
    synchronisation, on every rank.

    Args:
        sampler: this rank's, None where it has none.
        logprob: log p [B, T] of the trainer's policy; called once on every rank, with the same rows.
        gather: the engine's.
        prompts: (group id, ids); the first ones are asked.
        sampling: of the rollouts; its temperature is the policy's.
        dtype: of the model, which decides how much is noise.

    Returns:
        The mean |Δ log p| of a token, nats.

    Raises:
        UserError: it is far above noise, so one of them has other weights, or computes this class of model in another way; or
            the sampler does not record what `sampling` asks for.
    """
    short = replace(sampling, samples=1, max_new_tokens=min(TOKENS, sampling.max_new_tokens))
    mine = sampler.sample(prompts[:PROMPTS], short, seed=0) if sampler is not None else []
    rows: list[Row] = next((found for found in gather(mine) if found), [])
    if not rows:
        return 0.0
    if sampling.top:
        refuse_unrecorded(rows, sampling.top)
    gap = mean_gap(rows, logprob(collate(rows)))
    if not gap <= GAP_LIMIT[dtype]:
        raise UserError(
            f"sampler and trainer differ by {gap:.3g} a token (limit {GAP_LIMIT[dtype]}) right after the weights were handed "
            "over: the sampler has other weights or computes this class of model in another way; try --rollouts transformers"
        )
    return gap


def mean_gap(rows: Sequence[Row], logprob: Tensor) -> float:
    """Mean |Δ log p| over the tokens of the rows.

    Args:
        logprob: [B, T], the trainer's.
    """
    gaps = [
        abs(ours - theirs)
        for row, own in zip(rows, logprob.tolist(), strict=True)
        for ours, theirs in zip(own, row.logprobs, strict=False)
    ]
    return sum(gaps) / max(1, len(gaps))
