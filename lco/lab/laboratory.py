"""All experiments of the laboratory, for every registered method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lco.lab import bandit, convexity, negative_only, ray
from lco.lab.descent import STEPS
from lco.lab.position import Subject, subjects


@dataclass(frozen=True)
class Laboratory:
    """Everything that was measured; `methods` are (label, method, kind) of every loss."""

    methods: tuple[tuple[str, str, str], ...]
    curvatures: tuple[convexity.Curvature, ...]
    rays: tuple[ray.Ray, ...]
    alignments: tuple[ray.Alignment, ...]
    courses: tuple[bandit.Course, ...]
    entropies: tuple[float, ...]
    negatives: tuple[negative_only.Negatives, ...]


def measure(chosen: Sequence[Subject] | None = None, steps: int = STEPS) -> Laboratory:
    """Runs every experiment, by default on every method and every variant of it; `steps` are inner steps."""
    chosen = subjects() if chosen is None else chosen
    signed = [(subject, sign) for subject in chosen for sign in subject.signs]
    curvatures = tuple(convexity.curvature(subject, sign) for subject, sign in signed)
    rays = tuple(r for subject in chosen for r in ray.rays(subject))
    alignments = tuple(ray.alignment(subject, sign) for subject, sign in signed)
    courses, entropies = tuple(bandit.course(subject, steps) for subject in chosen), bandit.truncated_entropies(steps)
    negatives = tuple(found for subject in chosen if (found := negative_only.negatives(subject, steps)) is not None)
    return Laboratory(
        tuple((subject.label, subject.objective.name, subject.kind) for subject in chosen),
        curvatures, rays, alignments, courses, entropies, negatives,
    )  # fmt: skip
