"""The laboratory's page: one self-contained HTML file. What does not support the paper is as plain as what does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from lco.evidence.formats import Table
from lco.evidence.render import page
from lco.lab import figures
from lco.lab.claims import PAPER, judged
from lco.lab.laboratory import Laboratory
from lco.lab.ray import PROBABILITIES, TILTS, Ray
from lco.lab.verdict import Claim, Finding

LEAD = (
    "Every registered method at single positions, in float64, through the head that trains models: the logits are free, so the "
    "optimal policy π* ∝ π_old e^{A/β} is known exactly, and each claim is a computation. Convex in the logits is not convex in "
    "a network's parameters.",
)
KINDS = (
    "Kinds of losses, found by asking the loss and not by its name: a “target” loss rests at π*; one with an “other target” was "
    "given a target and does not rest there; a “clipped” one has no gradient over whole regions; a “regression” pulls a token "
    "back that has become unlikely enough; an “open” one does none of these.",
    "The paper's claims about LCO are about its three losses, LCO-KLD, LCO-MSE and LCO-LCH, as this suite reads them: the first "
    "of several choices is a method's default. Other choices, the suite's own variants and the released code's presets are "
    "measured alike and told apart. Methods that differ only in advantages or in reductions over many tokens coincide here.",
)
TITLES = {
    "convexity": "Convexity in the logits",
    "ray": "Where gradients point",
    "bandit": "A bandit with eight arms",
    "negative only": "Negative data alone",
}


@dataclass(frozen=True)
class Part:
    """One experiment: its claims, and the figures (caption, PNG) and tables behind them."""

    title: str
    verdicts: tuple[tuple[Claim, Finding], ...]
    figures: tuple[tuple[str, bytes], ...]
    tables: tuple[Table, ...]


def build(found: Laboratory) -> str:
    """The whole page."""
    verdicts = judged(found)
    rays = (
        "Push along the ray from the old policy to the optimal one and as far again, in units of its size at the old policy. "
        "Zero at s = 1 is right; methods with the same loss lie on each other.", figures.rays(found),
    )  # fmt: skip
    inner_steps = (
        "Inner steps on fixed data. Left: the bandit with exact expectations. Right: one token with A = −1; the line is the "
        "optimal probability.", figures.inner_steps(found),
    )  # fmt: skip
    shown: dict[str, tuple[tuple[tuple[str, bytes], ...], tuple[Table, ...]]] = {
        "convexity": ((), (convexity(found),)),
        "ray": ((rays,), (ray_table(found), alignment_table(found))),
        "bandit": ((inner_steps,), (bandit_table(found),)),
    }
    parts = [
        Part(TITLES[experiment], tuple(group), *shown.get(experiment, ((), ())))
        for experiment, group in groupby(verdicts, key=lambda verdict: verdict[0].experiment)
    ]
    return page(
        "laboratory.html", title="The laboratory", lead=LEAD, kinds=KINDS, facts=facts(found, verdicts), parts=parts,
        contents=["Verdicts", *(part.title for part in parts), "What is measured"],
    )  # fmt: skip


def facts(found: Laboratory, verdicts: list[tuple[Claim, Finding]]) -> list[tuple[str, str]]:
    """How many claims held, of those that are the paper's and of all."""

    def held(chosen: list[tuple[Claim, Finding]]) -> str:
        return f"{sum(finding.supported for _, finding in chosen)} of {len(chosen)} supported"

    paper = [verdict for verdict in verdicts if verdict[0].said == PAPER]
    own = [verdict for verdict in verdicts if verdict[0].said != PAPER]
    return [("the paper's claims", held(paper)), ("the suite's claims", held(own)), ("losses", str(len(found.methods)))]


def sign(value: int) -> str:
    return "A > 0" if value > 0 else "A < 0"


def number(value: float | None, form: str = ".3g") -> str:
    return "—" if value is None else "0" if abs(value) < 1e-9 else format(value, form)


def convexity(found: Laboratory) -> Table:
    header = (
        "loss",
        "sign",
        "smallest eigenvalue",
        "largest",
        "convex",
        "shapes of the cases",
        "Hessian",
        "midpoint broken",
    )
    rows = tuple(
        (
            c.label, sign(c.sign), number(c.smallest), number(c.largest), "yes" if c.convex else "no",
            ", ".join(f"{count} {name}" for name, count in c.shapes.items()), " or ".join(c.forms),
            f"{c.violations} of {c.segments}",
        ) for c in found.curvatures
    )  # fmt: skip
    notes = (
        "g = e_a − π, F = diag π − ππᵀ, M = ggᵀ − F, P removes the mean, u = π_old, ρ = log π(a) − log π*(a), r = π(a)/π_old(a). "
        "Random positions with V = 4…8.",
    )
    return Table("Hessians", header, rows, notes)


def ray_table(found: Laboratory) -> Table:
    places = [(p, c) for c in TILTS for p in PROBABILITIES]
    header = ("first stop, in s", *(f"p {p:g}, c {c:+g}" for p, c in places), "gradient along")
    at: dict[tuple[str, float, float], Ray] = {(r.label, r.probability, r.tilt): r for r in found.rays}

    def cell(label: str, p: float, c: float) -> str:
        r = at.get((label, p, c))
        return "—" if r is None else "none" if r.stop is None else f"{r.stop:.3f}"

    along = {r.label: r.along for r in found.rays}
    rows = tuple((label, *(cell(label, p, c) for p, c in places), along[label]) for label, _, _ in found.methods)
    notes = ("p = π_old(a), c = A/β. 1 is exactly at the optimal policy, less stops short, “none” runs on past s = 2; "
             "— where the method sees no such row.",)  # fmt: skip
    return Table("First stop along the ray", header, rows, notes)


def alignment_table(found: Laboratory) -> Table:
    header = ("loss", "sign", "kind", "no gradient", "cosine > 0", "lower quartile", "median", "upper quartile")
    rows = tuple(
        (a.label, sign(a.sign), a.kind, f"{a.vanishing:.0%}", f"{a.positive:.1%}", *(f"{q:.2f}" for q in a.quartiles))
        for a in found.alignments
    )
    return Table("Cosine of −∇L with the way to the optimal policy, random positions", header, rows)


def bandit_table(found: Laboratory) -> Table:
    header = ("loss", "kind", "progress", "KL(π* ‖ π)", "‖gradient‖", "unbiased tilts: KL", "moving target: growth",
              "all negative: ‖z − z_old‖", "all negative: ‖gradient‖")  # fmt: skip
    rows = tuple(
        (
            c.label, c.kind, number(c.progress[-1] if c.progress else None), number(c.divergence[-1] if c.divergence else None),
            number(c.rest), number(c.unbiased), number(c.moving[1] / c.moving[0] if c.moving else None),
            number(c.negative[1] if c.negative else None), number(c.negative_rest),
        ) for c in found.courses
    )  # fmt: skip
    notes = (
        "After all inner steps. Progress 1 is as far as π*. Growth: ‖z − z_old‖ at all steps over that at half of them, "
        "2 if linear. Verified-only methods and demonstrations see the arms with A > 0.",
    )
    return Table("Where the inner steps end", header, rows, notes)
