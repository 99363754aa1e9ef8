"""SAGE: DPO on pairs that are chosen for the signal and against the noise of their updates (arXiv 2602.01207).

    L = −log σ(m)   per pair, as DPO's, on the chosen ones,   m = β [(Σℓ_w − Σℓ_w,ref) − (Σℓ_l − Σℓ_l,ref)]

Every `refresh_every` rollouts the pairs of the coming ones are scored under the current policy. With p = σ(m) a pair's gradient
has the weight g = 1 − p and its loss the curvature κ = p (1 − p); g²/κ = e^{−m} is the square of Newton's decrement: large for
pairs that the policy gets wrong for sure, 1 at the boundary, near 0 for those that it has learnt.

    1  pool       bins of difficulty (the problem's share of right answers) in which the policy prefers the right answer
                  (m > 0) in a share between `least_competence` and `most_competence`; widened by 0.1 while none is
    2  stability  out: |m| below the boundary; the lowest `noise_share` of margins, which are likely noise; pairs whose margin
                  has changed its sign since the refresh before
    3  score      g² / (κ + κ₀), decreasing in m; the best `fraction` of what is left

The boundary is τ standard deviations of the pool's margins, or, as a bound on the curvature, |m| ≥ 2 artanh √(1 − 4 κ_max). The
first `refresh_every` rollouts are learnt from whole: at the start the policy is its reference and every m is 0. Without bins and
filters and with fraction 1 it is DPO on the same batches. The mechanism is the abstract's; formulas and thresholds are a
reconstruction, since neither the paper's text nor code was available.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lco.methods import dpo
from lco.methods.method import Hyper, Hyperparameter, Method, When
from lco.methods.objective import Candidates, Choice, Needs, Refresh

WIDER = 0.1
"""By so much the range of competence grows at both ends while no bin lies in it."""


def margins(gain: Tensor, beta: float) -> Tensor:
    """m, [P], from gains [P, 2]."""
    return beta * (gain[:, 0] - gain[:, 1])


def score(m: Tensor, floor: float) -> Tensor:
    """g² / (κ + κ₀), any shape; from 1/κ₀ at m → −∞ down to 0."""
    return torch.sigmoid(-m).square() / (torch.sigmoid(m) * torch.sigmoid(-m) + floor)


def boundary_of_curvature(most: float) -> float:
    """The |m| at which p (1 − p) is `most`, at most ¼."""
    return 2 * math.atanh(math.sqrt(max(0.0, 1 - 4 * most)))


def bins_of(success: Tensor, count: int) -> Tensor:
    """[P] the bin of every pair's problem: `count` equal parts of [0, 1] by its share of right answers."""
    return (success * count).long().clamp(max=count - 1)


def in_reach(m: Tensor, success: Tensor, hyper: Hyper) -> tuple[Tensor, int]:
    """([P] bool, by how many steps the range had to be widened): the pairs whose bin's competence is in the range."""
    if not hyper["bins"]:
        return torch.ones_like(m, dtype=torch.bool), 0
    bins = bins_of(success, hyper["bins"])
    competence = torch.zeros_like(m)
    for number in bins.unique():
        competence[bins == number] = (m[bins == number] > 0).float().mean()
    for wider in range(11):
        low, high = hyper["least_competence"] - WIDER * wider, hyper["most_competence"] + WIDER * wider
        found = (competence >= low - 1e-6) & (competence <= high + 1e-6)
        if bool(found.any()):
            return found, wider
    return torch.ones_like(m, dtype=torch.bool), 11


def unstable(m: Tensor, earlier: Tensor | None, hyper: Hyper) -> dict[str, Tensor]:
    """{rule: [P] bool, the pairs that it leaves out}."""
    if hyper["boundary_by"] == "curvature":
        near = m.abs() < boundary_of_curvature(hyper["most_curvature"])
    else:
        near = m.abs() < hyper["boundary"] * m.std(correction=0)
    # At τ = 0 no margin is near; where all are alike, 0 among them, all are.
    if hyper["boundary_by"] == "std" and hyper["boundary"] and not bool(m.any()):
        near = torch.ones_like(near)
    noise = (m < m.quantile(hyper["noise_share"]).clamp(max=0)) & (hyper["noise_share"] > 0)
    changed = torch.zeros_like(near) if earlier is None else m * earlier < 0
    return {"at_boundary": near, "noise": noise, "changed_sign": changed & hyper["drop_changed"]}


def choose(candidates: Candidates, hyper: Hyper) -> Choice:
    m = margins(candidates.gain, hyper["beta"])
    earlier = None if candidates.earlier is None else margins(candidates.earlier, hyper["beta"])
    pool, widened = in_reach(m, candidates.success, hyper)
    rules, notes = unstable(m, earlier, hyper), list[str]()
    stable = pool & ~torch.stack(list(rules.values())).any(0)
    unfiltered = not bool(stable.any())
    if widened:
        notes.append(f"no bin's competence lay in the range, which was widened by {WIDER * widened:.1f} at both ends")
    if unfiltered:
        stable = pool
        at_boundary = int((pool & rules["at_boundary"]).sum())
        notes.append(f"none of {int(pool.sum())} pairs is stable ({at_boundary} at the boundary), so all of them count")
    count = math.ceil(hyper["fraction"] * int(stable.sum()) - 1e-9)
    order = m.masked_fill(~stable, math.inf).argsort(stable=True)  # the score is decreasing in m
    chosen = torch.zeros_like(stable)
    chosen[order[:count]] = True
    scores = score(m, hyper["score_floor"])
    low, middle, high = scores.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    metrics = {
        "pool_competence": float((m > 0).float().mean()),
        "pool_out_of_reach": int((~pool).sum()),
        "pool_widened": widened,
        "pool_unfiltered": int(unfiltered),
        **{f"pool_{rule}": int((pool & left_out).sum()) for rule, left_out in rules.items()},
        **{"pool_score_10": low, "pool_score_50": middle, "pool_score_90": high},
    }
    return Choice(chosen, metrics, tuple(notes))


def refresh(hyper: Hyper) -> Refresh:
    return Refresh(hyper["refresh_every"], hyper["drop_changed"], lambda candidates: choose(candidates, hyper))


def conflict(hyper: Hyper) -> str | None:
    if hyper["least_competence"] > hyper["most_competence"]:
        low, high = hyper["least_competence"], hyper["most_competence"]
        return f"least_competence is {low}, above most_competence {high}: no bin lies between"
    return None


BY_STD, BY_CURVATURE, IN_BINS = (
    (When("boundary_by", ("std",)),),
    (When("boundary_by", ("curvature",)),),
    (When("bins"),),
)
RECONSTRUCTED = "reconstruction"

HYPERPARAMETERS: Mapping[str, Hyperparameter] = {
    "beta": dpo.DPO.hyperparameters["beta"],
    "refresh_every": Hyperparameter(
        6, "rollouts of one pool", "reconstruction: 50 updates, here eight a rollout", least=1
    ),
    "bins": Hyperparameter(4, "bins of difficulty (0: none)", RECONSTRUCTED, least=0),
    "least_competence": Hyperparameter(0.2, "lowest competence of a bin", RECONSTRUCTED, when=IN_BINS, least=0, most=1),
    "most_competence": Hyperparameter(0.8, "highest competence of a bin", RECONSTRUCTED, when=IN_BINS, least=0, most=1),
    "boundary_by": Hyperparameter("std", "what the boundary is measured in", RECONSTRUCTED, ("std", "curvature")),
    "boundary": Hyperparameter(
        0.1, "τ: margins below so many standard deviations are at the boundary (0: none)", RECONSTRUCTED, when=BY_STD, least=0
    ),
    "most_curvature": Hyperparameter(
        0.24, "κ_max: pairs of a larger p (1 − p) are at the boundary", RECONSTRUCTED, when=BY_CURVATURE, above=0, most=0.25
    ),
    "noise_share": Hyperparameter(
        0.05, "the lowest margins, where below 0, taken for noise (0: none)", RECONSTRUCTED, least=0, most=0.5
    ),
    "drop_changed": Hyperparameter(True, "leave out pairs whose margin changed its sign between refreshes", RECONSTRUCTED),
    "score_floor": Hyperparameter(0.05, "κ₀ of the score", RECONSTRUCTED, above=0),
    "fraction": Hyperparameter(0.5, "share of the stable pairs that is learnt from", RECONSTRUCTED, above=0, most=1),
}  # fmt: skip

SAGE = Method(
    name="sage",
    page=__doc__,
    title="SAGE (reconstruction)",
    family="preference",
    paper="Not All Preferences Are Created Equal (arXiv 2602.01207)",
    summary="DPO on the pairs of a pool that is chosen by competence and by the signal-to-noise ratio of their updates.",
    advantage=dpo.advantage,
    loss=dpo.loss,
    statistics=lambda hyper: ("logprob",),
    reduction="pair_mean",
    reductions=(),
    own_reduction="is a loss of pairs of answers, whose mean is part of it",
    hyperparameters=HYPERPARAMETERS,
    scope="pair",
    source="pairs",
    needs=lambda hyper: Needs(group=True, reference=True),
    refresh=refresh,
    conflict=conflict,
    metrics=dpo.metrics,
    certainty="reconstruction",
)
