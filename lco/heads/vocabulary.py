"""The head in blocks of the vocabulary: for vocabularies so large that not even [C, V] should exist, and for a head whose
rows are spread over the ranks of a group (tensor parallel).

The first pass over the blocks finds, for the policy and the old one, the running maximum and sum of exponentials; the
second recomputes the logits, sums what is a sum over the vocabulary (KL(π_old ‖ π)), and forms the gradients: 12NdV
multiply-adds off-policy and 8NdV on-policy. All N tokens are taken at once, so memory is N·block in place of C·V: a caller
with many tokens hands them over in parts. That works because a loss's coefficients are known after the first pass if it is
affine in the divergences, as LCO-KLD, PPO, GRPO, REINFORCE and SFT are; a loss that is not is refused, and so are
statistics whose logit gradient is no combination of π, π_old and the sampled token, and dense targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lco.heads.chunk import Chunk, LogitGradient, Workspace
from lco.heads.linear import HeadLoss, HeadRequest, LinearHead, TokenFunction, _Gradients, value_of
from lco.heads.statistics import statistic

LEARNS = ("logit", "logsumexp", "logprob", "kl_old", "kl_target", "logprob_at_sampler_top")
"""Statistics with a gradient that a loss may read here, without the number of tokens that some are of."""

CONSTANTS = (
    *("old_logit", "old_logsumexp", "old_logprob", "tilt", "tilt_clamped", "target_kl", "target_tv", "token"),
    *("sampler_logprob", "sampler_top", "sampler_logprob_at_top"),
)

DIVERGENCES = ("kl_old", "kl_target")
"""Known only after the second pass."""


@dataclass(frozen=True)
class Shard:
    """Which rows of the whole head this process holds, and with whom it shares the rest.

    Attributes:
        first: vocabulary index of row 0 of its weight.
        group: ranks that hold the other rows; None where the weight is whole.
    """

    first: int = 0
    group: Any = None

    def reduce(self, x: Tensor, operation: Any = dist.ReduceOp.SUM) -> Tensor:
        if self.group is not None:
            dist.all_reduce(x, operation, self.group)
        return x


class _Logits:
    """Logits of some tokens, a block of the vocabulary at a time, and what the first pass finds."""

    def __init__(
        self, hidden: Tensor, head: LinearHead, targets: Tensor, shard: Shard, block: int, others: Tensor | None = None
    ) -> None:
        """`others` [N, k]: further tokens whose logits are wanted, `self.at_others`."""
        self.hidden, self.head, self.block, self.shard = hidden, head, block, shard
        self.local = targets - shard.first
        rows = len(head.weight)
        self.mine = (self.local >= 0) & (self.local < rows)
        peak = torch.full((len(hidden),), -torch.inf, dtype=head.wide, device=hidden.device)
        rest, sampled = torch.zeros_like(peak), torch.zeros_like(peak)
        at_others = None if others is None else peak.new_zeros(others.shape)
        for part, z in self.blocks():
            if at_others is not None and others is not None:
                here, column = self.columns(others, part)
                at_others = torch.where(here, z.gather(1, column), at_others)
            inside = self.inside(part).nonzero().squeeze(1)
            column = self.local[inside] - part.start
            higher = torch.maximum(peak, z.amax(1))
            sampled[inside] = z[inside, column]
            z[inside, column] = -torch.inf
            rest = rest * (peak - higher).exp() + (z - higher[:, None]).exp().sum(1)
            peak = higher
        highest = shard.reduce(peak.clone(), dist.ReduceOp.MAX)
        rest = shard.reduce(rest * (peak - highest).exp())
        self.sampled = shard.reduce(sampled)
        self.at_others = None if at_others is None else shard.reduce(at_others)
        self.lse = highest + (rest + (self.sampled - highest).exp()).log()
        self.rest = rest * (highest - self.lse).exp()  # 1 − π(a), to full relative precision

    def inside(self, part: slice) -> Tensor:
        """[C] bool: the sampled token is in this block."""
        return self.mine & (self.local >= part.start) & (self.local < part.stop)

    def columns(self, tokens: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Which of the tokens [C, k] are in this block, and their columns in it (any column for the others)."""
        column, width = tokens - self.shard.first - part.start, part.stop - part.start
        return (column >= 0) & (column < width), column.clamp(0, width - 1)

    def logits(self, part: slice) -> Tensor:
        """[C, block]"""
        bias = None if self.head.bias is None else self.head.bias[part]
        piece = LinearHead(self.head.weight[part], bias, self.head.temperature)
        return piece.logits(
            self.hidden, self.hidden.new_empty(len(self.hidden), len(piece.weight), dtype=self.head.wide)
        )

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        count = len(self.head.weight)
        for start in range(0, count, self.block):
            part = slice(start, min(start + self.block, count))
            yield part, self.logits(part)


def token_loss_by_vocabulary(
    hidden: Tensor,
    head: LinearHead,
    function: TokenFunction,
    request: HeadRequest,
    *,
    block: int = 1 << 13,
    shard: Shard | None = None,
) -> Tensor:
    """As `lco.heads.token_loss`, for all N tokens at once and `block` rows of the head at a time; reports nothing.

    Args:
        block: rows of the head whose logits exist together.
        shard: of a head that is spread over ranks; every rank then gets the whole loss and gradient of the hidden states,
            and the gradient of its own rows. The old head is spread alike.

    Raises:
        ValueError: the loss reads a statistic that needs the whole vocabulary at once, or is not affine in a divergence; or
            the target is a dense one; or the sampler's likeliest tokens are read and not among the inputs.
    """
    assert request.scale is not None
    shard, scale, names = shard or Shard(), request.scale, request.statistics
    for name in names:
        if stem(name) not in (*LEARNS, *CONSTANTS):
            raise ValueError(f"statistic {name!r} needs the whole vocabulary at once; use token_loss")
    if request.target is not None and request.target.dense:
        raise ValueError(f"{type(request.target).__name__} tilts every token of the vocabulary; use token_loss")

    likeliest = sampler_tokens(request)

    def work(hidden: Tensor, needs_weight: bool) -> tuple[Tensor, dict[str, Tensor], _Gradients]:
        new = _Logits(hidden, head, request.tokens, shard, block, likeliest)
        old = request.old
        was = None if old is None else _Logits(old.hidden, old.head, request.tokens, shard, block)
        chunk = _scalars(new, was, request)
        slopes = _coefficients(chunk, function, names, scale)
        gradient = LogitGradient.zeros(chunk)
        for name, k in slopes.items():
            backward = statistic(name).backward
            assert backward is not None
            backward(chunk, k, gradient)
        gradients = _second_pass(chunk, new, was, gradient, needs_weight)
        values = {name: value_of(name, chunk) for name in names}
        return (function(values, chunk.inputs) * scale).sum(), {}, gradients

    return HeadLoss.apply(hidden, head.weight, head.bias, work, {})


def stem(name: str) -> str:
    return name.partition("/")[0]


def sampler_tokens(request: HeadRequest) -> Tensor | None:
    """[N, k]: the tokens besides the sampled one at which the loss reads log-probabilities; None where there are none."""
    read = [name for name in request.statistics if stem(name) == "logprob_at_sampler_top"]
    if not read:
        return None
    given = read[0].replace("logprob_at_", "")
    if given not in request.inputs:
        raise ValueError(f"{given!r} is no input, and finding it needs the whole vocabulary at once; use token_loss")
    return request.inputs[given]


def _scalars(new: _Logits, was: _Logits | None, request: HeadRequest) -> Chunk:
    """A chunk that knows its scalars and has no vocabulary."""
    nothing = new.lse.new_empty(len(new.lse), 0)
    z_old, workspace = None if was is None else nothing, Workspace(0, 0, new.lse)
    chunk = Chunk(nothing, request.tokens, z_old, request.inputs, request.target, {}, workspace)
    before = new if was is None else was
    known = {
        "logit": new.sampled,
        "probs": nothing,
        "probs lse": new.lse,
        "logprob": new.sampled - new.lse,
        "old_logit": before.sampled,
        "probs_old": nothing,
        "probs_old lse": before.lse,
        "old_logprob": before.sampled - before.lse,
        "rest_old": before.rest,
    }
    if new.at_others is not None:
        known[f"logit at sampler_top/{new.at_others.shape[1]}"] = new.at_others
    for name, value in known.items():
        chunk.once(name, lambda value=value: value)  # type: ignore[misc]
    return chunk


def _coefficients(chunk: Chunk, function: TokenFunction, names: Sequence[str], scale: Tensor) -> dict[str, Tensor]:
    """∂loss/∂statistic [N], asked with two values of every divergence: they must not depend on it."""
    found = []
    for guess in (0.0, 1.0):
        values = {n: torch.full_like(scale, guess) if n in DIVERGENCES else value_of(n, chunk) for n in names}
        leaves = {
            n: v.detach().clone().requires_grad_(stem(n) in LEARNS and n not in chunk.inputs) for n, v in values.items()
        }
        wanted = [n for n in names if leaves[n].requires_grad]
        with torch.enable_grad():
            loss = (function(leaves, chunk.inputs) * scale).sum()
            slopes = torch.autograd.grad(loss, [leaves[n] for n in wanted], allow_unused=True)
        found.append({n: k for n, k in zip(wanted, slopes, strict=True) if k is not None})
    if any(not torch.equal(found[0][n], found[1][n]) for n in found[0]):
        raise ValueError(
            "the loss is not affine in a divergence, which is known only after the gradient; use token_loss"
        )
    return found[0]


def _second_pass(
    chunk: Chunk, new: _Logits, was: _Logits | None, gradient: LogitGradient, needs_weight: bool
) -> _Gradients:
    """Gradients of hidden states and weight, and the sums over the vocabulary that the divergences are."""
    hidden, head = new.hidden, new.head
    whole = _Gradients(hidden, head, needs_weight)
    slope = torch.zeros(hidden.shape, dtype=head.wide, device=hidden.device)
    rest, rest_kl = chunk.zeros(), chunk.zeros()
    old_weight = gradient.probs_old + gradient.rest
    p_old_at_token = (chunk.old_logit - chunk.lse_old).exp()
    at_token = gradient.onehot + gradient.probs * chunk.logprob.exp() + gradient.probs_old * p_old_at_token
    for part, z in new.blocks():
        inside = new.inside(part).nonzero().squeeze(1)
        column = new.local[inside] - part.start
        logp = z.sub_(new.lse[:, None])
        if was is None:
            g = logp.exp().mul_((gradient.probs + old_weight)[:, None])
        else:
            logp_old = was.logits(part).sub_(was.lse[:, None])
            p_old = logp_old.exp()
            p_old[inside, column] = 0.0
            rest += p_old.sum(1)
            rest_kl += (p_old * (logp_old - logp)).sum(1)
            g = logp.exp().mul_(gradient.probs[:, None]).addcmul_(p_old, old_weight[:, None])
        g[inside, column] = at_token[inside]
        for tokens, coefficients in gradient.at:
            here, where = new.columns(tokens, part)
            g.scatter_add_(1, where, torch.where(here, coefficients, 0.0).to(g.dtype))
        g = g if head.temperature == 1.0 else g.div_(head.temperature)
        piece = head.weight[part].to(head.wide)
        slope.addmm_(g, piece)
        if whole.weight is not None:
            whole.weight[part] = g.T @ hidden.to(head.wide)
        if whole.bias is not None:
            whole.bias[part] = g.sum(0)
    whole.hidden = new.shard.reduce(slope).to(hidden.dtype)
    if was is not None:
        rest_kl = new.shard.reduce(rest_kl)
        sampled = chunk.old_logprob.exp() * (chunk.old_logprob - chunk.logprob)
        chunk.once("kl_rest", lambda: rest_kl)
        chunk.once("kl_old", lambda: rest_kl + sampled)
    return whole
