"""The laboratory's page: one self-contained HTML file. What does not support the paper is as plain as what does."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

from lco.evidence.page import STYLE
from lco.evidence.tables import Table, html_table
from lco.lab import figures
from lco.lab.convexity import Curvature
from lco.lab.laboratory import Laboratory
from lco.lab.ray import PROBABILITIES, TILTS, Ray
from lco.lab.verdict import Verdict

LEAD = (
    "Every registered method at single positions, in float64, through the head that trains models: the logits are free, "
    "so the optimal policy π* ∝ π_old e^{A/β} is known exactly. A “target” loss rests at π*, one with an “other target” was "
    "given a target and does not rest there, a “clipped” one has no gradient over whole regions, a “regression” pulls a "
    "token back that has become unlikely enough, an “open” one none of these; a loss is asked which it is, its name does "
    "not count. The released code’s presets stand beside the theory. Of a method with several choices of a loss the first "
    "is its default. Methods that differ only in advantages or in reductions over many tokens coincide here. Convex in the "
    "logits is not convex in a network's parameters."
)


def build(found: Laboratory) -> str:
    """The whole page."""
    rays = image(
        figures.rays(found), "Push along the ray from the old policy to the optimal one and as far again, in units of its "
        "size at the old policy. Zero at s = 1 is right; methods with the same loss lie on each other.",
    )  # fmt: skip
    inner_steps = image(
        figures.inner_steps(found), "Inner steps on fixed data. Left: the bandit with exact expectations. Right: one token "
        "with A = −1; the line is the optimal probability.",
    )  # fmt: skip
    sections = (
        ("Convexity in the logits", "convexity", convexity(found.curvatures)),
        ("Where gradients point", "ray", rays + ray_table(found) + alignment_table(found)),
        ("A bandit with eight arms", "bandit", inner_steps + bandit_table(found)),
        ("Negative data alone", "negative only", ""),
    )
    verdicts = [v for group in found.verdicts.values() for v in group]
    count = sum(v.supported for v in verdicts)
    parts = ["<h1>The laboratory</h1>", f"<p>{html.escape(LEAD)}</p>"]
    parts.append(
        f"<p>{count} of {len(verdicts)} claims are supported by every number, {len(verdicts) - count} are not.</p>"
    )
    for title, experiment, shown in sections:
        parts += [f"<h2>{html.escape(title)}</h2>", listed(found.verdicts[experiment]), shown]
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\n"
        f"<title>The laboratory</title>\n<style>{STYLE}</style>\n<body>\n{body}\n</body></html>\n"
    )


def listed(claims: Iterable[Verdict]) -> str:
    items = (
        f"<dt>{html.escape(v.claim)}</dt><dd><b>{'supported' if v.supported else 'not supported'}</b> "
        f"<span class=note>(claim: {v.source}) {html.escape(v.measured)}</span></dd>"
        for v in claims
    )
    return f"<dl>{''.join(items)}</dl>"


def image(png: bytes, caption: str) -> str:
    data, text = base64.b64encode(png).decode(), html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption class=note>{text}</figcaption></figure>'


def sign(value: int) -> str:
    return "A > 0" if value > 0 else "A < 0"


def number(value: float | None, form: str = ".3g") -> str:
    return "—" if value is None else "0" if abs(value) < 1e-9 else format(value, form)


def convexity(found: Iterable[Curvature]) -> str:
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
        ) for c in found
    )  # fmt: skip
    notes = (
        "g = e_a − π, F = diag π − ππᵀ, M = ggᵀ − F, P removes the mean, u = π_old, ρ = log π(a) − log π*(a), r = π(a)/π_old(a). "
        "Random positions with V = 4…8.",
    )
    return html_table(Table("Hessians", header, rows, notes))


def ray_table(found: Laboratory) -> str:
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
    return html_table(Table("Along the ray", header, rows, notes))


def alignment_table(found: Laboratory) -> str:
    header = ("loss", "sign", "kind", "no gradient", "cosine > 0", "lower quartile", "median", "upper quartile")
    rows = tuple(
        (a.label, sign(a.sign), a.kind, f"{a.vanishing:.0%}", f"{a.positive:.1%}", *(f"{q:.2f}" for q in a.quartiles))
        for a in found.alignments
    )
    return html_table(Table("Cosine of −∇L with the way to the optimal policy, random positions", header, rows))


def bandit_table(found: Laboratory) -> str:
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
    return html_table(Table("Bandit", header, rows, notes))
