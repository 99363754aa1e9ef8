"""What a sampler is asked, what it returns, and how rows become tensors.

Tokens in, tokens out: ids are trained on exactly as sampled, nothing is decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from lco.errors import UserError


class DivergedError(UserError):
    """The policy's logits are no finite numbers, so that nothing can be sampled from it."""

    def __init__(self) -> None:
        super().__init__(
            "the model's logits are no finite numbers, so nothing can be sampled: its weights have diverged; lower --lr, or "
            "give another model"
        )


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """Every value that decides what is drawn. A checkpoint's generation_config.json never fills a gap, there is none.

    Attributes:
        temperature: divides the logits; 0 means greedy.
        top_p, top_k: truncation; 1.0 and 0 switch it off (train with both off, or ratios against the
            whole distribution are wrong).
        max_new_tokens: rows that reach it without an end token are marked truncated.
        samples: rows per prompt.
        stop_token_ids: all end tokens of the family; a row ends with any of them, and that token is kept.
        stop: stop strings; a row also ends with the token that completes one of them in its text, and that token is kept.
        thought_tokens: a thought that is still open after so many tokens is closed (rollout/thought.py); 0: never.
        top: so many of the likeliest tokens are recorded at every position, with their log-probabilities; 0: none.
    """

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    samples: int
    stop_token_ids: tuple[int, ...]
    top: int = 0
    stop: tuple[str, ...] = ()
    thought_tokens: int = 0


@dataclass(frozen=True, eq=False)
class TopTokens:
    """The K tokens that the sampler held likeliest before each of L response tokens, likeliest first.

    Attributes:
        ids: [L, K] int32.
        logprobs: [L, K] float32, at the sampling temperature (natural log).
    """

    ids: Tensor
    logprobs: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopTokens) and all(
            torch.equal(mine, theirs) for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Row:
    """One sampled response.

    Attributes:
        group: id of the prompt it answers; advantages are grouped by it, never by position.
        prompt_ids: ids of the prompt as sent.
        response_ids: ids as sampled, including the end token when there is one.
        finish_reason: "stop" when the last id is an end token or completes a stop string, "length" when the limit cut it.
        logprobs: the sampler's own log-probability of each response id at the sampling temperature (natural log).
        top: its likeliest tokens at every position, where `Sampling.top` asked for them.
        version: how many synchronisations the weights had seen that drew it, as a server said; None where the sampler is the
            trainer's own process, or its child.
        put_in: (first, behind the last) of the response's ids that were put in and not sampled: the end of a thought that had
            had its tokens. Nothing is learnt at them, and their `logprobs` are 0.
    """

    group: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[float, ...]
    top: TopTokens | None = field(default=None, hash=False)
    version: int | None = None
    put_in: tuple[int, int] = (0, 0)


OnRows = Callable[[Sequence[Row]], None]


class Sampler(Protocol):
    """Three implementations: transformers.py (shares the trainer's weights), vllm.py (has its own, synchronised) and
    vllm_server.py (asks servers that have their own)."""

    def sample(
        self,
        prompts: Sequence[tuple[str, tuple[int, ...]]],
        sampling: Sampling,
        seed: int,
        on_rows: OnRows | None = None,
    ) -> list[Row]:
        """`sampling.samples` rows for each (group id, prompt ids), in order, rows of one prompt adjacent.

        The same seed gives the same rows on one machine; another seed, other rows. `on_rows` is called with the rows of
        every part of the prompts as it is done, in order, while the next part is still to be generated.
        """
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take over the trainer's weights: every tensor by name, *including* `lm_head.weight` when it is tied."""
        ...

    def close(self) -> None:
        """Free the engine and its processes."""
        ...


@dataclass(frozen=True)
class Batch:
    """Right-padded rows [prompt | response | pad]. B rows, S = longest prompt + response, T = longest response.

    Attributes:
        input_ids: [B, S] int64.
        attention_mask: [B, S] int64, from lengths, never from comparing ids with a pad id.
        prompt_lengths, response_lengths: [B] int64.
        response_ids: [B, T] int64, 0 where padded.
        response_mask: [B, T] bool, True where the policy sampled the token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor
    response_ids: Tensor
    response_mask: Tensor

    @property
    def predicting_positions(self) -> Tensor:
        """[B, T] int64: position whose hidden state predicts response token t (0 where padded)."""
        offsets = torch.arange(self.response_ids.shape[1], device=self.response_ids.device)
        return (self.prompt_lengths[:, None] - 1 + offsets) * self.response_mask

    @property
    def sampled_lengths(self) -> list[int]:
        """How many tokens of each response the policy sampled."""
        return [int(count) for count in self.response_mask.sum(1)]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def collate(rows: Sequence[Row]) -> Batch:
    """Pads rows on the right. Rows with an empty response are allowed: their mask is all False.

    Raises:
        ValueError: a prompt is empty, so nothing predicts the first response token.
    """
    for row in rows:
        if not row.prompt_ids:
            raise ValueError(
                f"prompt of group {row.group!r} is empty: a prompt needs at least one token (a BOS or a marker)"
            )
    prompts = torch.tensor([len(row.prompt_ids) for row in rows])
    responses = torch.tensor([len(row.response_ids) for row in rows])
    width = int((prompts + responses).max())
    longest = max(1, int(responses.max()))
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    response_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids = torch.tensor([*row.prompt_ids, *row.response_ids], dtype=torch.int64)
        input_ids[i, : len(ids)] = ids
        response_ids[i, : len(row.response_ids)] = ids[len(row.prompt_ids) :]
    attention = (torch.arange(width) < (prompts + responses)[:, None]).long()
    mask = sampled_mask(rows)
    return Batch(input_ids, attention, prompts, responses, response_ids, mask)


def sampled_mask(rows: Sequence[Row]) -> Tensor:
    """[B, T] bool: which tokens of the padded responses the policy sampled. T is the longest response, at least 1."""
    lengths = torch.tensor([len(row.response_ids) for row in rows])
    given = torch.tensor([row.put_in for row in rows])
    position = torch.arange(max(1, int(lengths.max())))
    return (position < lengths[:, None]) & ~((position >= given[:, :1]) & (position < given[:, 1:]))


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, cut to their own longest prompt + response."""
    index = torch.tensor(list(rows))
    responses = batch.response_lengths[index]
    width = int((batch.prompt_lengths[index] + responses).max())
    longest = max(1, int(responses.max()))
    return Batch(
        batch.input_ids[index, :width],
        batch.attention_mask[index, :width],
        batch.prompt_lengths[index],
        responses,
        batch.response_ids[index, :longest],
        batch.response_mask[index, :longest],
    )


def refuse_unrecorded(rows: Sequence[Row], top: int) -> None:
    """
    Raises:
        UserError: a row lacks the sampler's log-probabilities of its tokens, or of the `top` likeliest ones at each of them.
    """
    for row in rows:
        length = len(row.response_ids)
        if len(row.logprobs) != length:
            raise UserError(
                f"the sampler recorded {len(row.logprobs)} log-probabilities for a response of {length} tokens, and this method "
                "reads one of each; use --rollouts transformers"
            )
        found = 0 if row.top is None or len(row.top.ids) != length else row.top.ids.shape[1]
        if top and length and found != top:
            raise UserError(
                f"the sampler recorded {found} of the likeliest tokens at each position, and this method reads {top} of them; "
                "use --rollouts transformers"
            )


def sampler_record(rows: Sequence[Row], top: int) -> dict[str, Tensor]:
    """What the sampler knew, as inputs of a loss: `sampler_logprob` [B, T] of the sampled tokens, and with `top` = K > 0
    `sampler_top/K` and `sampler_logprob_at_top/K`, [B, T, K] each; 0 where padded.

    Raises:
        UserError: it did not record that.
    """
    refuse_unrecorded(rows, top)
    longest = max([1, *(len(row.response_ids) for row in rows)])
    logprob = torch.zeros(len(rows), longest)
    ids, values = torch.zeros(len(rows), longest, top, dtype=torch.int64), torch.zeros(len(rows), longest, top)
    for i, row in enumerate(rows):
        logprob[i, : len(row.logprobs)] = torch.tensor(row.logprobs)
        if top and row.top is not None:
            ids[i, : len(row.top.ids)], values[i, : len(row.top.ids)] = row.top.ids, row.top.logprobs
    found = {"sampler_logprob": logprob}
    return {**found, f"sampler_top/{top}": ids, f"sampler_logprob_at_top/{top}": values} if top else found
