"""Token statistics: the few scalars per token that every objective is a function of, with their logit gradients.

z are the logits of C positions [C, V] (divided by the sampling temperature), π = softmax(z), a the sampled token, π_old
the policy that the data is judged against, d = z − z_old, and c the tilt A/β of LCO's target π* ∝ π_old eᶜ, of the
sampled token alone (sparse) or of the whole vocabulary (dense). P removes the mean over the vocabulary.

| statistic            | value                                   | ∂/∂z                            |
|----------------------|-----------------------------------------|---------------------------------|
| `logit`              | z_a                                     | e_a                             |
| `logsumexp`          | lse(z)                                  | π                               |
| `logprob`            | z_a − lse(z)                            | e_a − π                         |
| `entropy`            | lse − Σ π z                             | −π (log π + H)                  |
| `sq_prob`            | Σ π²                                    | 2π (π − Σ π²)                   |
| `kl_old`             | KL(π_old ‖ π)                           | π − π_old                       |
| `kl_target`          | KL(π* ‖ π)                              | π − π*                          |
| `kl_from_target`     | KL(π ‖ π*)                              | π (log π/π* − KL)               |
| `sq_residual`        | Σ (P(d − c))²                           | 2 P(d − c)                      |
| `var_residual`       | Var of d − c under π_old                | 2 π_old (d − c − mean)          |
| `logcosh_residual`   | Σ log cosh P(d − c)                     | P tanh P(d − c)                 |
| `sq_logprob_residual`| Σ (log π − log π*)²                     | 2 (x − π Σ x), x = log π − log π* |
| `sq_gap_known`       | Σ (d − c + E_old c)², dense tilts       | 2 (d − c + E_old c)             |
| `logcosh_gap_known`  | Σ log cosh(d − c + E_old c), dense      | tanh(d − c + E_old c)           |
| `logprob_at_top/k`   | log π at π_old's k likeliest, [C, k]    | e_i − π                         |
| `logprob_at_sampler_top/k` | log π at the sampler's k likeliest | e_i − π                        |

Constants: `token`; `old_logit`, `old_logsumexp`, `old_logprob`, `old_rest` = 1 − π_old(a); `old_top/k` and
`old_logit_at_top/k`, the k likeliest tokens of π_old, and `outside_top/k`, whether the sampled token is not among them; of
the target `tilt` (sparse), `tilt_clamped`, `target_kl` = KL(π* ‖ π_old), `target_tv`; of the sampler's distribution μ
`sampler_logprob` of the sampled token, `sampler_top/k` and `sampler_logprob_at_top/k`, its k likeliest tokens. A run gives
these as inputs, as they were recorded while sampling; without inputs the sampler was π_old. Of the optimizer's coming step on
the head `step_slope` and `step_spread` (lco/heads/step.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lco.heads.chunk import Chunk, LogitGradient, rowwise_dot
from lco.heads.mixture import TILT_BOUND


def logcosh(x: Tensor) -> Tensor:
    """log cosh x without overflow: |x| + softplus(−2|x|) − log 2."""
    return x.abs() + torch.nn.functional.softplus(-2 * x.abs()) - math.log(2)


@dataclass(frozen=True)
class Statistic:
    """`value(chunk)` → [C] (or [C, k]), `backward(chunk, k, gradient)` adds k·∂value/∂z, [C] times [C, V].

    Attributes:
        whole_old: whether it needs π_old over the whole vocabulary, so that hidden states and head have to be kept.
    """

    value: Callable[[Chunk], Tensor]
    backward: Callable[[Chunk, Tensor, LogitGradient], None] | None = None
    whole_old: bool = False


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
    g.add_dense(torch.mul(chunk.probs, chunk.z, out=chunk.buffer("entropy")).mul_(-k[:, None]))


def _sq_prob(chunk: Chunk) -> Tensor:
    return rowwise_dot(chunk.probs, chunk.probs)


def _sq_prob_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.probs -= 2 * k * _sq_prob(chunk)
    g.add_dense(torch.square(chunk.probs, out=chunk.buffer("sq_prob")).mul_(2 * k[:, None]))


def _kl_old_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.probs += k
    g.probs_old -= k


def _kl_of_the_rest(chunk: Chunk) -> Tensor:
    """Σ over v ≠ a of π_old (log π_old − log π)."""
    return chunk.zeros() if chunk.z_old is None else chunk.once("kl_rest", lambda: _sum_of_the_rest(chunk))


def _sum_of_the_rest(chunk: Chunk) -> Tensor:
    rest = chunk.kl_old + chunk.old_logprob.exp() * chunk.log_ratio
    # Where the rest is nearly nothing and weighs 10⁶, it has to be summed by itself.
    extreme = (chunk.sparse.stay > 100).nonzero().squeeze(1)
    if len(extreme):
        others = chunk.without_token(chunk.probs_old, extreme)
        shift = (chunk.lse - chunk.lse_old)[extreme]
        rest[extreme] = others.sum(1) * shift - rowwise_dot(others, chunk.gap[extreme])
    return rest


def _kl_target(chunk: Chunk) -> Tensor:
    if chunk.is_dense:
        # log π* − log π, summed under π*
        gap = torch.sub(chunk.log_target, chunk.z, out=chunk.buffer("scratch"))
        return rowwise_dot(chunk.target_probs, gap) + chunk.lse
    target = chunk.sparse
    sampled = target.probability * (target.log_probability - chunk.logprob)
    return sampled + target.stay * _kl_of_the_rest(chunk) - target.others * target.log_partition


def _kl_target_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    """π − π*. Sparse: π(a) − q at the sampled token, π − π_old/Z elsewhere."""
    if chunk.is_dense:
        g.probs += k
        g.add_dense(chunk.target_probs.mul_(-k[:, None]))
    elif chunk.z_old is None:
        g.rest += k * chunk.sparse.imitate
        g.onehot -= k * chunk.sparse.moved
    else:
        sure = chunk.logprob.exp() > 0.9
        g.probs += k * ~sure
        g.others += k * sure
        g.rest -= k * chunk.sparse.stay
        # Where both are nearly 1, π(a) − q is the difference of what they leave to the others.
        rows = sure.nonzero().squeeze(1)
        at_token = (-k * chunk.sparse.probability).index_copy(0, rows, (k * chunk.sparse.others)[rows])
        g.onehot += at_token.index_add(0, rows, chunk.without_token(chunk.probs, rows).sum(1) * -k[rows])


def _kl_from_target(chunk: Chunk) -> Tensor:
    if chunk.is_dense:
        gap = torch.sub(chunk.z, chunk.log_target, out=chunk.buffer("scratch"))
        return rowwise_dot(chunk.probs, gap) - chunk.lse
    reverse = chunk.zeros()
    if chunk.z_old is not None:
        reverse = rowwise_dot(chunk.probs, chunk.gap) + chunk.lse_old - chunk.lse
    return reverse - chunk.tilt * chunk.logprob.exp() + chunk.sparse.log_partition


def _kl_from_target_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    """π (log π − log π* − KL)."""
    divergence = _kl_from_target(chunk)
    if chunk.is_dense:
        gap = torch.sub(chunk.z, chunk.log_target, out=chunk.buffer("reverse"))
        g.probs -= k * (chunk.lse + divergence)
        g.add_dense(gap.mul_(chunk.probs).mul_(k[:, None]))
        return
    g.onehot -= k * chunk.tilt * chunk.logprob.exp()
    g.probs += k * (chunk.sparse.log_partition - divergence)
    if chunk.z_old is not None:
        g.probs += k * (chunk.lse_old - chunk.lse)
        g.add_dense(torch.mul(chunk.probs, chunk.gap, out=chunk.buffer("reverse")).mul_(k[:, None]))


def _residual(chunk: Chunk, name: str) -> Tensor:
    """d − c, [C, V], in the statistic's own buffer. On-policy d = 0."""
    residual = chunk.buffer(name)
    if chunk.z_old is None:
        residual.zero_()
    else:
        residual.copy_(chunk.gap)
    if chunk.is_dense:
        return residual.sub_(chunk.tilt)
    return chunk.add_at_token(residual, -chunk.tilt)


def _centred_residual(chunk: Chunk, name: str) -> Tensor:
    residual = _residual(chunk, name)
    return residual.sub_(residual.mean(1, keepdim=True))


def _without_vector(chunk: Chunk) -> bool:
    """On-policy and sparse, P(d − c e_a) is c/V everywhere and −c (1 − 1/V) at a: no vector is needed."""
    return chunk.z_old is None and not chunk.is_dense


def _sq_residual(chunk: Chunk) -> Tensor:
    if _without_vector(chunk):
        return chunk.tilt**2 * (1 - 1 / chunk.z.shape[1])
    residual = _centred_residual(chunk, "sq_residual")
    return rowwise_dot(residual, residual)


def _sq_residual_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if _without_vector(chunk):
        g.onehot -= 2 * k * chunk.tilt
        g.uniform += 2 * k * chunk.tilt / chunk.z.shape[1]
        return
    g.add_dense(_centred_residual(chunk, "sq_residual").mul_(2 * k[:, None]))


def _old_centred_residual(chunk: Chunk) -> Tensor:
    """d − c minus its mean under π_old."""
    residual = _residual(chunk, "var_residual")
    return residual.sub_(rowwise_dot(chunk.probs_old, residual)[:, None])


def _var_residual(chunk: Chunk) -> Tensor:
    if _without_vector(chunk):
        p = chunk.old_logprob.exp()
        return chunk.tilt**2 * p * (1 - p)
    return rowwise_dot(chunk.probs_old, _old_centred_residual(chunk).square_())


def _var_residual_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if _without_vector(chunk):
        # −2 π_old(a) c (e_a − π_old)
        step = 2 * k * chunk.tilt * chunk.old_logprob.exp()
        g.onehot -= step
        g.probs_old += step
        return
    g.add_dense(_old_centred_residual(chunk).mul_(chunk.probs_old).mul_(2 * k[:, None]))


def _logcosh_residual(chunk: Chunk) -> Tensor:
    if _without_vector(chunk):
        size = chunk.z.shape[1]
        return logcosh(chunk.tilt * (1 - 1 / size)) + (size - 1) * logcosh(chunk.tilt / size)
    return logcosh(_centred_residual(chunk, "logcosh_residual")).sum(1)


def _logcosh_residual_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if _without_vector(chunk):
        # P tanh(residual) = (tanh_a − tanh_other)(e_a − 1/V)
        size = chunk.z.shape[1]
        step = -torch.tanh(chunk.tilt * (1 - 1 / size)) - torch.tanh(chunk.tilt / size)
        g.onehot += k * step
        g.uniform -= k * step / size
        return
    slope = _centred_residual(chunk, "logcosh_residual").tanh_()
    g.add_dense(slope.sub_(slope.mean(1, keepdim=True)).mul_(k[:, None]))


def _logprob_residual(chunk: Chunk) -> Tensor:
    """log π − log π*, [C, V], in the statistic's own buffer."""
    if chunk.is_dense:
        residual = torch.sub(chunk.z, chunk.log_target, out=chunk.buffer("sq_logprob_residual"))
        return residual.sub_(chunk.lse[:, None])
    shift = chunk.sparse.log_partition + chunk.lse_old - chunk.lse
    return _residual(chunk, "sq_logprob_residual").add_(shift[:, None])


def _sq_logprob_residual(chunk: Chunk) -> Tensor:
    if _without_vector(chunk):  # log Z everywhere, log Z − c at the sampled token
        log_z = chunk.sparse.log_partition
        return (chunk.z.shape[1] - 1) * log_z**2 + (log_z - chunk.tilt) ** 2
    residual = _logprob_residual(chunk)
    return rowwise_dot(residual, residual)


def _sq_logprob_residual_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    if _without_vector(chunk):
        log_z = chunk.sparse.log_partition
        g.uniform += 2 * k * log_z
        g.onehot -= 2 * k * chunk.tilt
        g.probs -= 2 * k * (chunk.z.shape[1] * log_z - chunk.tilt)
        return
    residual = _logprob_residual(chunk)
    g.probs -= 2 * k * residual.sum(1)
    g.add_dense(residual.mul_(2 * k[:, None]))


def _known_residual(chunk: Chunk, name: str) -> Tensor:
    """d − (c − E_old c): raw logits against a dense tilt that is centred under π_old, where its constant is fixed."""
    assert chunk.is_dense, "of a sparse tilt only the sampled token is known: read `logit` and `old_logit`"
    return _residual(chunk, name).add_(rowwise_dot(chunk.probs_old, chunk.tilt)[:, None])


def _sq_gap_known(chunk: Chunk) -> Tensor:
    residual = _known_residual(chunk, "sq_gap_known")
    return rowwise_dot(residual, residual)


def _sq_gap_known_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.add_dense(_known_residual(chunk, "sq_gap_known").mul_(2 * k[:, None]))


def _logcosh_gap_known(chunk: Chunk) -> Tensor:
    return logcosh(_known_residual(chunk, "logcosh_gap_known")).sum(1)


def _logcosh_gap_known_backward(chunk: Chunk, k: Tensor, g: LogitGradient) -> None:
    g.add_dense(_known_residual(chunk, "logcosh_gap_known").tanh_().mul_(k[:, None]))


def _target_kl(chunk: Chunk) -> Tensor:
    if chunk.is_dense:
        gap = torch.sub(chunk.log_target, chunk.logprobs_old, out=chunk.buffer("scratch"))
        return rowwise_dot(chunk.target_probs, gap)
    return chunk.sparse.kl


def _target_tv(chunk: Chunk) -> Tensor:
    if chunk.is_dense:
        return torch.sub(chunk.target_probs, chunk.probs_old, out=chunk.buffer("scratch")).abs_().sum(1) / 2
    return chunk.sparse.moved.abs()


def _old_rest(chunk: Chunk) -> Tensor:
    """1 − π_old(a), where that is small the sum over the other tokens: float32's 1 − exp(log p) knows nothing below 1e-7."""
    p = (chunk.old_logit - chunk.lse_old).exp()
    sure = (p > 0.9).nonzero().squeeze(1)
    return (1 - p).index_copy(0, sure, chunk.without_token(chunk.probs_old, sure).sum(1))


def _tilt(chunk: Chunk) -> Tensor:
    assert not chunk.is_dense, "a dense tilt is no scalar"
    return chunk.tilt


def _tilt_clamped(chunk: Chunk) -> Tensor:
    if chunk.is_dense:
        return chunk.zeros()
    bound = TILT_BOUND if chunk.target is None else chunk.target.tilt_bound
    return (chunk.tilt.abs() >= bound).to(chunk.z.dtype)


def _logprob_at(name: str, tokens: Callable[[Chunk], Tensor]) -> Statistic:
    """log π at the k tokens [C, k] of every position that are known by this name."""

    def logprob(chunk: Chunk) -> Tensor:
        return chunk.logit_at(name, tokens(chunk)) - chunk.lse[:, None]

    def backward(chunk: Chunk, upstream: Tensor, g: LogitGradient) -> None:
        g.probs -= upstream.sum(1)
        g.at.append((tokens(chunk), upstream))

    return Statistic(logprob, backward)


def _at_top(k: int) -> dict[str, Statistic]:
    """The statistics that read the k likeliest tokens of π_old, or of the sampler."""

    def outside(chunk: Chunk) -> Tensor:
        return (chunk.top_old(k)[1] != chunk.tokens[:, None]).all(1).to(chunk.z.dtype)

    return {
        "logprob_at_top": _logprob_at(f"old_top/{k}", lambda c: c.top_old(k)[1]),
        "logprob_at_sampler_top": _logprob_at(f"sampler_top/{k}", lambda c: c.sampler_top(k)[1]),
        "sampler_logprob_at_top": Statistic(lambda c: c.sampler_top(k)[0]),
        "sampler_top": Statistic(lambda c: c.sampler_top(k)[1]),
        "old_logit_at_top": Statistic(lambda c: c.top_old(k)[0]),
        "old_top": Statistic(lambda c: c.top_old(k)[1]),
        "outside_top": Statistic(outside),
    }


STATISTICS: dict[str, Statistic] = {
    "logit": Statistic(lambda c: c.logit, _logit_backward),
    "logsumexp": Statistic(lambda c: c.lse, _logsumexp_backward),
    "logprob": Statistic(lambda c: c.logprob, _logprob_backward),
    "entropy": Statistic(lambda c: c.entropy, _entropy_backward),
    "sq_prob": Statistic(_sq_prob, _sq_prob_backward),
    "kl_old": Statistic(lambda c: c.kl_old, _kl_old_backward, whole_old=True),
    "kl_target": Statistic(_kl_target, _kl_target_backward, whole_old=True),
    "kl_from_target": Statistic(_kl_from_target, _kl_from_target_backward, whole_old=True),
    "sq_residual": Statistic(_sq_residual, _sq_residual_backward, whole_old=True),
    "var_residual": Statistic(_var_residual, _var_residual_backward, whole_old=True),
    "logcosh_residual": Statistic(_logcosh_residual, _logcosh_residual_backward, whole_old=True),
    "sq_logprob_residual": Statistic(_sq_logprob_residual, _sq_logprob_residual_backward, whole_old=True),
    "sq_gap_known": Statistic(_sq_gap_known, _sq_gap_known_backward, whole_old=True),
    "logcosh_gap_known": Statistic(_logcosh_gap_known, _logcosh_gap_known_backward, whole_old=True),
    "token": Statistic(lambda c: c.tokens),
    "old_logit": Statistic(lambda c: c.old_logit),
    "old_logsumexp": Statistic(lambda c: c.lse_old),
    "old_logprob": Statistic(lambda c: c.old_logprob),
    "old_rest": Statistic(_old_rest),
    "sampler_logprob": Statistic(lambda c: c.sampler_logprob),
    "tilt": Statistic(_tilt),
    "tilt_clamped": Statistic(_tilt_clamped),
    "target_kl": Statistic(_target_kl),
    "target_tv": Statistic(_target_tv),
    "step_slope": Statistic(lambda c: c.prediction.slope),
    "step_spread": Statistic(lambda c: c.prediction.spread),
}


@functools.cache
def statistic(name: str) -> Statistic:
    """By name; `name/k` for those that read the k likeliest tokens of π_old or of the sampler."""
    stem, slash, count = name.partition("/")
    return _at_top(int(count))[stem] if slash else STATISTICS[name]
