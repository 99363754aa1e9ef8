"""What inner steps on fixed data show of each claim, as `findings` does of single positions: where a loss comes to rest."""

from __future__ import annotations

import math

import torch

from lco.lab import bandit, negative_only
from lco.lab.findings import PAPER
from lco.lab.laboratory import Laboratory
from lco.lab.verdict import Finding, besides, counted, finding, named, of_kind

AT_REST = 1e-4
"""Of a gradient, and of KL(π* ‖ π) at the optimum."""


# A bandit with eight arms.


def ended(c: bandit.Course) -> str:
    if not (c.progress and c.divergence):
        return f"{c.label}: sees no row"
    return f"{c.label}: progress {c.progress[-1]:.3g}, KL(π* ‖ π) {max(c.divergence[-1], 0):.2g}"


def distance(c: bandit.Course) -> float:
    """KL(π* ‖ π) at the end; infinite for a method that sees no row."""
    return c.divergence[-1] if c.divergence else math.inf


def open_losses_run_past(found: Laboratory) -> Finding:
    chosen = of_kind(found.courses, "open")

    def holds(c: bandit.Course) -> bool:
        return c.progress is not None and c.progress[-1] > 1 and (c.rest or 0) > AT_REST

    ends = [c.progress[-1] for c in chosen if c.progress]
    number = f"progress {min(ends, default=0):.3g} to {max(ends, default=0):.3g}, where 1 is the optimum"
    return finding(chosen, holds, number, ended)


def lco_rests_at_the_optimum(found: Laboratory) -> Finding:
    chosen = named(found.methods, PAPER, found.courses)
    start, worst = float(bandit.divergence(bandit.Z_OLD)), max(map(distance, chosen), default=math.nan)

    def tell(c: bandit.Course) -> str:
        unbiased = "" if c.unbiased is None else f"; with tilts A/(β π_old) {max(c.unbiased, 0):.2g}"
        return f"{ended(c)}{unbiased}; ‖gradient‖ {c.rest or 0:.1g}"

    number = f"KL(π* ‖ π) {worst:.3g} at most, from {start:.3g} at the start: it rests, but elsewhere"
    if chosen and worst < AT_REST:
        number = f"KL(π* ‖ π) {worst:.3g} at most, from {start:.3g} at the start"
    return finding(chosen, lambda c: distance(c) < AT_REST, number, tell, besides(found.courses, chosen, "target"))


def clipped_rests_on_a_plateau(found: Laboratory) -> Finding:
    chosen = of_kind(found.courses, "clipped")
    lowest, highest = (f(map(distance, chosen), default=math.nan) for f in (min, max))
    return finding(
        chosen, lambda c: c.rest == 0 and distance(c) > 1e-3, f"gradient 0 at KL(π* ‖ π) {lowest:.2g} to {highest:.2g}", ended
    )  # fmt: skip


def lco_rests_nearer_than_clipped(found: Laboratory) -> Finding:
    chosen, clipped = named(found.methods, PAPER, found.courses), of_kind(found.courses, "clipped")
    plateau, worst = min(map(distance, clipped), default=0.0), max(map(distance, chosen), default=math.nan)
    number = f"largest KL(π* ‖ π) of the three {worst:.3g}, smallest of a clipped surrogate {plateau:.3g}"
    return finding(
        chosen if clipped else [], lambda c: distance(c) < plateau, number, ended,
        [*besides(found.courses, chosen, "target"), *clipped],
    )  # fmt: skip


def negatives_part_the_ways(found: Laboratory) -> Finding:
    lco, free = named(found.methods, PAPER, found.courses), of_kind(found.courses, "open")
    losers = [c for c in free if c.negative]

    def holds(c: bandit.Course) -> bool:
        if c.kind == "open":
            return c.negative is not None and c.negative[1] > 1.5 * c.negative[0]
        return (c.negative_rest or 0) < AT_REST

    def tell(c: bandit.Course) -> str:
        half, whole = c.negative or (0.0, 0.0)
        return f"{c.label}: ‖z − z_old‖ {half:.3g} → {whole:.3g}, ‖gradient‖ {c.negative_rest or 0:.1g}"

    number = (
        f"{counted(losers, holds, 'losses without target or clip')} run away, {counted(lco, holds, 'LCO losses')} rest"
    )
    return finding(
        [*lco, *losers] if lco and losers else [], holds, number, tell, besides(found.courses, lco, "target")
    )


def a_moving_target_never_rests(found: Laboratory) -> Finding:
    chosen = named(found.methods, PAPER, found.courses)
    growth = [growing(c) for c in chosen]
    shown = finding(
        chosen, lambda c: growing(c) > 1.05,
        f"‖z − z_old‖ grows {min(growth, default=0):.2f} to {max(growth, default=0):.2f} times in the second half",
        lambda c: f"{c.label}: {growing(c):.2f} times", [c for c in besides(found.courses, chosen, "target") if c.moving],
    )  # fmt: skip
    return Finding(shown.supported and max(growth) > 1.95, shown.number, shown.cases, shown.apart)


def growing(c: bandit.Course) -> float:
    return c.moving[1] / c.moving[0] if c.moving else 0.0


def a_cut_target_collapses(found: Laboratory) -> Finding:
    entropies = found.entropies
    top = float(torch.distributions.Categorical(logits=bandit.Z_OLD.topk(bandit.TOP).values).entropy())
    return Finding(
        entropies[-1] < 0.5 * entropies[0],
        f"entropy {entropies[0]:.3f} → {entropies[-1]:.3f} nats in {len(entropies) - 1} rounds; the top {bandit.TOP} alone have "
        f"{top:.3f}",
        ("after each round: " + ", ".join(f"{x:.3f}" for x in entropies),),
    )


# Negative data alone.


def fell(n: negative_only.Negatives) -> str:
    return f"{n.label}: π(a) = {n.probability[-1]:.4g}, ‖z − z_old‖ = {n.moved[-1]:.3g}, ‖gradient‖ {n.rest:.1g}"


def aim() -> str:
    return f"the target gives the token {negative_only.target_probability():.4f}"


def misses(n: negative_only.Negatives) -> float:
    return abs(n.probability[-1] - negative_only.target_probability())


def lco_rests_at_the_targets_probability(found: Laboratory) -> Finding:
    chosen = named(found.methods, PAPER, found.negatives)
    number = f"{aim()}, which is missed by {max(map(misses, chosen), default=math.nan):.1g} at most"
    return finding(chosen, lambda n: misses(n) < 1e-4, number, fell, besides(found.negatives, chosen, "target"))


def open_losses_run_away(found: Laboratory) -> Finding:
    chosen = of_kind(found.negatives, "open")

    def holds(n: negative_only.Negatives) -> bool:
        return n.rest > 1e-3 and n.moved[-1] > 1.5 * n.moved[len(n.moved) // 2]

    return finding(chosen, holds, counted(chosen, holds, "losses run away"), fell)


def clipped_rests_off_the_target(found: Laboratory) -> Finding:
    chosen = of_kind(found.negatives, "clipped")
    number = f"{aim()}, which is missed by {min(map(misses, chosen), default=math.nan):.2g} at least"
    return finding(chosen, lambda n: n.rest == 0 and misses(n) > 1e-3, number, fell)
