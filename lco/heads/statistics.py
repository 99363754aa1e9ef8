"""Token statistics: the few scalars per token that every objective is a function of, with their logit gradients.

The table of methods.md 0.3 as code. z are the logits of C positions [C, V] (already divided by the sampling
temperature), π = softmax(z), a the sampled token, π_old the policy that the data is judged against, d = z − z_old.

| statistic          | value                      | ∂/∂z                       |
|--------------------|----------------------------|----------------------------|
| `logit`            | z_a                        | e_a                        |
| `logsumexp`        | lse(z)                     | π                          |
| `logprob`          | z_a − lse(z)               | e_a − π                    |
| `entropy`          | lse − Σ π z                | −π (log π + H)             |
| `mean_logit`       | Σ z / V                    | 1/V                        |
| `sq_prob`          | Σ π²                       | 2π (π − Σ π²)              |
| `kl_old`           | KL(π_old ‖ π)              | π − π_old                  |
| `sum_gap`          | Σ d                        | 1                          |
| `sq_gap`           | Σ d²                       | 2d                         |
| `old_mean_gap`     | Σ π_old d                  | π_old                      |
| `old_mean_sq_gap`  | Σ π_old d²                 | 2 π_old d                  |
| `logcosh_gap`      | Σ log cosh P(d − c e_a)    | P tanh P(d − c e_a)        |

`logcosh_gap` reads the tilt c = A/β from the loss's input `tilt`; P removes the mean over the vocabulary.
`old_logit`, `old_logprob`, `old_entropy` and `vocabulary_size` are constants.

Without an old policy (the first minibatch after a rollout) π_old *is* π: d = 0 in value while gradients still flow, and
the old statistics are the new ones, detached. Nothing about the old policy has to be kept then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


def logcosh(x: Tensor) -> Tensor:
    """log cosh x without overflow: |x| + softplus(−2|x|) − log 2."""
    return x.abs() + torch.nn.functional.softplus(-2 * x.abs()) - math.log(2)


@dataclass
class Chunk:
    """Logits of C positions and what is derived from them, each computed at most once.

    Attributes:
        z: [C, V] float32 logits.
        targets: [C] sampled tokens.
        z_old: [C, V] float32 logits of the old policy, or None where it is the current one.
        inputs: the loss's constants, [C] each.
    """

    z: Tensor
    targets: Tensor
    z_old: Tensor | None
    inputs: Mapping[str, Tensor]
    _cache: dict[str, Tensor] = field(default_factory=dict)

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def at_target(self, z: Tensor) -> Tensor:
        return z.gather(1, self.targets[:, None]).squeeze(1)

    @property
    def lse(self) -> Tensor:
        return self._once("lse", lambda: torch.logsumexp(self.z, 1))

    @property
    def probs(self) -> Tensor:
        return self._once("probs", lambda: (self.z - self.lse[:, None]).exp_())

    @property
    def lse_old(self) -> Tensor:
        return self._once("lse_old", lambda: self.lse if self.z_old is None else torch.logsumexp(self.z_old, 1))

    @property
    def probs_old(self) -> Tensor:
        if self.z_old is None:
            return self.probs
        z_old = self.z_old
        return self._once("probs_old", lambda: (z_old - self.lse_old[:, None]).exp_())

    @property
    def entropy(self) -> Tensor:
        return self._once("entropy", lambda: self.lse - rowwise_dot(self.probs, self.z))

    @property
    def entropy_old(self) -> Tensor:
        z_old = self.z if self.z_old is None else self.z_old
        return self._once("entropy_old", lambda: self.lse_old - rowwise_dot(self.probs_old, z_old))

    def zeros(self) -> Tensor:
        return self.z.new_zeros(self.z.shape[0])


def rowwise_dot(x: Tensor, y: Tensor) -> Tensor:
    """[C, V], [C, V] → [C] without a third [C, V] buffer."""
    return torch.bmm(x[:, None, :], y[:, :, None]).view(-1)


@dataclass
class LogitGradient:
    """∂loss/∂z as coefficients [C] on π, π_old, e_a and 1, plus whatever is not of that form ([C, V])."""

    probs: Tensor
    probs_old: Tensor
    onehot: Tensor
    uniform: Tensor
    dense: Tensor | None = None

    @staticmethod
    def zeros(chunk: Chunk) -> LogitGradient:
        return LogitGradient(chunk.zeros(), chunk.zeros(), chunk.zeros(), chunk.zeros())

    def add_dense(self, term: Tensor) -> None:
        self.dense = term if self.dense is None else self.dense.add_(term)

    def assemble(self, chunk: Chunk) -> Tensor:
        """The gradient [C, V]. Overwrites the chunk's probabilities: call it last."""
        if chunk.z_old is None:
            self.probs = self.probs + self.probs_old
        gradient = chunk.probs.mul_(self.probs[:, None])
        if chunk.z_old is not None and bool(self.probs_old.any()):
            gradient.addcmul_(chunk.probs_old, self.probs_old[:, None])
        if bool(self.uniform.any()):
            gradient.add_(self.uniform[:, None])
        if self.dense is not None:
            gradient.add_(self.dense)
        return gradient.scatter_add_(1, chunk.targets[:, None], self.onehot[:, None])


@dataclass(frozen=True)
class Statistic:
    """`value(chunk) → [C]` and `backward(chunk, k, gradient)`, which adds k·∂value/∂z ([C] times [C, V])."""

    value: Callable[[Chunk], Tensor]
    backward: Callable[[Chunk, Tensor, LogitGradient], None] | None


def _gap(chunk: Chunk) -> Tensor:
    assert chunk.z_old is not None
    return chunk.z - chunk.z_old


def _logit_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.onehot += k


def _logsumexp_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.probs += k


def _logprob_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.onehot += k
    g.probs -= k


def _entropy_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    # −π (log π + H) = −π z + π (lse − H)
    g.probs += k * (chunk.lse - chunk.entropy)
    g.add_dense((chunk.probs * chunk.z).mul_(-k[:, None]))


def _mean_logit_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.uniform += k / chunk.z.shape[1]


def _sq_prob(chunk: Chunk) -> Tensor:
    return (torch.logsumexp(2 * chunk.z, 1) - 2 * chunk.lse).exp()


def _sq_prob_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.probs -= 2 * k * _sq_prob(chunk)
    g.add_dense(chunk.probs.square().mul_(2 * k[:, None]))


def _kl_old(chunk: Chunk) -> Tensor:
    if chunk.z_old is None:
        return chunk.zeros()
    # Σ π_old (z_old − z) + lse − lse_old: one product, so that equal logits give exactly 0.
    return chunk.lse - chunk.lse_old - rowwise_dot(chunk.probs_old, _gap(chunk))


def _kl_old_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.probs += k
    g.probs_old -= k


def _sum_gap(chunk: Chunk) -> Tensor:
    return chunk.zeros() if chunk.z_old is None else _gap(chunk).sum(1)


def _sum_gap_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.uniform += k


def _sq_gap(chunk: Chunk) -> Tensor:
    return chunk.zeros() if chunk.z_old is None else _gap(chunk).square_().sum(1)


def _sq_gap_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if chunk.z_old is not None:
        g.add_dense(_gap(chunk).mul_(2 * k[:, None]))


def _old_mean_gap(chunk: Chunk) -> Tensor:
    return chunk.zeros() if chunk.z_old is None else rowwise_dot(chunk.probs_old, _gap(chunk))


def _old_mean_gap_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.probs_old += k


def _old_mean_sq_gap(chunk: Chunk) -> Tensor:
    return chunk.zeros() if chunk.z_old is None else rowwise_dot(chunk.probs_old, _gap(chunk).square_())


def _old_mean_sq_gap_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if chunk.z_old is not None:
        g.add_dense(_gap(chunk).mul_(chunk.probs_old).mul_(2 * k[:, None]))


def _centred_residual(chunk: Chunk) -> Tensor:
    """P(d − c e_a), [C, V]; off-policy only."""
    residual = _gap(chunk).scatter_add_(1, chunk.targets[:, None], -chunk.inputs["tilt"][:, None].to(chunk.z.dtype))
    return residual.sub_(residual.mean(1, keepdim=True))


def _logcosh_gap(chunk: Chunk) -> Tensor:
    if chunk.z_old is None:
        # d = 0: the residual is c/V everywhere and −c(1 − 1/V) at a, so no vector is needed.
        size, tilt = chunk.z.shape[1], chunk.inputs["tilt"]
        return logcosh(tilt * (1 - 1 / size)) + (size - 1) * logcosh(tilt / size)
    return logcosh(_centred_residual(chunk)).sum(1)


def _logcosh_gap_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if chunk.z_old is None:
        # P tanh(residual) = (tanh_a − tanh_other)(e_a − 1/V)
        size, tilt = chunk.z.shape[1], chunk.inputs["tilt"]
        step = -torch.tanh(tilt * (1 - 1 / size)) - torch.tanh(tilt / size)
        g.onehot += k * step
        g.uniform -= k * step / size
        return
    slope = torch.tanh_(_centred_residual(chunk))
    g.add_dense(slope.sub_(slope.mean(1, keepdim=True)).mul_(k[:, None]))


def _old_logit(chunk: Chunk) -> Tensor:
    return chunk.at_target(chunk.z if chunk.z_old is None else chunk.z_old)


STATISTICS: dict[str, Statistic] = {
    "logit": Statistic(lambda c: c.at_target(c.z), _logit_backward),
    "logsumexp": Statistic(lambda c: c.lse, _logsumexp_backward),
    "logprob": Statistic(lambda c: c.at_target(c.z) - c.lse, _logprob_backward),
    "entropy": Statistic(lambda c: c.entropy, _entropy_backward),
    "mean_logit": Statistic(lambda c: c.z.mean(1), _mean_logit_backward),
    "sq_prob": Statistic(_sq_prob, _sq_prob_backward),
    "kl_old": Statistic(_kl_old, _kl_old_backward),
    "sum_gap": Statistic(_sum_gap, _sum_gap_backward),
    "sq_gap": Statistic(_sq_gap, _sq_gap_backward),
    "old_mean_gap": Statistic(_old_mean_gap, _old_mean_gap_backward),
    "old_mean_sq_gap": Statistic(_old_mean_sq_gap, _old_mean_sq_gap_backward),
    "logcosh_gap": Statistic(_logcosh_gap, _logcosh_gap_backward),
    "vocabulary_size": Statistic(lambda c: torch.full_like(c.lse, c.z.shape[1]), None),
    "old_logit": Statistic(_old_logit, None),
    "old_logprob": Statistic(lambda c: _old_logit(c) - c.lse_old, None),
    "old_entropy": Statistic(lambda c: c.entropy_old, None),
}
