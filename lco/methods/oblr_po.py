"""OBLR-PO: a baseline weighted by gradients, and a learning rate that follows their noise (arXiv 2511.23310).

A reconstruction: the abstract names the idea, and the body was not available, so every formula here is the classical one.

    L = −A_i Σ_t ℓ   per row, mean over rows,   A_i = R_i − Σ_{j≠i} n_j R_j / Σ_{j≠i} n_j,   n_j = ‖∇ log π(y_j)‖²

b* = E[n R] / E[n] is the baseline with the least variance of the gradient, and without the row itself it stays unbiased. With
all n equal it is RLOO's. `norm_proxy` says what n is: the row's `length`; `logit`, Σ_t ‖e_a − π‖² = Σ_t (1 − 2π(a) + Σ π²);
`head`, ‖Σ_t (e_a − π) hᵀ‖², the gradient of the last layer, exact; `exact`, that of all parameters, one backward pass a row.

The learning rate is multiplied by SNR/(1 + SNR), the minimiser of the descent lemma's bound, with SNR = ‖g‖²/tr Var(ĝ), from the
norms of an update's micro-batches (`lco.training.noise`), both numbers averaged over updates. The averages are those of the
updates before, so the factor does not depend on the gradient that it scales. It is at least `rate_floor`: no signal, as where all
rewards are equal, is no step of size 0. An update of a single micro-batch has no noise to estimate; the factor is then 1.
Under DeepSpeed neither it nor `exact` is offered.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import leave_one_out, weighted_leave_one_out
from lco.losses import ALIKE
from lco.methods.method import Hyper, Hyperparameter, Method, When
from lco.methods.objective import Needs, RateRule, Signal
from lco.methods.reinforce import loss


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    norms = signal.mask.sum(1).double() if hyper["norm_proxy"] == "length" else signal.row_norms
    assert norms is not None
    found = weighted_leave_one_out(signal.rewards, signal.groups, norms)
    plain = leave_one_out(signal.rewards, signal.groups)
    return {
        "advantage": found[:, None] * signal.mask,
        "plain_advantage": plain[:, None] * signal.mask,
        "row_norm": norms.float()[:, None] * signal.mask,
    }


def rate(hyper: Hyper) -> RateRule | None:
    if not hyper["adaptive_rate"]:
        return None

    def factor(signal: float, noise: float) -> float:
        share = signal / (signal + noise) if signal + noise > 0 else 0.0
        return max(hyper["rate_floor"], share)

    return RateRule(hyper["rate_decay"], factor)


def needs(hyper: Hyper) -> Needs:
    proxy = hyper["norm_proxy"]
    return Needs(
        group=True, row_norms="" if proxy == "length" else proxy, on_ranks="norm_proxy=head adaptive_rate=false"
    )


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    """Σ n A² over its value with the plain leave-one-out mean: what the weights make of the gradient's second moment."""
    rows = mask.any(1)
    n, weighted, plain = (x[name][rows, 0].double() for name in ("row_norm", "advantage", "plain_advantage"))
    before = float((n * plain.square()).sum())
    return {"second_moment_ratio": float((n * weighted.square()).sum()) / before} if before > 0 else {}


ADAPTIVE = (When("adaptive_rate", (True,)),)

OBLR_PO = Method(
    name="oblr_po",
    page=__doc__,
    title="OBLR-PO (reconstruction)",
    paper="OBLR-PO (arXiv 2511.23310)",
    summary="REINFORCE with the baseline of least variance and a learning rate from the gradient's signal-to-noise ratio.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="seq_mean_token_sum",
    reductions=ALIKE,
    own_reduction="has the baseline of least variance for rows whose tokens are added up",
    hyperparameters={
        "norm_proxy": Hyperparameter(
            "logit", "what stands for ‖∇ log π(y)‖² of a row", "suite", ("length", "logit", "head", "exact")
        ),
        "adaptive_rate": Hyperparameter(True, "whether the learning rate follows the gradient's noise", "the abstract"),
        "rate_floor": Hyperparameter(
            0.1, "least factor on the learning rate", "suite", when=ADAPTIVE, above=0, most=1
        ),
        "rate_decay": Hyperparameter(
            0.9, "of the moving averages of signal and noise", "suite", when=ADAPTIVE, least=0, most=1
        ),
    },
    needs=needs,
    rate=rate,
    metrics=metrics,
    certainty="reconstruction: the idea from the abstract, every formula the classical one",
)  # fmt: skip
