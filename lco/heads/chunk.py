"""One chunk of the head's work: the logits of C positions and everything that statistics derive from them, once each.

z are the logits [C, V], already divided by the sampling temperature; π = softmax(z); a the sampled token. Without an old
policy (the first minibatch after a rollout) π_old *is* π: z − z_old is 0 in value while gradients still flow, and nothing
about the old policy has to be kept.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from lco.heads.gibbs import tilted_policy
from lco.heads.mixture import SparseTarget, sparse_target
from lco.heads.step import HeadStep, Prediction, predict_step


class Target(Protocol):
    """LCO's optimal policy π* ∝ π_old exp(c), given by its tilt c = A/β (arXiv 2603.00963; kinds in lco/targets/).

    Attributes:
        dense: whether the whole vocabulary carries an advantage, or the sampled token alone.
        fixed: names of the fixed policies (verifier, dpo, reference) that the tilt is made from.
        tilt_bound: what |c| is clamped to; infinite where it is not.
    """

    @property
    def dense(self) -> bool: ...

    @property
    def fixed(self) -> tuple[str, ...]: ...

    @property
    def tilt_bound(self) -> float: ...

    def tilt(self, chunk: Chunk) -> Tensor:
        """c: [C] of the sampled token, or [C, V]. Never kept longer than the chunk."""
        ...


class Workspace:
    """[C, V] buffers by name, allocated once for all chunks of a call: fresh pages cost more than the arithmetic."""

    def __init__(self, rows: int, columns: int, like: Tensor) -> None:
        self._make = lambda: torch.empty(rows, columns, dtype=like.dtype, device=like.device)
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, rows: int) -> Tensor:
        if name not in self._buffers:
            self._buffers[name] = self._make()
        return self._buffers[name][:rows]


@functools.cache
def fused_kernels(device: torch.device) -> ModuleType | None:
    """`lco.heads.fused`, where Triton and a CUDA device are there and its kernels agree with PyTorch on it."""
    if device.type != "cuda":
        return None
    try:
        from lco.heads import fused

        fused.check(device)
    except Exception as error:
        warnings.warn(f"the head goes on without its Triton kernels, which is slower: {error}", stacklevel=2)
        return None
    return fused


LONG_ROW = 1 << 12
"""From here on a CPU takes a product of two rows at a time: four times as fast as their batched product, for 152 k columns."""


def rowwise_dot(x: Tensor, y: Tensor) -> Tensor:
    """[C, V], [C, V] → [C] without a third [C, V] buffer."""
    if len(x) and x.shape[1] >= LONG_ROW and not x.is_cuda:
        return torch.stack([torch.dot(a, b) for a, b in zip(x, y, strict=True)])
    return torch.bmm(x[:, None, :], y[:, :, None]).view(-1)


@dataclass
class Chunk:
    """
    Attributes:
        z: [C, V] float32 logits (float64 for a float64 head).
        tokens: [C] sampled tokens.
        z_old: [C, V] logits of the old policy, or None where it is the current one.
        inputs: the loss's constants, [C, …] each.
        target: LCO's target, for losses that have one.
        fixed: name → a function that computes the logits [C, V] of a fixed policy.
        workspace: where [C, V] buffers come from.
        states: [C, d] hidden states divided by the temperature, where `step` is given.
        step: the optimizer's coming step on the head, for the statistics that predict what it does.
    """

    z: Tensor
    tokens: Tensor
    z_old: Tensor | None
    inputs: Mapping[str, Tensor]
    target: Target | None
    fixed: Mapping[str, Callable[[], Tensor]]
    workspace: Workspace
    _cache: dict[str, Tensor] = field(default_factory=dict)
    _sparse: SparseTarget | None = None
    states: Tensor | None = None
    step: HeadStep | None = None
    _prediction: Prediction | None = None

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def buffer(self, name: str) -> Tensor:
        """[C, V] of this chunk; whatever it holds is overwritten."""
        return self.workspace.get(name, len(self.z))

    def zeros(self) -> Tensor:
        return self.z.new_zeros(len(self.z))

    def at_token(self, x: Tensor) -> Tensor:
        return x.gather(1, self.tokens[:, None]).squeeze(1)

    def logit_at(self, name: str, tokens: Tensor) -> Tensor:
        """z at the k tokens [C, k] of every position that are known by this name."""
        return self.once(f"logit at {name}", lambda: self.z.gather(1, tokens))

    def add_at_token(self, x: Tensor, value: Tensor) -> Tensor:
        return x.scatter_add_(1, self.tokens[:, None], value[:, None].to(x.dtype))

    def softmax(self, z: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """(probabilities [C, V], logsumexp [C]) from one exponential per logit."""
        peak = z.amax(1)
        weights = torch.sub(z, peak[:, None], out=self.buffer(name)).exp_()
        total = weights.sum(1)
        return weights.mul_(total.reciprocal()[:, None]), peak + total.log()

    @property
    def fused(self) -> ModuleType | None:
        """The kernels that work on logits alone, where they can."""
        return fused_kernels(self.z.device) if len(self.z) and self.z.dtype == torch.float32 else None

    def _distribution(self, z: Tensor, name: str) -> Tensor:
        if name not in self._cache:
            if self.fused is not None:
                self._log_sum(z, name)  # so that every log-probability comes from one source
            self._cache[name], lse = self.softmax(z, name)
            self._cache.setdefault(name + " lse", lse)
        return self._cache[name]

    def _log_sum(self, z: Tensor, name: str) -> Tensor:
        if name + " lse" not in self._cache:
            if self.fused is None:
                self._distribution(z, name)
            else:
                self._cache |= self.fused.row_statistics(self.z, self.z_old)
        return self._cache[name + " lse"]

    def mixture(self, k: Tensor, k_old: Tensor) -> Tensor:
        """k π + k_old π_old, [C, V]. Overwrites the logits or the probabilities."""
        if self.fused is not None:
            self._log_sum(self.z, "probs")
            return self.fused.mix(self.z, self.z_old, self._cache, k, k_old)
        if self.z_old is None:
            return self.probs.mul_((k + k_old)[:, None])
        mixed = self.probs.mul_(k[:, None])
        return mixed.addcmul_(self.probs_old, k_old[:, None]) if bool(k_old.any()) else mixed

    @property
    def probs(self) -> Tensor:
        return self._distribution(self.z, "probs")

    @property
    def lse(self) -> Tensor:
        return self._log_sum(self.z, "probs")

    @property
    def logit(self) -> Tensor:
        return self.once("logit", lambda: self.at_token(self.z))

    @property
    def logprob(self) -> Tensor:
        return self.once("logprob", lambda: self.logit - self.lse)

    @property
    def entropy(self) -> Tensor:
        lse = self.lse  # the kernels find both at once
        return self.once("entropy", lambda: lse - rowwise_dot(self.probs, self.z))

    @property
    def kl_old(self) -> Tensor:
        """KL(π_old ‖ π), [C]."""
        if self.z_old is None:
            return self.zeros()
        shift = self.lse - self.lse_old
        # Σ π_old (z_old − z) + lse − lse_old: one product, so that equal logits give exactly 0.
        return self.once("kl_old", lambda: shift - rowwise_dot(self.probs_old, self.gap))

    @property
    def old_logits(self) -> Tensor:
        return self.z if self.z_old is None else self.z_old

    @property
    def probs_old(self) -> Tensor:
        if self.z_old is None:
            return self.probs
        return self._distribution(self.z_old, "probs_old")

    @property
    def lse_old(self) -> Tensor:
        if self.z_old is None:
            return self.lse
        return self._log_sum(self.z_old, "probs_old")

    @property
    def old_logprob(self) -> Tensor:
        """log π_old(a): measured before the first update, from the old policy's logits, or the current one."""
        if "old_logprob" in self.inputs:
            return self.inputs["old_logprob"]
        return self.once("old_logprob", lambda: self.old_logit - self.lse_old)

    @property
    def sampler_logprob(self) -> Tensor:
        """log μ(a) as the sampler recorded it; where it is no input, the sampler was the old policy."""
        if "sampler_logprob" in self.inputs:
            return self.inputs["sampler_logprob"]
        return self.old_logprob

    @property
    def old_logit(self) -> Tensor:
        return self.once("old_logit", lambda: self.at_token(self.old_logits))

    @property
    def gap(self) -> Tensor:
        """d = z − z_old, [C, V]; off-policy only, not to be written to."""
        assert self.z_old is not None
        z_old = self.z_old
        return self.once("gap", lambda: torch.sub(self.z, z_old, out=self.buffer("gap")))

    @property
    def prediction(self) -> Prediction:
        """What the coming step on the head does to log π of the sampled tokens."""
        assert self.step is not None
        assert self.states is not None
        if self._prediction is None:
            self._prediction = predict_step(self.step, self.probs, self.tokens, self.states, self.inputs["advantage"])
        return self._prediction

    @property
    def log_ratio(self) -> Tensor:
        """log π − log π_old at the sampled token, [C]."""
        return self.logprob - self.old_logprob

    @property
    def tilt(self) -> Tensor:
        """c: [C] of the sampled token, or [C, V]."""
        if "tilt" in self.inputs:
            return self.inputs["tilt"]
        assert self.target is not None, "this loss reads a target, but the method declares none"
        target = self.target
        return self.once("tilt", lambda: target.tilt(self))

    @property
    def sparse(self) -> SparseTarget:
        """π* of a tilt of the sampled token alone, as scalars."""
        if self._sparse is None:
            self._sparse = sparse_target(self.old_logprob, self.tilt, self._rest_old())
        return self._sparse

    def _rest_old(self) -> Tensor | None:
        """1 − π_old(a), [C], summed over the other tokens where 1 − exp(log p) is too coarse: p → 1 and a target elsewhere."""
        if "rest_old" in self._cache:
            return self._cache["rest_old"]
        p = self.old_logprob.exp()
        extreme = ((p > 0.9) & (self.tilt != 0)).nonzero().squeeze(1)
        if not len(extreme) or "old_logprob" in self.inputs:
            return None
        return (1 - p).index_copy(0, extreme, self.without_token(self.probs_old, extreme).sum(1))

    def without_token(self, probs: Tensor, rows: Tensor) -> Tensor:
        """π or π_old of some rows without their sampled tokens, [len(rows), V]: their sum is 1 − π(a) to its own precision."""
        return probs[rows].scatter_(1, self.tokens[rows, None], 0.0)

    @property
    def logprobs_old(self) -> Tensor:
        """log π_old, [C, V]; for dense targets."""
        return self.once(
            "logprobs_old", lambda: torch.sub(self.old_logits, self.lse_old[:, None], out=self.buffer("logprobs_old"))
        )

    def fixed_logprobs(self, name: str) -> Tensor:
        """log-probabilities [C, V] of a fixed policy; the caller may write to them."""
        z = self.fixed[name]()
        return z.sub_(torch.logsumexp(z, 1, keepdim=True))

    def top_old(self, k: int) -> tuple[Tensor, Tensor]:
        """(logits, indices) [C, k] of π_old's k likeliest tokens, as measured before the first update if they were."""
        if f"old_top/{k}" in self.inputs:
            return self.inputs[f"old_logit_at_top/{k}"], self.inputs[f"old_top/{k}"]
        name = f"top {k}"
        if name not in self._cache:
            self._cache[name], self._cache[name + " indices"] = self.old_logits.topk(min(k, self.z.shape[1]), 1)
        return self._cache[name], self._cache[name + " indices"]

    def sampler_top(self, k: int) -> tuple[Tensor, Tensor]:
        """(log μ, indices) [C, k] of the sampler's k likeliest tokens as it recorded them; where they are no inputs, of the
        old policy's."""
        if f"sampler_top/{k}" in self.inputs:
            return self.inputs[f"sampler_logprob_at_top/{k}"], self.inputs[f"sampler_top/{k}"]
        logits, indices = self.top_old(k)
        return logits - self.lse_old[:, None], indices

    @property
    def log_target(self) -> Tensor:
        """log π* of a dense tilt, [C, V]."""

        def compute() -> Tensor:
            return tilted_policy(self.logprobs_old, self.tilt, out=self.buffer("log_target"))[0]

        return self.once("log_target", compute)

    @property
    def target_probs(self) -> Tensor:
        """π* of a dense tilt, [C, V]."""
        return self.once("target_probs", lambda: torch.exp(self.log_target, out=self.buffer("target_probs")))

    @property
    def is_dense(self) -> bool:
        return self.target is not None and self.target.dense and "tilt" not in self.inputs


@dataclass
class LogitGradient:
    """∂loss/∂z as coefficients [C] on π, π_old, e_a and 1, plus whatever is not of that form ([C, V]).

    `at` holds (indices [C, k], coefficients [C, k]) of a few tokens each. `others` and `rest` are coefficients on π and π_old
    without their sampled token. LCO-KLD uses them: its gradient at the sampled token is π(a) − π*(a), while elsewhere the
    weight of π_old may be 10⁶, and a difference of such numbers would be noise.
    """

    probs: Tensor
    probs_old: Tensor
    onehot: Tensor
    uniform: Tensor
    others: Tensor
    rest: Tensor
    dense: Tensor | None = None
    at: list[tuple[Tensor, Tensor]] = field(default_factory=list, kw_only=True)

    @staticmethod
    def zeros(chunk: Chunk) -> LogitGradient:
        return LogitGradient(*(chunk.zeros() for _ in range(6)))

    def add_dense(self, term: Tensor) -> None:
        """`term` is a buffer that nobody else reads."""
        self.dense = term if self.dense is None else self.dense.add_(term)

    def assemble(self, chunk: Chunk) -> Tensor:
        """The gradient [C, V]. Overwrites the chunk's logits and probabilities: call it last."""
        apart = bool(self.rest.any()) or bool(self.others.any())
        mixed = apart or bool(self.probs.any()) or bool(self.probs_old.any())
        if self.dense is not None and not mixed:
            gradient = self.dense
        else:
            gradient = chunk.mixture(self.probs + self.others, self.probs_old + self.rest)
            if apart:
                # What `onehot` takes away from here is as large, and made of the same logarithms.
                old = (chunk.old_logit - chunk.lse_old).exp()
                at_token = self.probs * chunk.logprob.exp() + self.probs_old * old
                gradient.scatter_(1, chunk.tokens[:, None], at_token[:, None])
            if self.dense is not None:
                gradient.add_(self.dense)
        for indices, coefficients in self.at:
            gradient.scatter_add_(1, indices, coefficients.to(gradient.dtype))
        if bool(self.uniform.any()):
            gradient.add_(self.uniform[:, None])
        return chunk.add_at_token(gradient, self.onehot)
