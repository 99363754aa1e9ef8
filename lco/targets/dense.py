"""Dense estimators: every token of the vocabulary gets one, from policies that do not learn (arXiv 2603.00963).

    log-probability       A(s, v) = log π_ver(v|s)                           π* ∝ π_old π_ver^{1/β}
    preference ratio      A(s, v) = β_dpo (log π_dpo(v|s) − log π_ref(v|s))  π* ∝ π_old (π_dpo/π_ref)^{β_dpo/β}

A verifier language model scores every next token; or a DPO model and its reference do, by DPO's reading as a soft
Q-function (Rafailov et al. 2024, From r to Q*). The fixed policies are kept as hidden states and heads, and their
[C, V] log-probabilities live as long as a chunk. With π_old = π_ref and β = β_dpo the second target is π_dpo itself.

`dense_top` = k reproduces the released code's restriction: for the log-probability only the verifier's k likeliest tokens carry
an advantage, for the ratio all but the policy's k likeliest are excluded from the target. `dense_scale` = "top_std" divides by
the standard deviation over those k tokens, as the released code does in place of β_dpo. Dense tilts are neither clamped
nor scaled by sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lco.heads.chunk import Chunk

EXCLUDED = -100.0
"""The released code's advantage of a token that the target shall not contain."""

AGREEMENT = -0.02
"""Where π_old and the verifier both give the sampled token a log-probability above this, they agree on it."""


def divided_by_std(values: Tensor) -> Tensor:
    """[C, k] → [C, k], each row divided by its standard deviation (ddof 1); a row without spread becomes 0."""
    spread = values.std(1, keepdim=True)
    return torch.where(spread > 0, values / spread.clamp(min=1e-12), 0.0)


@dataclass(frozen=True)
class LogProbabilityTilt:
    """c(v) = log π_ver(v) / β.

    Attributes:
        beta: KL weight of the RL objective.
        dense_top: 0, or only the verifier's so many likeliest tokens carry an advantage.
        dense_scale: "none" or "top_std".
        agreement_scale: β is multiplied by this where policy and verifier agree on the sampled token.
        centre_top: those values minus their mean (the released code's MSE and LCH; its KLD does not).
    """

    beta: float
    dense_top: int = 0
    dense_scale: str = "none"
    agreement_scale: float = 1.0
    centre_top: bool = False
    dense = True
    tilt_bound = math.inf
    fixed = ("verifier",)

    def tilt(self, chunk: Chunk) -> Tensor:
        c = chunk.fixed_logprobs("verifier")
        agreed = (chunk.at_token(c) > AGREEMENT) & (chunk.old_logprob > AGREEMENT)
        if self.dense_top:
            values, indices = c.topk(self.dense_top, 1)
            if self.centre_top:
                values = values - values.mean(1, keepdim=True)
            if self.dense_scale == "top_std":
                values = divided_by_std(values)
            c = c.zero_().scatter_(1, indices, values)
        beta = torch.where(agreed, self.beta * self.agreement_scale, self.beta)
        return c.div_(beta[:, None])


@dataclass(frozen=True)
class PreferenceRatioTilt:
    """c(v) = β_dpo (log π_dpo(v) − log π_ref(v)) / β.

    Attributes:
        beta: KL weight of the RL objective.
        beta_dpo: the β that the DPO model was trained with.
        dense_top: 0, or the target contains only the policy's so many likeliest tokens.
        dense_scale: "none" or "top_std"; the latter takes the place of beta_dpo.
    """

    beta: float
    beta_dpo: float = 0.1
    dense_top: int = 0
    dense_scale: str = "none"
    dense = True
    tilt_bound = math.inf
    fixed = ("dpo", "reference")

    def tilt(self, chunk: Chunk) -> Tensor:
        ratio = chunk.fixed_logprobs("dpo").sub_(chunk.fixed_logprobs("reference"))
        if not self.dense_top:
            return ratio.mul_((1.0 if self.dense_scale == "top_std" else self.beta_dpo) / self.beta)
        indices = chunk.top_old(self.dense_top)[1]
        values = ratio.gather(1, indices)
        values = divided_by_std(values) if self.dense_scale == "top_std" else values * self.beta_dpo
        return ratio.fill_(EXCLUDED / self.beta).scatter_(1, indices, values / self.beta)
