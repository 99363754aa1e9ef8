"""BAPO: clip bounds that move with every minibatch, until likely progress has its share (arXiv 2510.18927).

    L = −min(r A, clip(r, c_low, c_high) A)   per token, mean over all tokens,   A as GRPO's

with r = π_θ/π_old. Off-policy, tokens with A < 0 come to dominate the gradient. So before every update the bounds start at
(a⁻, a⁺) and are moved until the tokens with A > 0 have at least the share ρ₀ of

    P = Σ_{A>0} μ min(r, c_high) A        N = Σ_{A<0} μ max(r, c_low) |A|        μ = π_old(a)

(`share_measure=value`, eq. 8 as printed), or of P and N without the tokens that the clip has stopped (`gradient`). Algorithm 1
raises c_high by δ⁺ while it stays in its range, then c_low by δ⁻, and gives up where c_low's next step would leave its own.
It is exact here: r is sorted once, prefix sums give P and N for every bound of the path, over the whole minibatch and all ranks.

What is a reading. The bars of eq. 8 stand outside its sums, P/|P − N| (`abs_sum`), which is above 1 for P > N/2 and no share;
`sum_abs` = P/(P + N) is what the paper's words and figure say. Under `value` a token with A < 0 that is clipped still counts,
with weight c_low, so raising c_low moves the share away from ρ₀; what it lessens is the gradient. And μ counts π twice on
sampled tokens; `mu_weight=false` leaves it out. π_old is the trainer's own probability, the paper's is the sampler's.

`bapo_code` is what the authors release: P/N is tested, without μ, c_low first, each bound clamped onto the end of its range.
There raising c_low first never helps (see above), so it always runs to its end. The release searches in every micro-batch
anew; here it is the minibatch's, so that a gradient does not depend on how it is cut.

No token with A < 0 satisfies any share at the start; without one with A > 0 none is reached, and the bounds end at their
widest. Both are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lco.heads import TokenFunction
from lco.losses import ALIKE, clip_shares, clipped_surrogate, ratio
from lco.methods.grpo import DUAL_CLIP, GRPO, advantage, dual_clip_conflict
from lco.methods.method import Hyper, Hyperparameter, Method, Prepare, Preset
from lco.methods.objective import Needs, Prepared

TOLERANCE = 1e-9
"""Of shares and of the ends of ranges: .6 + 15 · .02 is .9 and a little more in floats."""
LONGEST_PATH = 100_000


class Masses(NamedTuple):
    """One sign's tokens sorted by ratio, with prefix sums; [n] and [n + 1], float64."""

    ratios: Tensor
    weighted: Tensor
    weights: Tensor

    @staticmethod
    def of(r: Tensor, weights: Tensor) -> Masses:
        order = r.argsort()
        start = r.new_zeros(1)
        sums = [torch.cat([start, x[order].cumsum(0)]) for x in (weights * r, weights)]
        return Masses(r[order], *sums)

    def up_to(self, bounds: Tensor, measure: str) -> Tensor:
        """Σ w min(r, c) for every c of `bounds` [k]; under `gradient` without the terms with r > c."""
        inside = torch.searchsorted(self.ratios, bounds, right=True)
        rest = bounds * (self.weights[-1] - self.weights[inside]) if measure == "value" else 0
        return self.weighted[inside] + rest

    def down_to(self, bounds: Tensor, measure: str) -> Tensor:
        """Σ w max(r, c) for every c of `bounds` [k]; under `gradient` without the terms with r < c."""
        outside = torch.searchsorted(self.ratios, bounds)
        rest = bounds * self.weights[outside] if measure == "value" else 0
        return self.weighted[-1] - self.weighted[outside] + rest


class Found(NamedTuple):
    """The bounds that a search chose, the positive share at its start and there, and how many steps it took."""

    low: float
    high: float
    start: float
    share: float
    steps: int


def bounds_on_the_way(start: float, end: float, step: float, clamped: bool) -> list[float]:
    """start, start + step, …, at most `end`; `clamped` adds the end itself where the steps do not meet it."""
    count = math.floor((end - start) / step + TOLERANCE)
    found = [start + i * step for i in range(count + 1)]
    return [*found, end] if clamped and found[-1] < end - TOLERANCE else found


def path(hyper: Hyper) -> tuple[Tensor, Tensor]:
    """(c_low, c_high) at every step of the search, [k] each: what is raised second starts when the first has arrived."""
    clamped = hyper["search"] == "low_first"
    low = bounds_on_the_way(hyper["low_start"], hyper["low_end"], hyper["low_step"], clamped)
    high = bounds_on_the_way(hyper["high_start"], hyper["high_end"], hyper["high_step"], clamped)
    if clamped:
        pairs = [(c, high[0]) for c in low] + [(low[-1], c) for c in high[1:]]
    elif len(low) > 1:
        pairs = [(low[0], c) for c in high] + [(c, high[-1]) for c in low[1:]]
    else:  # Algorithm 1 looks for room in the lower range alone
        pairs = [(low[0], high[0])]
    found = torch.tensor(pairs, dtype=torch.float64)
    return found[:, 0].contiguous(), found[:, 1].contiguous()


def shares(positive: Tensor, negative: Tensor, norm: str, negatives: bool) -> Tensor:
    """The measured share from P and N, [k]; where nothing is left of either it is satisfied unless a token is negative."""
    whole = {"sum_abs": positive + negative, "abs_sum": (positive - negative).abs(), "pos_neg": negative}[norm]
    nothing = torch.full_like(positive, 0.0 if negatives else 1.0)
    full = torch.where(positive > 0, torch.inf, nothing)
    return torch.where(whole > 0, positive / whole, full)


def search_bounds(r: Tensor, advantages: Tensor, mu: Tensor, hyper: Hyper) -> Found:
    """Algorithm 1 on a minibatch's tokens, [N] each: the first pair of bounds on the path that reaches the share, or the last."""
    r, weights = r.double(), (mu.double() if hyper["mu_weight"] else 1.0) * advantages.double().abs()
    up, down = advantages > 0, advantages < 0
    low, high = (bounds.to(r.device) for bounds in path(hyper))
    positive = Masses.of(r[up], weights[up]).up_to(high, hyper["share_measure"])
    negative = Masses.of(r[down], weights[down]).down_to(low, hyper["share_measure"])
    found = shares(positive, negative, hyper["share_norm"], bool(down.any()))
    reached = found >= hyper["target"] - TOLERANCE
    at = int(reached.int().argmax()) if bool(reached.any()) else len(found) - 1
    return Found(float(low[at]), float(high[at]), float(found[0]), float(found[at]), at)


def choose_bounds(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> Prepared:
    """The bounds of a minibatch, as constants of its tokens."""
    old, advantages = s["old_logprob"][mask], x["advantage"][mask]
    found = search_bounds(ratio(s["logprob"][mask], old), advantages, old.exp(), hyper)
    everywhere = mask.float()
    notes = {}
    if not bool((advantages > 0).any()):
        notes["minibatches_without_positive"] = (
            "no token of a minibatch has a positive advantage: no clip bounds give such tokens a share"
        )
    if not bool((advantages < 0).any()):
        notes["minibatches_without_negative"] = (
            "no token of a minibatch has a negative advantage: the clip bounds stay where they start"
        )
    numbers = {
        "share_at_start": found.start,
        "share_chosen": found.share,
        "clip_low_chosen": found.low,
        "clip_high_chosen": found.high,
        "search_steps": float(found.steps),
    }
    return Prepared({"clip_low": found.low * everywhere, "clip_high": found.high * everywhere}, numbers, notes)


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        return clipped_surrogate(r, x["advantage"], 1 - x["clip_low"], x["clip_high"] - 1, hyper["dual_clip"])

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    r = ratio(s["logprob"], s["old_logprob"])
    return clip_shares(r, x["advantage"], mask, 1 - x["clip_low"], x["clip_high"] - 1, hyper["dual_clip"])


def conflict(hyper: Hyper) -> str | None:
    for side in ("low", "high"):
        start, end, step = (hyper[f"{side}_{name}"] for name in ("start", "end", "step"))
        if end < start:
            return f"{side}_end is {end}, below {side}_start {start}; the bound moves upwards only"
        if (end - start) / step > LONGEST_PATH:
            return (
                f"{side}_step is {step}, more than {LONGEST_PATH} of which lie from {start} to {end}; give a larger one"
            )
    return dual_clip_conflict(hyper)


PAPER = "Balanced Policy Optimization with Adaptive Clipping (arXiv 2510.18927)"

BAPO = Method(
    name="bapo",
    page=__doc__,
    title="BAPO",
    paper=PAPER,
    summary="Moves the clip bounds at every update until tokens with positive advantage have their share of it.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    reductions=ALIKE,
    own_reduction="counts every token of a minibatch alike where it searches its bounds",
    hyperparameters={
        "low_start": Hyperparameter(0.6, "a⁻: where c_low starts at every update", "paper", least=0, most=1),
        "low_end": Hyperparameter(0.9, "b⁻: c_low goes no higher", "paper", least=0, most=1),
        "low_step": Hyperparameter(0.02, "δ⁻: step of c_low", "paper", above=0),
        "high_start": Hyperparameter(1.2, "a⁺: where c_high starts at every update", "paper", least=1),
        "high_end": Hyperparameter(3.0, "b⁺: c_high goes no higher", "paper", least=1),
        "high_step": Hyperparameter(0.05, "δ⁺: step of c_high", "paper", above=0),
        "target": Hyperparameter(
            0.4, "ρ₀: what the share of tokens with A > 0 has to reach (0: bounds stay)", "paper", least=0
        ),
        "share_norm": Hyperparameter(
            "sum_abs", "P/(P + N), P/|P − N| as eq. 8 is printed, or P/N", "a reading of eq. 8",
            ("sum_abs", "abs_sum", "pos_neg"),
        ),
        "share_measure": Hyperparameter(
            "gradient", "whether a clipped token counts with its clipped value or not at all",
            "a reading; eq. 8 has the value", ("value", "gradient"),
        ),
        "mu_weight": Hyperparameter(True, "whether the share weighs a token by π_old(a)", "paper, eq. 8"),
        "search": Hyperparameter(
            "high_first", "which bound is raised first; the second way clamps each onto the end of its range",
            "paper, Algorithm 1", ("high_first", "low_first"),
        ),
        "dual_clip": DUAL_CLIP,
        "ddof": GRPO.hyperparameters["ddof"],
        "epsilon_std": GRPO.hyperparameters["epsilon_std"],
    },
    paper_preset=Preset(
        settings={"lr": 2e-6, "temperature": 0.6, "max_new_tokens": 8192},
        source="paper §5, R1-Distill-Qwen-7B on SkyWork-OR1-RL; sizes of groups and batches are not stated",
    ),
    needs=lambda hyper: Needs(group=True),
    prepare=Prepare(("logprob", "old_logprob"), choose_bounds),
    conflict=conflict,
    metrics=metrics,
    certainty="objective and Algorithm 1 certain; the share of eq. 8 and what a clipped token counts in it are readings",
)  # fmt: skip

BAPO_CODE = BAPO.variant(
    name="bapo_code",
    title="BAPO, released code",
    summary="BAPO with the share, the order and the ranges that its authors release.",
    hyper={
        "low_start": 0.8, "low_end": 0.95, "low_step": 0.05, "high_start": 1.2, "high_end": 2.0, "high_step": 0.1,
        "target": 0.5, "share_norm": "pos_neg", "share_measure": "value", "mu_weight": False, "search": "low_first",
        "dual_clip": 3.0,
    },
    released_preset=Preset(
        settings={
            "lr": 1e-6, "prompts_per_step": 256, "samples": 16, "minibatches": 4, "epochs": 2, "steps": 1000,
            "weight_decay": 0.1, "max_prompt_tokens": 1024, "max_new_tokens": 8192, "temperature": 1.0,
        },
        source="the example script, without its warm-up over a tenth of the run",
    ),
    certainty="read in the released code, whose search is of every micro-batch; here of the minibatch",
)  # fmt: skip
