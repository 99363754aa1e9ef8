"""What Hessians and gradients at single positions show of each claim: functions of a `Laboratory`, named by `claims.CLAIMS`.

The paper's claims are about its three losses as the suite reads them, LCO-KLD, LCO-MSE and LCO-LCH at their defaults, and
about PPO. What the suite adds, other readings and other methods, is measured alike and told apart. The suite's own claims
are about all losses of a kind, which is found by asking the loss (`position.Subject`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lco.lab.convexity import FLAT, Curvature
from lco.lab.laboratory import Laboratory
from lco.lab.ray import Alignment, Ray
from lco.lab.verdict import Finding, besides, counted, finding, named, of_kind, signed

PAPER = ("lco_kld", "lco_mse", "lco_lch")
RIVAL = ("ppo",)


# Convexity in the logits.


def bent(c: Curvature) -> str:
    return (
        f"{signed(c.label, c.sign)}: smallest eigenvalue {eigenvalue(c.smallest)}, largest {eigenvalue(c.largest)}, "
        f"midpoint broken on {c.violations} of {c.segments} segments"
    )


def extremes(chosen: Sequence[Curvature]) -> str:
    if not chosen:
        return ""
    broken, segments = sum(c.violations for c in chosen), sum(c.segments for c in chosen)
    smallest = eigenvalue(min(c.smallest for c in chosen))
    return f"smallest eigenvalue {smallest}, midpoint broken on {broken} of {segments} segments"


def eigenvalue(value: float) -> str:
    """Zero within what central differences leave."""
    return f"0 within {FLAT:g}" if abs(value) < FLAT else f"{value:.2g}"


def demonstrations_are_convex(found: Laboratory) -> Finding:
    chosen = [c for c in found.curvatures if c.demonstrated]
    return finding(chosen, lambda c: c.convex, extremes(chosen), bent)


def lco_is_convex(found: Laboratory) -> Finding:
    chosen = named(found.methods, PAPER, found.curvatures)
    apart = besides(found.curvatures, chosen, "target", "other target")
    return finding(chosen, lambda c: c.convex, extremes(chosen), bent, apart)


def the_surrogate_is_not_convex(found: Laboratory) -> Finding:
    chosen = named(found.methods, RIVAL, found.curvatures)
    return finding(chosen, lambda c: not c.convex, extremes(chosen), bent, besides(found.curvatures, chosen, "clipped"))


def open_losses_follow_the_sign(found: Laboratory) -> Finding:
    chosen = of_kind(found.curvatures, "open")

    def holds(c: Curvature) -> bool:
        return c.convex if c.sign > 0 else c.largest < FLAT

    return finding(chosen, holds, counted(chosen, holds, "cases of a loss and a sign"), bent)


def the_surrogates_sign_rule(found: Laboratory) -> Finding:
    chosen = [c for c in found.curvatures if c.sign_rule is not None]
    lowest = min((c.sign_rule or 0 for c in chosen), default=0)
    return finding(
        chosen, lambda c: c.sign_rule == 1, f"{lowest:.0%} of the positions, lowest of the losses",
        lambda c: f"{signed(c.label, c.sign)}: {c.sign_rule:.0%} of the positions",
    )  # fmt: skip


def every_hessian_has_a_form(found: Laboratory) -> Finding:
    error = max((c.error for c in found.curvatures), default=0.0)
    number = counted(found.curvatures, has_form, "cases") + f"; these differ from their forms by {error:.1g} at most"
    return finding(
        found.curvatures, has_form, number, lambda c: f"{signed(c.label, c.sign)}: {' or '.join(c.forms)}",
    )  # fmt: skip


def has_form(c: Curvature) -> bool:
    return "another" not in c.forms


# Where gradients point.


def told(r: Ray) -> str:
    return f"{r.label}, p = {r.probability:g}, c = {r.tilt:+g}: {r.outcome}"


def pointed(a: Alignment) -> str:
    return f"{signed(a.label, a.sign)}: {a.positive:.1%} positive, {a.vanishing:.0%} vanish, median cosine {a.quartiles[1]:.2f}"


def straight(r: Ray) -> float:
    """The smallest cosine with the way to the optimal policy, before it and behind it."""
    return min(r.ahead or 0, r.behind[1] if r.behind else 0)


def lco_points_at_the_optimum(found: Laboratory) -> Finding:
    chosen = named(found.methods, PAPER, found.rays)
    cosine = min(map(straight, chosen), default=math.nan)
    return finding(
        chosen, lambda r: straight(r) > 0 and r.outcome == "stops exactly",
        f"smallest cosine {cosine:.3f} on {len(chosen)} rays", lambda r: f"{told(r)}, smallest cosine {straight(r):.3f}",
        besides(found.rays, chosen, "target"),
    )  # fmt: skip


def lco_points_there_from_anywhere(found: Laboratory) -> Finding:
    chosen = named(found.methods, PAPER, found.alignments)
    lowest = min((a.positive for a in chosen), default=0.0)
    return finding(
        chosen, lambda a: a.positive == 1, f"positive at {lowest:.1%} of the positions, lowest of the losses", pointed,
        besides(found.alignments, chosen, "target", "other target"),
    )  # fmt: skip


def the_surrogate_points_elsewhere(found: Laboratory) -> Finding:
    chosen = named(found.methods, RIVAL, found.rays)
    ahead = min((r.ahead or 0 for r in chosen), default=math.nan)
    anywhere = named(found.methods, RIVAL, found.alignments)
    shown = finding(
        chosen, lambda r: (r.ahead or 0) <= 0,
        f"where there is a gradient before the optimum, its cosine with the way is at least {ahead:.3f}", told,
    )  # fmt: skip
    others = besides(found.alignments, anywhere, "clipped")
    return Finding(shown.supported, shown.number, tuple(map(pointed, anywhere)), tuple(map(pointed, others)))


def lcos_gradient_shrinks(found: Laboratory) -> Finding:
    chosen, rest = named(found.methods, PAPER, found.rays), of_kind(found.rays, "open")
    number = f"{counted(chosen, shrinks, 'rays')}; of losses without target or clip {counted(rest, shrinks, 'rays')}"
    return finding(chosen, shrinks, number, told, besides(found.rays, chosen, "target"))


def shrinks(r: Ray) -> bool:
    return r.shrinks


def a_clip_stops_at_its_ratio(found: Laboratory) -> Finding:
    clipped = of_kind(found.rays, "clipped")
    ratios = stops(clipped)
    uneven = {key for key, seen in ratios.items() if max(seen) - min(seen) > 0.01}
    short = [r for r in clipped if r.stop is not None and r.stop < 1]
    lines = [
        f"{signed(label, up - 0.5)}: ratio {min(seen):.2f} to {max(seen):.2f}" for (label, up), seen in ratios.items()
    ]
    number = f"one ratio for {len(ratios) - len(uneven)} of {len(ratios)} losses and signs; short of the optimum on "
    return Finding(
        bool(ratios) and not uneven, f"{number}{len(short)} of {len(clipped)} rays, else past it", tuple(lines)
    )


def stops(clipped: Iterable[Ray]) -> dict[tuple[str, bool], list[float]]:
    """The ratios at which each loss stopped, by the sign of the tilt: one number if its clip is one of ratios."""
    found: dict[tuple[str, bool], list[float]] = {}
    for r in clipped:
        if r.ratio is not None:
            found.setdefault((r.label, r.tilt > 0), []).append(r.ratio)
    return found


def likely_tokens_have_no_upper_clip(found: Laboratory) -> Finding:
    clipped = of_kind(found.rays, "clipped")
    ratios = stops(clipped)
    chosen = [r for r in clipped if r.tilt > 0 and r.probability * max(ratios.get((r.label, True), [0.0])) > 1]
    return finding(chosen, never_stops, f"no stop up to s = 2 on {counted(chosen, never_stops, 'such rays')}", told)


def never_stops(r: Ray) -> bool:
    return r.stop is None


def open_losses_push_on(found: Laboratory) -> Finding:
    chosen = of_kind(found.rays, "open")

    def holds(r: Ray) -> bool:
        return r.stop is None and r.behind is not None and r.behind[0] < 0

    return finding(chosen, holds, counted(chosen, holds, "rays"), told)


def all_point_right_at_the_start(found: Laboratory) -> Finding:
    def holds(r: Ray) -> bool:
        return (r.ahead or 0) > 0

    smallest = min((r.ahead or 0 for r in found.rays), default=math.nan)
    number = f"{counted(found.rays, holds, 'rays')}, smallest cosine {smallest:.3f}"
    return finding(found.rays, holds, number, lambda r: f"{told(r)}, smallest cosine {r.ahead or 0:.3f}")
