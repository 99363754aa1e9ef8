"""The laboratory's claims as a table, each with what would support it, what would refute it, and its test."""

from __future__ import annotations

from lco.lab import findings, inner_findings
from lco.lab.bandit import TOP
from lco.lab.laboratory import Laboratory
from lco.lab.position import BETA
from lco.lab.verdict import Claim, Finding

PAPER = "arXiv 2603.00963, from its abstract and summaries"
SUITE = "this suite"

CLAIMS = (
    Claim(
        "convexity", "Cross-entropy on demonstrations is convex in the logits.", PAPER,
        "no negative eigenvalue of the Hessian and no broken midpoint, at any position",
        "one negative eigenvalue or one broken midpoint", findings.demonstrations_are_convex,
    ),
    Claim(
        "convexity", "The paper's three losses, LCO-KLD, LCO-MSE and LCO-LCH, are convex in the logits.", PAPER,
        "no negative eigenvalue of the Hessian and no broken midpoint, for any of the three and either sign of A",
        "one negative eigenvalue or one broken midpoint", findings.lco_is_convex,
    ),
    Claim(
        "convexity", "PPO's clipped surrogate is not convex in the logits.", PAPER,
        "negative eigenvalues or broken midpoints, for either sign of A", "a sign of A for which there are none",
        findings.the_surrogate_is_not_convex,
    ),
    Claim(
        "convexity", "A loss without target or clip is convex for A > 0 and concave for A < 0.", SUITE,
        "no negative eigenvalue where A > 0, no positive one where A < 0", "one loss of that kind with another shape",
        findings.open_losses_follow_the_sign,
    ),
    Claim(
        "convexity", "The surrogate −A r is indefinite where π(a) < ½; elsewhere convex for A > 0, concave for A < 0.", SUITE,
        "that shape at every position where the Hessian is the surrogate's", "another shape at one of them",
        findings.the_surrogates_sign_rule,
    ),
    Claim(
        "convexity", "Every Hessian is one of the closed forms derived from the losses' equations.", SUITE,
        "every measured Hessian agreeing with a form in each entry", "a Hessian that no form explains",
        findings.every_hessian_has_a_form,
    ),
    Claim(
        "ray", "On the ray, LCO's gradient points at the optimal policy from both sides and vanishes only there.", PAPER,
        "a positive cosine with the way at every point, and a stop at s = 1, on every ray of the three losses",
        "a cosine of 0 or less, or a stop elsewhere", findings.lco_points_at_the_optimum,
    ),
    Claim(
        "ray", "At random positions too, LCO's gradient has a positive cosine with the way to the optimal policy.", PAPER,
        "a positive cosine at every position, for each of the three losses", "one position with another",
        findings.lco_points_there_from_anywhere,
    ),
    Claim(
        "ray", "The clipped surrogate's gradient does not point along the way to the optimal policy.", PAPER,
        "no positive cosine before the optimum on PPO's rays", "a positive one on a ray", findings.the_surrogate_points_elsewhere,
    ),
    Claim(
        "ray", "The norm of LCO's gradient shrinks on the way to the optimal policy.", PAPER,
        "a norm that never grows between s = 0 and s = 1, on every ray of the three losses", "one ray on which it grows",
        findings.lcos_gradient_shrinks,
    ),
    Claim(
        "ray", "A clipped surrogate stops where the ratio leaves its interval, short of the optimum or past it.", SUITE,
        "one ratio at all stops of a loss and a sign, wherever π_old and A/β put the optimum", "stops at unequal ratios",
        findings.a_clip_stops_at_its_ratio,
    ),
    Claim(
        "ray", "Where p (1 + ε) > 1 the upper clip can never stop the surrogate.", SUITE,
        "no stop up to s = 2 on such rays", "a stop on one of them", findings.likely_tokens_have_no_upper_clip,
    ),
    Claim(
        "ray", "A loss without target or clip pushes on past the optimum.", SUITE,
        "no stop up to s = 2 and a push away from the optimum behind it", "a stop, or a push back", findings.open_losses_push_on,
    ),
    Claim(
        "ray", "At the old policy every loss points the right way: they differ after the first update only.", SUITE,
        "a positive cosine with the way before the optimum, for every loss on every ray", "a cosine of 0 or less, or no gradient",
        findings.all_point_right_at_the_start,
    ),
    Claim(
        "bandit", "Without clip or target, further inner steps run past the optimum and never rest.", SUITE,
        "progress beyond 1 and a gradient at the last step, for every such loss", "one that rests, or stays before the optimum",
        inner_findings.open_losses_run_past,
    ),
    Claim(
        "bandit", "With advantages on the sampled arms alone, LCO comes to rest at π*.", SUITE,
        "KL(π* ‖ π) below 10⁻⁴ at the end, for each of the three losses", "a rest elsewhere",
        inner_findings.lco_rests_at_the_optimum,
    ),
    Claim(
        "bandit", "A clipped surrogate rests on a plateau that is not the optimum.", SUITE,
        "a gradient of exactly 0 at KL(π* ‖ π) above 10⁻³", "a gradient that remains, or a rest at the optimum",
        inner_findings.clipped_rests_on_a_plateau,
    ),
    Claim(
        "bandit", f"At β = {BETA:g} the paper's three losses rest nearer to π* than every clipped surrogate.", SUITE,
        "each of the three ending below the smallest KL(π* ‖ π) of a clipped surrogate", "one of the three that does not",
        inner_findings.lco_rests_nearer_than_clipped,
    ),
    Claim(
        "bandit", "On rewards that are all negative, losses without target or clip diverge and LCO converges.", SUITE,
        "logits that go half as far again in the second half of the steps, against a gradient below 10⁻⁴ of the three",
        "one of the former that slows down, or one of the latter that does not rest", inner_findings.negatives_part_the_ways,
    ),
    Claim(
        "bandit", "While the target moves along with the policy, no LCO loss comes to rest; ‖z‖ grows linearly for some.", SUITE,
        "logits of all three that still grow in the second half of the steps, of one by as much again", "one that comes to rest",
        inner_findings.a_moving_target_never_rests,
    ),
    Claim(
        "bandit", f"A target cut to the old policy's top {TOP} collapses the entropy even at A = 0.", SUITE,
        "less than half of the entropy after four rounds", "half of it or more", inner_findings.a_cut_target_collapses,
    ),
    Claim(
        "negative only", "From one negative token LCO comes to rest at the target probability.", SUITE,
        "the target's probability within 10⁻⁴, for each of the three losses", "another probability",
        inner_findings.lco_rests_at_the_targets_probability,
    ),
    Claim(
        "negative only", "A loss without target or clip never rests on it: the logits run away.", SUITE,
        "a gradient at the last step, and logits that go half as far again in the second half", "one that slows down",
        inner_findings.open_losses_run_away,
    ),
    Claim(
        "negative only", "A clipped surrogate rests on its plateau, not at the target probability.", SUITE,
        "a gradient of exactly 0 at another probability than the target's", "a gradient that remains, or a rest at the target",
        inner_findings.clipped_rests_off_the_target,
    ),
)  # fmt: skip


def judged(found: Laboratory) -> list[tuple[Claim, Finding]]:
    """Every claim with what the measurements show of it."""
    return [(claim, claim.test(found)) for claim in CLAIMS]


def plain(found: Laboratory) -> list[dict[str, object]]:
    """The same as plain JSON."""
    return [
        {
            "experiment": claim.experiment, "claim": claim.words, "said": claim.said, "supports": claim.supports,
            "refutes": claim.refutes, "supported": finding.supported, "number": finding.number, "cases": list(finding.cases),
            "apart": list(finding.apart),
        } for claim, finding in judged(found)
    ]  # fmt: skip
