"""What `lco methods` prints, made from the registry and the docstrings, so that it cannot go stale."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any

from lco.methods.method import Method


def needs(method: Method) -> str:
    """What the loop has to provide, in words."""
    hyper = method.hyper()
    old, asked = method.old(hyper), method.needs(hyper)
    parts = [
        "several samples a prompt" if asked.group else "",
        "old hidden states and head" if old.whole else "",
        "old log-probabilities" if old.statistics else "",
        "a critic" if method.critic(hyper) else "",
        "a filter of rows" if method.keep else "",
        "a pass over each minibatch before it" if method.prepare else "",
        "a reference policy" if asked.reference or method.source == "pairs" else "",
        "worked solutions" if method.source == "demonstrations" else "",
    ]
    return ", ".join(part for part in parts if part) or "nothing"


def summary(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "paper": method.paper,
        "summary": method.summary,
        "needs": needs(method),
        "variant_of": method.variant_of or None,
        "scope": method.scope,
        "reduction": method.reduction,
        "certainty": method.certainty,
        "hyperparameters": {
            name: {"default": knob.default, "help": knob.help, "source": knob.source, "choices": list(knob.choices)}
            for name, knob in method.hyperparameters.items()
        },
    }


def listing(methods: Iterable[Method]) -> str:
    """One line a method."""
    rows = [("NAME", "NEEDS", "PAPER"), *((m.name, needs(m), m.paper) for m in methods)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {need:{widths[1]}}  {paper}" for name, need, paper in rows)


def page(method: Method) -> str:
    """The method's own docstring (purpose, equation, source), its knobs, and what the loop provides."""
    text = inspect.getdoc(sys.modules[method.loss.__module__]) or ""
    if method.variant_of:
        text = f"{method.title}: {method.summary}\nA preset of {method.variant_of}, whose page this is.\n\n{text}"
    lines = [text, "", f"reduction: {method.reduction}", f"needs: {needs(method)}", f"certainty: {method.certainty}"]
    if method.hyperparameters:
        lines += ["", "hyper-parameters (--hyper NAME=VALUE):"]
    for name, knob in method.hyperparameters.items():
        choices = f" [{', '.join(map(str, knob.choices))}]" if knob.choices else ""
        lines.append(f"  {name} = {knob.default}{choices}\n      {knob.help} (default from: {knob.source})")
    return "\n".join(lines)
