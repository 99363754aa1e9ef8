"""Triton kernels for CUDA: what is left of the head's work once the matrix products are done is reading and writing [C, V].

Most losses learn from log-probabilities and KL(π_old ‖ π) alone, whose logit gradient is a mix of π and π_old. So the
probabilities need not exist: one kernel finds those scalars, and the entropy that is logged, from the logits in one pass;
another writes the gradient over the logits in a second. In PyTorch the same takes about twenty passes off-policy, which on a
GPU is longer than the products take.

**Never run on a GPU by us**; tested in Triton's interpreter (`tests/heads/test_fused.py`). Hence `check`: before the first
use on a device every variant of both kernels has to agree with PyTorch there, or `lco.heads.chunk` goes on with PyTorch and
warns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Columns that one program holds at a time."""

NOTHING = -1e30
"""Stands for −∞ past the last column: as finite as is needed for NOTHING − NOTHING to be 0."""


@triton.jit
def _row_statistics(
    z_at: tl.tensor,
    old_at: tl.tensor,
    found_at: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    OLD: tl.constexpr,
    BLOCK: tl.constexpr,
    LOW: tl.constexpr,
) -> None:
    """Of one row: lse, entropy, peak, Σ exp(z − peak); with OLD also lse_old, Σ π_old (z_old − z), and the old two.

    Every lane keeps a running maximum and sums relative to it; the lanes meet once, at the end.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    peak = tl.full([BLOCK], LOW, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    old_peak = tl.full([BLOCK], LOW, tl.float32)
    old_total = tl.zeros([BLOCK], tl.float32)
    old_gap = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lane < columns
        z = tl.load(z_at + row * stride + start + lane, mask=inside, other=LOW)
        higher = tl.maximum(peak, z)
        shrink, weight = tl.exp(peak - higher), tl.exp(z - higher)
        total = total * shrink + weight
        weighted = weighted * shrink + weight * z
        peak = higher
        if OLD:
            old = tl.load(old_at + row * stride + start + lane, mask=inside, other=LOW)
            higher = tl.maximum(old_peak, old)
            shrink, weight = tl.exp(old_peak - higher), tl.exp(old - higher)
            old_total = old_total * shrink + weight
            old_gap = old_gap * shrink + weight * (old - z)
            old_peak = higher
    highest = tl.max(peak, 0)
    share = tl.exp(peak - highest)
    whole = tl.sum(total * share, 0)
    lse = highest + tl.log(whole)
    tl.store(found_at + row, lse)
    tl.store(found_at + rows + row, lse - tl.sum(weighted * share, 0) / whole)
    tl.store(found_at + 2 * rows + row, highest)
    tl.store(found_at + 3 * rows + row, whole)
    if OLD:
        highest = tl.max(old_peak, 0)
        share = tl.exp(old_peak - highest)
        whole = tl.sum(old_total * share, 0)
        tl.store(found_at + 4 * rows + row, highest + tl.log(whole))
        tl.store(found_at + 5 * rows + row, tl.sum(old_gap * share, 0) / whole)
        tl.store(found_at + 6 * rows + row, highest)
        tl.store(found_at + 7 * rows + row, whole)


@triton.jit
def _mix(
    z_at: tl.tensor,
    old_at: tl.tensor,
    peak_at: tl.tensor,
    old_peak_at: tl.tensor,
    k_at: tl.tensor,
    old_k_at: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    OLD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """z ← k exp(z − peak) + k_old exp(z_old − old_peak) of one row and one block."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    z = tl.load(z_at + row * stride + column, mask=inside)
    g = tl.load(k_at + row) * tl.exp(z - tl.load(peak_at + row))
    if OLD:
        old = tl.load(old_at + row * stride + column, mask=inside)
        g += tl.load(old_k_at + row) * tl.exp(old - tl.load(old_peak_at + row))
    tl.store(z_at + row * stride + column, g, mask=inside)


def row_statistics(z: Tensor, z_old: Tensor | None) -> dict[str, Tensor]:
    """What `Chunk` keeps of float32 logits [C, V]: log-sum-exp and entropy, with z_old also its log-sum-exp and KL(π_old ‖ π).

    Returns:
        {"probs lse", "entropy"} and {"probs_old lse", "kl_old"}, [C] each, and for `mix` the largest logit and the sum of
        exponentials relative to it. Equal logits give a KL of exactly 0.
    """
    rows, columns = z.shape
    old = z if z_old is None else z_old
    assert z.stride() == old.stride() == (columns, 1)
    found = z.new_empty(4 if z_old is None else 8, rows)
    with torch.cuda.device_of(z):
        _row_statistics[(rows,)](
            z, old, found, columns, z.stride(0), rows, OLD=z_old is not None, BLOCK=BLOCK, LOW=NOTHING, num_warps=8
        )
    names = {"probs lse": found[0], "entropy": found[1], "probs peak": found[2], "probs total": found[3]}
    if z_old is None:
        return names
    names |= {"probs_old lse": found[4], "probs_old peak": found[6], "probs_old total": found[7]}
    return names | {"kl_old": found[0] - found[4] + found[5]}


def mix(z: Tensor, z_old: Tensor | None, known: Mapping[str, Tensor], k: Tensor, k_old: Tensor) -> Tensor:
    """k π + k_old π_old, [C, V], written over z; without z_old the two policies are one.

    Args:
        known: what `row_statistics` found.
        k, k_old: [C].
    """
    rows, columns = z.shape
    if z_old is None:
        k, old, was = k + k_old, z, "probs"
    else:
        old, was = z_old, "probs_old"
    assert z.stride() == old.stride() == (columns, 1)
    # Relative to the peak and divided by the sum: through log-sum-exp a large logit's rounding would reach π.
    scalars = (known["probs peak"], known[f"{was} peak"], k / known["probs total"], k_old / known[f"{was} total"])
    with torch.cuda.device_of(z):
        grid = (rows, triton.cdiv(columns, BLOCK))
        _mix[grid](z, old, *scalars, columns, z.stride(0), OLD=z_old is not None, BLOCK=BLOCK, num_warps=8)
    return z


def check(device: torch.device) -> None:
    """Every variant that Triton compiles apart, against PyTorch: with and without an old policy, one row and several, a last
    block that is ragged or whose length is a multiple of 16.

    Raises:
        RuntimeError: they disagree, and by how much.
    """
    for rows, columns in itertools.product((1, 3), (BLOCK + 100, BLOCK + 96)):
        generator = torch.Generator(device).manual_seed(0)
        z, z_old = (6 * torch.randn(rows, columns, generator=generator, device=device) for _ in range(2))
        k, k_old = torch.randn(2, rows, generator=generator, device=device)
        log_p, log_old = z.log_softmax(1), z_old.log_softmax(1)
        alone = {"probs lse": z.logsumexp(1), "entropy": -(log_p.exp() * log_p).sum(1)}
        alone["gradient"] = (k + k_old)[:, None] * log_p.exp()
        both = {**alone, "probs_old lse": z_old.logsumexp(1), "kl_old": (log_old.exp() * (log_old - log_p)).sum(1)}
        both["gradient"] = k[:, None] * log_p.exp() + k_old[:, None] * log_old.exp()
        for old, expected in ((None, alone), (z_old, both)):
            logits = z.clone()
            found = row_statistics(logits, old)
            found["gradient"] = mix(logits, old, found, k, k_old)
            for name, value in expected.items():
                error = float((found[name] - value).abs().max())
                if not error < 1e-3:
                    raise RuntimeError(f"the kernel's {name} differs from PyTorch's by {error:.1e}")
        if bool(row_statistics(z, z.clone())["kl_old"].any()):
            raise RuntimeError("the kernel finds a divergence between equal logits")
