"""All experiments of the laboratory, for every registered method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lco.lab import bandit, negative_only, ray
from lco.lab.convexity import Curvature, curvature
from lco.lab.position import Subject, subjects
from lco.lab.verdict import Verdict


@dataclass(frozen=True)
class Laboratory:
    """Everything that was measured; `verdicts` by the experiment that they come from."""

    methods: tuple[tuple[str, str, str], ...]
    curvatures: tuple[Curvature, ...]
    rays: tuple[ray.Ray, ...]
    alignments: tuple[ray.Alignment, ...]
    courses: tuple[bandit.Course, ...]
    entropies: tuple[float, ...]
    negatives: tuple[negative_only.Negatives, ...]
    verdicts: dict[str, tuple[Verdict, ...]]

    def numbers(self) -> dict[str, Any]:
        """Plain dictionaries and lists, for JSON."""
        convex = [c.convex for c in self.curvatures]
        outcomes = [r.outcome for r in self.rays]
        found = asdict(self)
        for item, value in zip(found["curvatures"], convex, strict=True):
            item["convex"] = value
        for item, text in zip(found["rays"], outcomes, strict=True):
            item["outcome"] = text
        return found


def measure(chosen: Sequence[Subject] | None = None) -> Laboratory:
    """Runs every experiment; by default on every method and every variant of it."""
    chosen = subjects() if chosen is None else chosen
    signed = [(subject, sign) for subject in chosen for sign in subject.signs]
    curvatures = tuple(curvature(subject, sign) for subject, sign in signed)
    rays = tuple(r for subject in chosen for r in ray.rays(subject))
    alignments = tuple(ray.alignment(subject, sign) for subject, sign in signed)
    courses, entropies = tuple(bandit.course(subject) for subject in chosen), bandit.truncated_entropies()
    negatives = tuple(found for subject in chosen if (found := negative_only.negatives(subject)) is not None)
    return Laboratory(
        tuple((subject.label, subject.method.name, subject.kind) for subject in chosen),
        curvatures, rays, alignments, courses, entropies, negatives,
        {
            "convexity": tuple(curvature_verdicts(curvatures, chosen)),
            "ray": tuple(ray.verdicts(rays, alignments)),
            "bandit": tuple(bandit.verdicts(courses, entropies)),
            "negative only": tuple(negative_only.verdicts(negatives)),
        },
    )  # fmt: skip


def curvature_verdicts(found: Sequence[Curvature], chosen: Sequence[Subject]) -> list[Verdict]:
    kinds = {subject.label: subject.kind for subject in chosen}
    shown = {subject.label for subject in chosen if subject.method.source == "demonstrations"}

    def told(group: Sequence[Curvature]) -> str:
        return "; ".join(
            f"{c.label} (A {'>' if c.sign > 0 else '<'} 0) smallest eigenvalue {c.smallest:.2g}, "
            f"{c.violations} of {c.segments} segments" for c in group
        ) or "none"  # fmt: skip

    taught = [c for c in found if c.label in shown]
    target, clipped, free = ([c for c in found if kinds[c.label] == kind] for kind in ("target", "clipped", "open"))
    rules = [c for c in found if c.sign_rule is not None]
    return [
        Verdict("Cross-entropy on demonstrations is convex in the logits.", "paper",
                bool(taught) and all(c.convex for c in taught), told(taught)),
        Verdict("Every LCO loss is convex in the logits.", "paper", bool(target) and all(c.convex for c in target),
                f"not convex: {told([c for c in target if not c.convex])}; "
                f"convex: {', '.join(dict.fromkeys(c.label for c in target if c.convex))}"),
        Verdict("PPO's clipped surrogate is not convex in the logits.", "paper",
                bool(clipped) and not any(c.convex for c in clipped), told(clipped)),
        Verdict("The plain policy gradient's loss is convex for A > 0 and concave for A < 0.", "suite",
                bool(free) and all(c.convex if c.sign > 0 else c.largest < 1e-6 for c in free), told(free)),
        Verdict("The surrogate −A r is indefinite where π(a) < ½; elsewhere convex for A > 0, concave for A < 0.", "suite",
                bool(rules) and all(c.sign_rule == 1 for c in rules),
                "; ".join(f"{c.label} (A {'>' if c.sign > 0 else '<'} 0) {c.sign_rule:.0%} of the cases" for c in rules)),
        Verdict("Every Hessian is one of the closed forms derived from the losses' equations.", "suite",
                not any("another" in c.forms for c in found),
                f"largest difference in an entry {max(c.error for c in found):.1g}; without a form: "
                f"{', '.join(dict.fromkeys(c.label for c in found if 'another' in c.forms)) or 'none'}"),
    ]  # fmt: skip
