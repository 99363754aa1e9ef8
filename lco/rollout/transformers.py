"""Sampling with the trainer's own weights: a plain loop over a transformers model with a key-value cache.

`generate()` fills unset values from the checkpoint's generation_config.json; here every value is in `Sampling` and
nothing else decides. The weights are the trainer's own tensors, so there is nothing to synchronise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lco.errors import UserError
from lco.problems.responses import completes
from lco.rollout.records import DivergedError, FinishReason, OnRows, Row, Sampling, TopTokens

ROWS_AT_ONCE = 512


class TransformersSampler:
    """Samples rows from a `...ForCausalLM` on its device.

    Args:
        model: the trainer's model; its weights are read at every call.
        rows_at_once: bound on rows in flight, for memory.
        any_rank: (busy here?) → busy on any rank?, asked by all ranks before every forward. Needed where weights are
            spread over ranks (ZeRO-3), which gather them inside every forward: a rank that has sampled its rows goes on
            calling the model until all have. None where forwards are a rank's own affair.
        decode: ids → text, asked where `Sampling.stop` has strings.

    Raises:
        UserError: the model keeps more than keys and values from token to token.
    """

    def __init__(
        self,
        model: nn.Module,
        rows_at_once: int = ROWS_AT_ONCE,
        any_rank: Callable[[bool], bool] | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        check_cache(model)
        self.model: Any = model
        self.rows_at_once = rows_at_once
        self.any_rank = any_rank
        self.decode = decode

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """The weights are shared; nothing to do."""

    def close(self) -> None:
        """Owns nothing."""

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[tuple[str, tuple[int, ...]]],
        sampling: Sampling,
        seed: int,
        on_rows: OnRows | None = None,
    ) -> list[Row]:
        self.model.eval()  # with gradient checkpointing, training mode would switch the cache off
        draws = torch.Generator(device=self.model.device).manual_seed(seed)
        rows: list[Row] = []
        size = max(1, self.rows_at_once // sampling.samples)
        for start in range(0, len(prompts), size):
            part = self._sample(prompts[start : start + size], sampling, draws)
            rows += part
            if on_rows is not None:
                on_rows(part)
        while self.any_rank is not None and self.any_rank(False):
            self._logits(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=self.model.device), use_cache=False)
        return rows

    def _sample(
        self, prompts: Sequence[tuple[str, tuple[int, ...]]], sampling: Sampling, draws: torch.Generator
    ) -> list[Row]:
        logits, cache, mask = self._prefill([ids for _, ids in prompts], sampling.samples)
        count = len(logits)
        positions = mask.sum(1, keepdim=True)
        stops = torch.tensor(sampling.stop_token_ids, dtype=torch.int64, device=logits.device)
        alive = list(range(count))
        responses: list[list[int]] = [[] for _ in range(count)]
        logprobs: list[list[float]] = [[] for _ in range(count)]
        likeliest: list[tuple[Tensor, Tensor]] = []
        finish: list[FinishReason] = ["length"] * count
        for step in range(sampling.max_new_tokens):
            if not bool(torch.isfinite(logits).all()):
                raise DivergedError
            tokens, distribution = draw(logits, sampling, draws)
            chosen = distribution.gather(1, tokens[:, None]).squeeze(1)
            if sampling.top:
                likeliest.append(find_likeliest(distribution, sampling.top, alive, count))
            ended = torch.isin(tokens, stops)
            for row, token, value in zip(alive, tokens.tolist(), chosen.tolist(), strict=True):
                responses[row].append(token)
                logprobs[row].append(value)
            if sampling.stop:
                assert self.decode is not None, "stop strings are found in text"
                complete = [completes(responses[row], sampling.stop, self.decode) for row in alive]
                ended |= torch.tensor(complete, device=ended.device)
            for row, end in zip(alive, ended.tolist(), strict=True):
                if end:
                    finish[row] = "stop"
            if bool(ended.all()) or step + 1 == sampling.max_new_tokens:
                break
            if bool(ended.any()):
                # Finished rows leave the batch, so late steps cost what the rows still in flight cost.
                keep = (~ended).nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                alive = [alive[i] for i in keep.tolist()]
                tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = self._forward(tokens[:, None], mask, positions, cache)
            positions = positions + 1
        owners = [prompt for prompt in prompts for _ in range(sampling.samples)]
        tops = top_tokens(likeliest, [len(ids) for ids in responses])
        return [
            Row(group, ids, tuple(responses[i]), finish[i], tuple(logprobs[i]), tops[i])
            for i, (group, ids) in enumerate(owners)
        ]

    def _prefill(self, prompts: Sequence[tuple[int, ...]], samples: int) -> tuple[Tensor, Any, Tensor]:
        """Reads each prompt once, then repeats it for its samples: logits [B, V], cache, attention mask [B, S]."""
        from transformers import DynamicCache  # transformers, which whoever has a model has loaded

        device, longest = self.model.device, max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            # On the left, so that all rows grow at the same column; positions count real tokens only.
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        cache = DynamicCache(config=self.model.config)
        logits = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        cache.batch_repeat_interleave(samples)
        return logits.repeat_interleave(samples, 0), cache, mask.repeat_interleave(samples, 0)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        if self.any_rank is not None:
            self.any_rank(True)
        return self._logits(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )

    def _logits(self, **inputs: Any) -> Tensor:
        """Logits of the last position, [B, V] float32."""
        states = self.model.base_model(**inputs).last_hidden_state
        return self.model.get_output_embeddings()(states[:, -1]).float()


def check_cache(model: Any) -> None:
    """
    Raises:
        UserError: it carries a recurrent state (Mamba, Jamba, linear attention), in which padding leaves its traces and
            rows cannot be told apart.
    """
    from transformers import DynamicCache  # as above
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    plain = model._supports_default_dynamic_cache() and not model._is_stateful
    if not plain or any(
        isinstance(x, LinearAttentionCacheLayerMixin) for x in DynamicCache(config=model.config).layers
    ):
        raise UserError(
            f"{type(model).__name__} carries a recurrent state, which the transformers sampler can neither pad nor select "
            "rows of; give a transformer, or try --rollouts vllm"
        )


def find_likeliest(logprobs: Tensor, top: int, alive: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """The `top` likeliest tokens of the rows in flight, as ids (int32) and log-probabilities, [count, top] in main memory; 0
    for rows that have ended.

    Args:
        logprobs: [len(alive), V].
    """
    values, ids = logprobs.topk(top, 1)
    found = torch.zeros(count, top, dtype=torch.int32), torch.zeros(count, top)
    found[0][list(alive)], found[1][list(alive)] = ids.int().cpu(), values.cpu()
    return found


def top_tokens(steps: Sequence[tuple[Tensor, Tensor]], lengths: Sequence[int]) -> list[TopTokens | None]:
    """Every row's likeliest tokens, from those of every step; None each where none were asked for."""
    if not steps:
        return [None] * len(lengths)
    ids, values = (torch.stack(parts) for parts in zip(*steps, strict=True))
    return [TopTokens(ids[:length, i].clone(), values[:length, i].clone()) for i, length in enumerate(lengths)]


def draw(logits: Tensor, sampling: Sampling, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens [B] and the log-probabilities [B, V] of what they were drawn from: temperature and truncation are in.

    Greedy (temperature 0) takes the largest logit, the first one of equals, and reports log-probabilities at T = 1.
    """
    logprobs = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        if sampling.top_k or sampling.top_p < 1:
            logprobs = truncate(logprobs, sampling).log_softmax(-1)
        tokens = torch.multinomial(logprobs.exp(), 1, generator=draws).squeeze(1)
    return tokens, logprobs


def truncate(logprobs: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities with everything outside top-k and top-p at −∞ (not renormalised)."""
    if sampling.top_k:
        threshold = logprobs.topk(min(sampling.top_k, logprobs.shape[-1])).values[:, -1:]
        logprobs = logprobs.masked_fill(logprobs < threshold, float("-inf"))
    if sampling.top_p < 1:
        ordered, index = logprobs.sort(descending=True)
        probs = ordered.exp() / ordered.exp().sum(-1, keepdim=True)
        # A token stays while the mass before it is below top_p, so the first one always stays.
        outside = probs.cumsum(-1) - probs >= sampling.top_p
        logprobs = logprobs.masked_fill(outside.gather(1, index.argsort(-1)), float("-inf"))
    return logprobs
