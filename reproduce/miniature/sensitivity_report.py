"""Tables of the sensitivity study, from its records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lco.disk import write_text
from lco.methods import METHODS
from reproduce.miniature.stability_report import scores, verdict

Records = Mapping[str, Sequence[Mapping[str, Any]]]
"""name → the records of its seeds"""
Plan = Mapping[str, tuple[str, Mapping[str, Any]]]
"""name → (method, what differs from its preset)"""


def note(records: Iterable[Mapping[str, Any]]) -> str:
    records = list(records)
    start = 100 * sum(scores(dict(r))[0] for r in records) / len(records)
    return (
        f"pass@1 (T = 1, per cent) on 128 validation problems after the last rollout, {len(records)} runs: mean ± standard "
        f"deviation [lowest, highest] over seeds; the start has {start:.0f}. Collapsed: ended below half of its best."
    )


def support_table(plan: Plan, found: Records) -> str:
    """One row for each support."""
    lines = [
        note(r for seeds in found.values() for r in seeds),
        "",
        "| LCO-KLD with | pass@1 | entropy at the end |",
        "|---|---|---|",
    ]
    titles = {
        "full": "all of π_old",
        "top_rest": "its 5 likeliest and the rest as one cell",
        "top_filled": "its 5 likeliest alone",
    }
    for name in (n for n in plan if n in found):
        seeds, support = found[name], plan[name][1]["support"]
        entropy = sum(r["curves"]["entropy"][-1] for r in seeds) / len(seeds)
        lines.append(f"| {titles[support]} (`support={support}`) | {verdict(seeds)} | {entropy:.3f} |")
    return "\n".join(lines)


def beta_table(plan: Plan, found: Records) -> str:
    """One row for each loss and scale, one column for each β."""
    names = {(method, x["beta_negative_scale"], x["beta"]): name for name, (method, x) in plan.items()}
    betas, rows = list(dict.fromkeys(key[2] for key in names)), list(dict.fromkeys(key[:2] for key in names))
    lines = [
        note(r for seeds in found.values() for r in seeds),
        "",
        "| loss | β × , A < 0 | " + " | ".join(f"β = {beta:g}" for beta in betas) + " |",
        "|---" * (2 + len(betas)) + "|",
    ]
    for method, scale in rows:
        seeds = [found.get(names[method, scale, beta], ()) for beta in betas]
        cells = [verdict(records) if records else "" for records in seeds]
        lines.append(f"| {METHODS[method].title} | {scale:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def build(parts: Mapping[str, Plan], support: Records, beta: Records, path: Path) -> str:
    """Writes the report; returns its text."""
    lines = ["# How sensitive is LCO?", ""]
    if support:
        lines += ["## What is kept of π_old", "", support_table(parts["support"], support), ""]
    if beta:
        lines += ["## β, and the weight of negative advantages", "", beta_table(parts["beta"], beta), ""]
    text = "\n".join(lines)
    write_text(path, text)
    return text
