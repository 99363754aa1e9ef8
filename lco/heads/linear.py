"""The linear head in chunks of tokens: hidden states in, per-token statistics and losses out, never [tokens, vocab].

- `token_loss`: the loss is a sum of per-token terms, so the logit gradient is known chunk by chunk, and the gradients of
  hidden states and weight are formed in the same pass (8NdV multiply-adds off-policy, 6NdV on-policy).
- `row_loss`: the loss couples the tokens of a row, so one pass collects the statistics and a second, with the
  coefficients that autograd finds for them, forms the gradients (12NdV, 8NdV; as `token_loss` if all fits one chunk).
- `token_statistics`: values only.

All mathematics after the head's matrix product is float32 whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lco.heads.chunk import Chunk, LogitGradient, Target, Workspace
from lco.heads.statistics import statistic
from lco.heads.step import HeadStep

TokenFunction = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""(statistics, inputs) → loss of each token; [C] each for a token loss, [B, T] for a row loss"""

CHUNK_ELEMENTS = 1 << 25
"""Logits held at once: 32 Mi elements are 128 MiB in float32, i.e. 220 tokens of a 151 936-word vocabulary."""

BLOCK_ROWS = 1 << 12
"""Rows of the head that a CPU multiplies with at a time."""

HIDDEN_GRADIENT = "hidden_gradient_sq"
"""May be reported by the losses: ‖∂L/∂h‖² of each token, its scale included."""


@dataclass(frozen=True)
class LinearHead:
    """z = (h Wᵀ + b) / temperature.

    Attributes:
        weight: [V, d]; of any floating dtype.
        bias: [V] or None.
        temperature: the sampling temperature; part of the policy.
    """

    weight: Tensor
    bias: Tensor | None = None
    temperature: float = 1.0

    @property
    def wide(self) -> torch.dtype:
        """What logits, losses and gradients are computed in: float32, or float64 for a float64 head (the tests')."""
        return torch.float64 if self.weight.dtype == torch.float64 else torch.float32

    def copied(self) -> LinearHead:
        """The same head, which does not follow later updates of the weights."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return LinearHead(self.weight.detach().clone(), bias, self.temperature)

    def to(self, device: torch.device) -> LinearHead:
        bias = None if self.bias is None else self.bias.to(device)
        return LinearHead(self.weight.to(device), bias, self.temperature)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """(rows, weight) parts of W that a product can take.

        CUDA takes the whole, and multiplies bfloat16 with float32 accumulation and output. On a CPU blocks of rows keep
        what is read and written near: the logits of a 152 k vocabulary take three quarters of the time. A CPU has no
        product of bfloat16 with float32 output either: it widens a block at a time, and no float32 copy of the whole is kept.
        """
        if self.weight.is_cuda:
            yield slice(None), self.weight
            return
        for start in range(0, len(self.weight), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            yield rows, self.weight[rows].to(self.wide)

    def logits(self, hidden: Tensor, out: Tensor) -> Tensor:
        """[C, d] → [C, V], into `out`."""
        for rows, weight in self.blocks():
            _product(hidden, weight.T, out[:, rows])
        if self.bias is not None:
            out += self.bias.to(out.dtype)
        return out if self.temperature == 1.0 else out.div_(self.temperature)


def _product(x: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """x @ y into `out`, which is float32 or wider."""
    if y.dtype == out.dtype:
        return torch.mm(x.to(y.dtype), y, out=out)
    return torch.mm(x.to(y.dtype), y, out_dtype=out.dtype, out=out)


@dataclass(frozen=True)
class FixedHead:
    """A policy that does not learn, at the same tokens: hidden states [N, d] and the head that belongs to them."""

    hidden: Tensor
    head: LinearHead

    def to(self, device: torch.device) -> FixedHead:
        return FixedHead(self.hidden.to(device), self.head.to(device))

    def logits(self, rows: slice, out: Tensor) -> Tensor:
        return self.head.logits(self.hidden[rows], out)


@dataclass(frozen=True)
class HeadRequest:
    """What is asked of the head at the N response tokens of a batch: made once, handed through unchanged.

    Attributes:
        tokens: [N] sampled tokens.
        statistics: those that a loss reads, or that are asked for.
        inputs: [N, …] each, constants of the loss.
        scale: [N], mask / divisor of the whole minibatch over all ranks; None where nothing is summed.
        old: the old policy at the same tokens; None where it is the current one.
        target: LCO's target, for losses that have one.
        fixed: the policies that `target` reads, by name.
        report: statistics that a loss hands out beside its value, and `hidden_gradient_sq`.
        step: the optimizer's coming step on the head, for the statistics that predict it.
    """

    tokens: Tensor
    statistics: Sequence[str]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    scale: Tensor | None = None
    old: FixedHead | None = None
    target: Target | None = None
    fixed: Mapping[str, FixedHead] = field(default_factory=dict)
    report: Sequence[str] = ()
    step: HeadStep | None = None

    @property
    def learns(self) -> list[str]:
        """The statistics through which the loss has a gradient: not those that were measured before and are inputs."""
        return [n for n in self.statistics if n not in self.inputs and statistic(n).backward is not None]

    @property
    def listed(self) -> list[str]:
        """The statistics among `report`."""
        return [name for name in self.report if name != HIDDEN_GRADIENT]


class _Gradients:
    """∂loss/∂(hidden, weight, bias), accumulated over chunks in float32."""

    def __init__(self, hidden: Tensor, head: LinearHead, needs_weight: bool) -> None:
        self.hidden = torch.empty_like(hidden)
        self.hidden_sq = torch.zeros(len(hidden), dtype=head.wide, device=hidden.device)
        self.weight = torch.zeros_like(head.weight, dtype=head.wide) if needs_weight else None
        self.bias = None if head.bias is None or not needs_weight else torch.zeros_like(head.bias, dtype=head.wide)

    def add(self, head: LinearHead, hidden: Tensor, rows: slice, g: Tensor) -> None:
        """Takes in ∂loss/∂z of some rows, [C, V]."""
        if head.temperature != 1.0:
            g = g.div_(head.temperature)
        states = hidden[rows]
        slope = torch.zeros(states.shape, dtype=head.wide, device=g.device)
        for part, weight in head.blocks():
            narrow = g[:, part].to(weight.dtype)
            if weight.dtype == head.wide:
                slope.addmm_(narrow, weight)
            else:
                slope += torch.mm(narrow, weight, out_dtype=head.wide)
        if self.weight is not None:
            if g.is_cuda and head.weight.dtype != head.wide:
                self.weight += torch.mm(g.T.to(head.weight.dtype), states.to(head.weight.dtype), out_dtype=head.wide)
            else:
                self.weight.addmm_(g.T, states.to(head.wide))
        if self.bias is not None:
            self.bias += g.sum(0)
        self.hidden[rows] = slope.to(self.hidden.dtype)
        self.hidden_sq[rows] = slope.square().sum(1)


@dataclass
class _Chunks:
    """The chunks of one request, `size` tokens each; they share one workspace."""

    head: LinearHead
    request: HeadRequest
    size: int
    _workspace: Workspace = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.size or max(1, CHUNK_ELEMENTS // len(self.head.weight))
        like = torch.empty(0, dtype=self.head.wide, device=self.head.weight.device)
        self._workspace = Workspace(min(self.size, max(1, len(self.request.tokens))), len(self.head.weight), like)

    def slices(self) -> list[slice]:
        """At least one, also of no tokens: so that every statistic has its own type and width."""
        count = len(self.request.tokens)
        return [slice(start, min(start + self.size, count)) for start in range(0, max(1, count), self.size)]

    def chunk(self, hidden: Tensor, rows: slice) -> Chunk:
        """The chunk of `rows`; it takes the workspace from the chunk before."""
        request, states = self.request, hidden[rows]

        def buffer(name: str) -> Tensor:
            return self._workspace.get(name, len(states))

        z_old = None if request.old is None else request.old.logits(rows, buffer("z_old"))
        fixed = {
            name: (lambda name=name, policy=policy: policy.logits(rows, buffer(name)))
            for name, policy in request.fixed.items()
        }
        inputs = {name: value[rows] for name, value in request.inputs.items()}
        z = self.head.logits(states, buffer("z"))
        # The logits are those of h/temperature, and so is what a step on the head adds to them.
        scaled = None if request.step is None else states.to(self.head.wide) / self.head.temperature
        return Chunk(
            z,
            request.tokens[rows],
            z_old,
            inputs,
            request.target,
            fixed,
            self._workspace,
            states=scaled,
            step=request.step,
        )


def value_of(name: str, chunk: Chunk) -> Tensor:
    """A statistic's value. An input of the same name takes its place: that is how old log-probabilities, measured before
    the first update, reach a loss that reads `old_logprob`."""
    return chunk.inputs[name] if name in chunk.inputs else statistic(name).value(chunk)


def _logit_gradient(chunk: Chunk, coefficients: Mapping[str, Tensor | None]) -> Tensor:
    """∂loss/∂z [C, V] from ∂loss/∂statistic [C, …]."""
    gradient = LogitGradient.zeros(chunk)
    for name, k in coefficients.items():
        backward = statistic(name).backward
        if k is not None and backward is not None:
            backward(chunk, k, gradient)
    return gradient.assemble(chunk)


def _joined(parts: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(values) for name, values in parts.items()}


Work = Callable[[Tensor, bool], tuple[Tensor, dict[str, Tensor], _Gradients]]
"""(hidden, whether the weight wants a gradient) → loss, reported statistics, gradients"""


class HeadLoss(torch.autograd.Function):
    """A loss whose gradients are known when its value is; `backward` only hands them out."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: Work, reported: dict[str, Tensor]
    ) -> Tensor:
        total, found, ctx.gradients = work(hidden, ctx.needs_input_grad[1])
        reported |= {**found, HIDDEN_GRADIENT: ctx.gradients.hidden_sq}
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, (weight_dtype, bias_dtype) = ctx.gradients, ctx.dtypes
        ctx.gradients = None
        weight = None if gradients.weight is None else gradients.weight.mul_(upstream).to(weight_dtype)
        bias = None if gradients.bias is None else gradients.bias.mul_(upstream).to(bias_dtype)
        return gradients.hidden.mul_(upstream.to(gradients.hidden.dtype)), weight, bias, None, None


def token_loss(
    hidden: Tensor, head: LinearHead, function: TokenFunction, request: HeadRequest, chunk_size: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ_t scale_t · function(statistics_t, inputs_t), with its gradient formed in the same pass.

    Args:
        hidden: [N, d] hidden states that predict the tokens.
        function: maps statistics [C] and inputs [C] of a chunk to losses [C]; differentiated inside the chunk.
        chunk_size: tokens whose logits exist together; 0 takes as many as `CHUNK_ELEMENTS` logits are.

    Returns:
        the loss, a scalar with gradient (float32; float64 for a float64 head), and {reported statistic: [N, …]} without.
    """
    assert request.scale is not None
    assert hidden.ndim == 2
    assert request.tokens.shape == request.scale.shape == hidden.shape[:1]
    chunks, scale, names, wanted = _Chunks(head, request, chunk_size), request.scale, request.statistics, request.learns

    def work(hidden: Tensor, needs_weight: bool) -> tuple[Tensor, dict[str, Tensor], _Gradients]:
        gradients = _Gradients(hidden, head, needs_weight)
        total = torch.zeros((), dtype=head.wide, device=hidden.device)
        reported: dict[str, list[Tensor]] = {name: [] for name in request.listed}
        for rows in chunks.slices():
            chunk = chunks.chunk(hidden, rows)
            values = {name: value_of(name, chunk).detach() for name in names}
            with torch.enable_grad():
                leaves = {name: values[name].requires_grad_() if name in wanted else values[name] for name in names}
                loss = (function(leaves, chunk.inputs) * scale[rows]).sum()
                # A loss may touch none of them in some chunk (all advantages masked): then there is nothing to learn.
                slopes = (
                    torch.autograd.grad(loss, [leaves[name] for name in wanted], allow_unused=True)
                    if loss.requires_grad
                    else [None] * len(wanted)
                )
            total += loss.detach()
            for name, parts in reported.items():
                parts.append((values[name] if name in values else value_of(name, chunk)).detach().clone())
            gradients.add(head, hidden, rows, _logit_gradient(chunk, dict(zip(wanted, slopes, strict=True))))
        return total, _joined(reported), gradients

    found: dict[str, Tensor] = {}
    loss = HeadLoss.apply(hidden, head.weight, head.bias, work, found)
    return loss, {name: found[name] for name in request.report}


def row_loss(
    hidden: Tensor,
    head: LinearHead,
    mask: Tensor,
    function: TokenFunction,
    request: HeadRequest,
    chunk_size: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ scale · function(statistics, inputs) where the loss of a token may depend on all of its row.

    Args:
        hidden: [N, d], the tokens of all rows one after another.
        mask: [B, T] bool with N True entries.
        function: maps statistics [B, T, …] and inputs [B, T, …] (0 where padded) to losses [B, T].

    Returns:
        as `token_loss`.
    """
    assert request.scale is not None
    assert hidden.ndim == 2
    assert request.tokens.shape == request.scale.shape == hidden.shape[:1]
    chunks, names, wanted = _Chunks(head, request, chunk_size), request.statistics, request.learns
    inputs = {name: spread(value, mask) for name, value in request.inputs.items()}
    scale = spread(request.scale, mask)

    def work(hidden: Tensor, needs_weight: bool) -> tuple[Tensor, dict[str, Tensor], _Gradients]:
        collected: dict[str, list[Tensor]] = {name: [] for name in dict.fromkeys([*names, *request.listed])}
        slices = chunks.slices()
        for rows in slices:
            chunk = chunks.chunk(hidden, rows)
            for name, parts in collected.items():
                parts.append(value_of(name, chunk).detach().clone())
        values = _joined(collected)
        with torch.enable_grad():
            leaves = {name: values[name].requires_grad_() if name in wanted else values[name] for name in names}
            losses = function({name: spread(leaf, mask) for name, leaf in leaves.items()}, inputs)
            loss = (losses.masked_fill(~mask, 0) * scale).sum()
            slopes = torch.autograd.grad(loss, [leaves[name] for name in wanted], allow_unused=True)
        gradients = _Gradients(hidden, head, needs_weight)
        for rows in reversed(slices):
            # Back to front: the first pass has left the last chunk as it is needed here.
            if rows is not slices[-1]:
                chunk = chunks.chunk(hidden, rows)
            coefficients = {n: None if k is None else k[rows] for n, k in zip(wanted, slopes, strict=True)}
            gradients.add(head, hidden, rows, _logit_gradient(chunk, coefficients))
        return loss.detach().to(head.wide), {name: values[name].detach() for name in request.listed}, gradients

    found: dict[str, Tensor] = {}
    loss = HeadLoss.apply(hidden, head.weight, head.bias, work, found)
    return loss, {name: found[name] for name in request.report}


@torch.no_grad()
def token_statistics(hidden: Tensor, head: LinearHead, request: HeadRequest, chunk_size: int = 0) -> dict[str, Tensor]:
    """{statistic: [N, …]}, values only."""
    chunks = _Chunks(head, request, chunk_size)
    found: dict[str, list[Tensor]] = {name: [] for name in request.statistics}
    for rows in chunks.slices():
        chunk = chunks.chunk(hidden, rows)
        for name, parts in found.items():
            parts.append(value_of(name, chunk).clone())
    return _joined(found)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """[N, …] → [B, T, …], zero where the mask is False."""
    return values.new_zeros((*mask.shape, *values.shape[1:])).index_put((mask,), values)
