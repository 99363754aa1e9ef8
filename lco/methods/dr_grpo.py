"""Dr. GRPO: GRPO without its two biases (arXiv 2503.20783).

    L = −min(r A, clip(r, 1 − ε, 1 + ε) A)   per token, Σ_t / L_max, mean over rows,   A = R − mean of the group

GRPO divides by a row's own length, so that a wrong answer is punished less per token the longer it gets, and by the group's
standard deviation, so that very easy and very hard problems weigh more. Here the divisor is the configured longest response,
a constant, and A is only centred: on the first update the gradient is RLOO's times (G − 1)/(G L_max).
"""

from __future__ import annotations

from torch import Tensor

from lco.advantages import centred
from lco.methods.grpo import BETA, CLIP, DUAL_CLIP, dual_clip_conflict, loss, metrics, needs, with_reference
from lco.methods.method import Hyper, Method, Preset
from lco.methods.objective import Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return with_reference(signal, {"advantage": centred(signal.rewards, signal.groups)[:, None] * signal.mask})


DR_GRPO = Method(
    name="dr_grpo",
    page=__doc__,
    title="Dr. GRPO",
    paper="Understanding R1-Zero-Like Training (arXiv 2503.20783)",
    summary="GRPO without division by length and by standard deviation.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_sum_const",
    hyperparameters={"clip": CLIP, "dual_clip": DUAL_CLIP, "beta": BETA},
    paper_preset=Preset(
        settings={"lr": 1e-6, "samples": 8, "max_new_tokens": 3000, "temperature": 1.0},
        source="TRL's paper index; learning rate and temperature from memory of the field",
    ),
    needs=needs,
    conflict=dual_clip_conflict,
    metrics=metrics,
    certainty="certain",
)
