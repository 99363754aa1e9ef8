"""The laboratory's figures, as PNG bytes that depend on the numbers alone."""

from __future__ import annotations

from typing import Any

from lco.evidence.plots import encoded, legend, prepared
from lco.evidence.styles import styles
from lco.lab.laboratory import Laboratory
from lco.lab.negative_only import target_probability
from lco.lab.ray import PROBABILITIES


def looks(found: Laboratory) -> dict[str, dict[str, Any]]:
    """How every loss is drawn, by its place in the tables."""
    return {
        label: {"color": style.colour, "linestyle": style.linestyle, "label": label, "linewidth": 1.3}
        for label, style in styles(label for label, _, _ in found.methods).items()
    }


def rays(found: Laboratory) -> bytes:
    tilts = (0.5, -0.5)
    figure, axes = prepared().subplots(2, len(PROBABILITIES), figsize=(12, 6), sharex=True, layout="constrained")
    style = looks(found)
    for row, tilt in zip(axes, tilts, strict=True):
        for axis, probability in zip(row, PROBABILITIES, strict=True):
            for r in found.rays:
                if (r.tilt, r.probability) == (tilt, probability):
                    axis.plot(r.s, [push / (r.push[0] or 1.0) for push in r.push], **style[r.label])
            axis.axvline(1, color="black", linewidth=0.8)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_title(f"π_old(a) = {probability:g}, A/β = {tilt:+g}", fontsize=10)
            axis.set_ylim(-1.6, 2.2)
    for axis in axes[1]:
        axis.set_xlabel("s: 0 the old policy, 1 the optimal one")
    return finished(figure, axes[0][0])


def inner_steps(found: Laboratory) -> bytes:
    figure, axes = prepared().subplots(1, 4, figsize=(16, 4), layout="constrained")
    style = looks(found)
    for c in found.courses:
        if c.progress and c.divergence:
            axes[0].plot(c.progress, **style[c.label])
            axes[1].plot([max(x, 1e-12) for x in c.divergence], **style[c.label])
    for n in found.negatives:
        axes[2].plot(n.moved, **style[n.label])
        axes[3].plot(n.probability, **style[n.label])
    axes[3].axhline(target_probability(), color="black", linewidth=0.8)
    titles = (
        "bandit: progress to π*",
        "bandit: KL(π* ‖ π)",
        "one negative token: ‖z − z_old‖",
        "one negative token: π(a)",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("inner step")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(left=0)
    axes[0].set_ylim(-0.1, 2.5)
    axes[0].axhline(1, color="black", linewidth=0.8)
    axes[1].set_yscale("log")
    axes[1].set_ylim(1e-6, 10)
    axes[2].set_yscale("symlog", linthresh=1)
    axes[2].set_ylim(bottom=0)
    return finished(figure, axes[0])


def finished(figure: Any, panel: Any) -> bytes:
    legend(figure, panel, columns=6)
    return encoded(figure)
