"""The linear head in chunks of tokens: hidden states in, per-token statistics and losses out, never [tokens, vocab].

Two calls with gradient, one without:

- `token_loss`: the loss is a sum of per-token terms, so the logit gradient is known chunk by chunk in the forward pass;
  the gradients of hidden states and weight are formed right there (8NdV multiply-adds off-policy, 6NdV on-policy).
- `differentiable_statistics`: the loss couples tokens of a row, so autograd needs the statistics first; logits are
  recomputed in the backward pass (12NdV, 8NdV).
- `statistics`: values only.

All mathematics after the head's matrix product is float32 whatever the model's dtype (methods.md 0.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lco.heads.statistics import STATISTICS, Chunk, LogitGradient

TokenFunction = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""(statistics [C] each, inputs [C] each) → loss of each token [C]"""

CHUNK_ELEMENTS = 1 << 25
"""Logits held at once: 32 Mi elements are 128 MiB in float32, i.e. 220 tokens of a 151 936-word vocabulary."""


@dataclass(frozen=True)
class LinearHead:
    """z = (h Wᵀ + b) / temperature.

    Attributes:
        weight: [V, d]; of any floating dtype.
        bias: [V] or None.
        temperature: the sampling temperature; part of the policy (methods.md 0.5).
    """

    weight: Tensor
    bias: Tensor | None = None
    temperature: float = 1.0

    def chunk_size(self) -> int:
        return max(1, CHUNK_ELEMENTS // self.weight.shape[0])


@dataclass(frozen=True)
class OldHead:
    """The old policy at the same tokens: hidden states [N, d] and the head that belongs to them."""

    hidden: Tensor
    head: LinearHead


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What losses and gradients are summed in: float32, or float64 for a float64 head (as the tests use)."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _product_weight(head: LinearHead) -> Tensor:
    # CUDA multiplies bf16 with float32 accumulation and output; the CPU has no such kernel, so it upcasts.
    keep = head.weight.is_cuda or head.weight.dtype == torch.float64
    return head.weight if keep else head.weight.float()


def _logits(hidden: Tensor, weight: Tensor, head: LinearHead) -> Tensor:
    if weight.dtype == torch.float32 or weight.dtype == torch.float64:
        z = hidden.to(weight.dtype) @ weight.T
    else:
        z = torch.mm(hidden.to(weight.dtype), weight.T, out_dtype=torch.float32)
    if head.bias is not None:
        z += head.bias.to(z.dtype)
    return z if head.temperature == 1.0 else z.div_(head.temperature)


def _times(x: Tensor, y: Tensor) -> Tensor:
    """x @ y with float32 accumulation and output."""
    if y.dtype == torch.float32 or y.dtype == torch.float64:
        return x.to(y.dtype) @ y
    return torch.mm(x.to(y.dtype), y, out_dtype=torch.float32)


class _Head:
    """The head of one call: weights ready for products, and chunks of tokens on demand."""

    def __init__(self, head: LinearHead, old: OldHead | None) -> None:
        self.head, self.old = head, old
        self.weight = _product_weight(head)
        self.old_weight = None if old is None else _product_weight(old.head)

    def chunk(self, hidden: Tensor, targets: Tensor, inputs: Mapping[str, Tensor], rows: slice) -> Chunk:
        z_old = None
        if self.old is not None and self.old_weight is not None:
            z_old = _logits(self.old.hidden[rows], self.old_weight, self.old.head)
        z = _logits(hidden[rows], self.weight, self.head)
        return Chunk(z, targets[rows], z_old, {name: value[rows] for name, value in inputs.items()})


class _Gradients:
    """∂loss/∂(hidden, weight, bias), accumulated over chunks in float32."""

    def __init__(self, hidden: Tensor, head: LinearHead, needs_weight: bool) -> None:
        dtype = _wide(head.weight.dtype)
        self.hidden = torch.empty_like(hidden)
        self.weight = torch.zeros_like(head.weight, dtype=dtype) if needs_weight else None
        self.bias = None if head.bias is None or not needs_weight else torch.zeros_like(head.bias, dtype=dtype)

    def add(self, head: _Head, hidden: Tensor, rows: slice, g: Tensor) -> None:
        if head.head.temperature != 1.0:
            g = g.div_(head.head.temperature)
        self.hidden[rows] = _times(g, head.weight).to(self.hidden.dtype)
        if self.weight is not None:
            if self.weight.dtype == head.weight.dtype:
                self.weight.addmm_(g.T, hidden[rows].to(g.dtype))
            else:
                self.weight += _times(g.T, hidden[rows].to(head.weight.dtype))
        if self.bias is not None:
            self.bias += g.sum(0)


def _leaf(name: str, chunk: Chunk) -> Tensor:
    """A statistic as the loss sees it. An input of the same name takes its place: that is how old log-probabilities,
    measured before the first update, reach a loss that reads `old_logprob`."""
    if name in chunk.inputs:
        return chunk.inputs[name]
    return STATISTICS[name].value(chunk).detach().requires_grad_(STATISTICS[name].backward is not None)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        spec: tuple[_Head, Tensor, TokenFunction, Mapping[str, Tensor], Tensor, Sequence[str], Sequence[str], int],
    ) -> tuple[Tensor, ...]:
        head, targets, function, inputs, scale, names, report, size = spec
        gradients = _Gradients(hidden, head.head, ctx.needs_input_grad[1])
        total = torch.zeros((), dtype=_wide(head.head.weight.dtype), device=hidden.device)
        reported: dict[str, list[Tensor]] = {name: [] for name in report}
        for rows in _slices(len(hidden), size):
            chunk = head.chunk(hidden, targets, inputs, rows)
            with torch.enable_grad():
                leaves = {name: _leaf(name, chunk) for name in names}
                loss = (function(leaves, chunk.inputs) * scale[rows]).sum()
                wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
                coefficients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
            total += loss.detach()
            for name in report:
                value = leaves[name] if name in leaves else STATISTICS[name].value(chunk)
                reported[name].append(value.detach())
            z_gradient = LogitGradient.zeros(chunk)
            for name, k in zip(wanted, coefficients, strict=True):
                backward = STATISTICS[name].backward
                if k is not None and backward is not None:
                    backward(chunk, k, z_gradient)
            gradients.add(head, hidden, rows, z_gradient.assemble(chunk))
        ctx.gradients = gradients
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        outputs = tuple(torch.cat(reported[name]) if reported[name] else hidden.new_zeros(0) for name in report)
        ctx.mark_non_differentiable(*outputs)
        return (total, *outputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, (weight_dtype, bias_dtype) = ctx.gradients, ctx.dtypes
        ctx.gradients = None
        weight = None if gradients.weight is None else gradients.weight.mul_(upstream).to(weight_dtype)
        bias = None if gradients.bias is None else gradients.bias.mul_(upstream).to(bias_dtype)
        return gradients.hidden.mul_(upstream.to(gradients.hidden.dtype)), weight, bias, None


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        spec: tuple[_Head, Tensor, Mapping[str, Tensor], Sequence[str], int],
    ) -> tuple[Tensor, ...]:
        head, targets, inputs, names, size = spec
        values: dict[str, list[Tensor]] = {name: [] for name in names}
        for rows in _slices(len(hidden), size):
            chunk = head.chunk(hidden, targets, inputs, rows)
            for name in names:
                values[name].append(STATISTICS[name].value(chunk))
        ctx.spec, ctx.weight_grad = spec, ctx.needs_input_grad[1]
        ctx.save_for_backward(hidden, weight, *([] if bias is None else [bias]))
        outputs = tuple(torch.cat(values[name]) if values[name] else hidden.new_zeros(0).float() for name in names)
        ctx.mark_non_differentiable(*(o for n, o in zip(names, outputs, strict=True) if not STATISTICS[n].backward))
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        head, targets, inputs, names, size = ctx.spec
        hidden, weight, *bias = ctx.saved_tensors
        gradients = _Gradients(hidden, head.head, ctx.weight_grad)
        for rows in _slices(len(hidden), size):
            chunk = head.chunk(hidden, targets, inputs, rows)
            z_gradient = LogitGradient.zeros(chunk)
            for name, k in zip(names, upstream, strict=True):
                backward = STATISTICS[name].backward
                if backward is not None:
                    backward(chunk, k[rows], z_gradient)
            gradients.add(head, hidden, rows, z_gradient.assemble(chunk))
        weight_gradient = None if gradients.weight is None else gradients.weight.to(weight.dtype)
        bias_gradient = None if gradients.bias is None else gradients.bias.to(bias[0].dtype)
        return gradients.hidden, weight_gradient, bias_gradient, None


def token_loss(
    hidden: Tensor,
    head: LinearHead,
    targets: Tensor,
    function: TokenFunction,
    inputs: Mapping[str, Tensor],
    scale: Tensor,
    names: Sequence[str],
    *,
    old: OldHead | None = None,
    report: Sequence[str] = (),
    chunk_size: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ_t scale_t · function(statistics_t, inputs_t), with its gradient formed in the same pass.

    Args:
        hidden: [N, d] hidden states that predict the targets.
        targets: [N] sampled tokens.
        function: maps statistics [C] and inputs [C] of a chunk to losses [C]; differentiated inside the chunk.
        inputs: [N] constants.
        scale: [N], mask / divisor of the whole minibatch over all ranks.
        names: statistics that `function` reads, keys of STATISTICS.
        old: the old policy at the same tokens; None where it is the current one.
        report: statistics to hand out.

    Returns:
        the loss, a scalar with gradient (float32; float64 for a float64 head), and {statistic: [N]} without.
    """
    assert hidden.ndim == 2
    assert targets.shape == scale.shape == hidden.shape[:1]
    size = chunk_size or head.chunk_size()
    spec = (_Head(head, old), targets, function, inputs, scale, tuple(names), tuple(report), size)
    total, *outputs = _TokenLoss.apply(hidden, head.weight, head.bias, spec)
    return total, dict(zip(report, outputs, strict=True))


def differentiable_statistics(
    hidden: Tensor,
    head: LinearHead,
    targets: Tensor,
    names: Sequence[str],
    *,
    inputs: Mapping[str, Tensor] | None = None,
    old: OldHead | None = None,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """{statistic: [N]} with gradient to hidden states and head; logits are recomputed in the backward pass."""
    spec = (_Head(head, old), targets, inputs or {}, tuple(names), chunk_size or head.chunk_size())
    return dict(zip(names, _Statistics.apply(hidden, head.weight, head.bias, spec), strict=True))


@torch.no_grad()
def statistics(
    hidden: Tensor,
    head: LinearHead,
    targets: Tensor,
    names: Sequence[str],
    *,
    inputs: Mapping[str, Tensor] | None = None,
    old: OldHead | None = None,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """{statistic: [N]}, values only."""
    return differentiable_statistics(hidden, head, targets, names, inputs=inputs, old=old, chunk_size=chunk_size)
