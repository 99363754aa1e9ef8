"""What `lco methods` prints and docs/methods.md holds, made from the registry and the docstrings, so that it cannot go
stale."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

from lco.methods.method import Method, Preset


def needs(method: Method) -> str:
    """What the loop has to provide, in words."""
    objective = method.bind()
    old, asked = objective.old, objective.needs
    parts = [
        "several samples a prompt" if asked.group else "",
        "old hidden states and head" if old.whole else "",
        "old log-probabilities" if old.statistics else "",
        "the sampler's log-probabilities" if asked.sampler_logprob else "",
        "its likeliest tokens" if asked.sampler_top else "",
        "a critic" if objective.critic else "",
        "a filter of rows" if method.keep else "",
        "a pool of pairs" if objective.refresh else "",
        "refill" if asked.refill_rounds else "",
        "a pass over each minibatch before it" if method.prepare else "",
        "norms of each row's gradient" if asked.row_norms else "",
        "norms of each micro-batch's gradient" if objective.rate else "",
        "the optimizer's coming step on the head" if asked.head_step else "",
        "a reference policy" if objective.fixed else "",
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
        "reductions": list(dict.fromkeys([method.reduction, *method.reductions])),
        "certainty": method.certainty,
        "hyperparameters": {
            name: {"default": knob.default, "help": knob.help, "source": knob.source, "choices": list(knob.choices)}
            for name, knob in method.hyperparameters.items()
        },
        "paper_preset": {
            "hyper": dict(method.paper_preset.hyper),
            "settings": dict(method.paper_preset.settings),
            "source": method.paper_preset.source,
        },
    }


def listing(methods: Iterable[Method]) -> str:
    """Three lines a method: paper; needs and certainty; defaults."""
    chosen = list(methods)
    width = max(len(m.name) for m in chosen) + 2
    lines = []
    for m in chosen:
        defaults = " ".join(f"{name}={knob.default}" for name, knob in m.hyperparameters.items())
        texts = [f"{m.title}: {m.paper}", f"needs {needs(m)} | {m.certainty}", defaults or "no hyper-parameters"]
        lines += [
            f"{name:{width}}{line}"
            for name, text in zip((m.name, "", ""), texts, strict=True)
            for name, line in zip((name, *[""] * len(text)), textwrap.wrap(text, 110), strict=False)
        ]
    return "\n".join(lines)


def preset_line(preset: Preset) -> str:
    """Settings as they are typed on a command line, with their source; empty where none are known."""
    if not preset.hyper and not preset.settings:
        return ""
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in preset.settings.items()]
    hyper = [f"{name}={value}" for name, value in preset.hyper.items()]
    return " ".join([*flags, *(["--hyper", *hyper] if hyper else [])]) + f"\n      ({preset.source})"


def reduction_line(method: Method) -> str:
    """The method's own reduction, and what a run may take in its place."""
    others = ", ".join(name for name in method.reductions if name != method.reduction)
    taken = f"{method.reduction} (--reduction {others})" if others else method.reduction
    return f"{taken}; no other, for {method.name} {method.own_reduction}" if method.own_reduction else taken


def page(method: Method) -> str:
    """The method's own docstring (purpose, equation, source), its knobs, and what the loop provides."""
    text = inspect.cleandoc(method.page or "")
    if method.variant_of:
        text = f"{method.title}: {method.summary}\nA preset of {method.variant_of}, whose page this is.\n\n{text}"
    lines = [text, "", f"paper: {method.paper}", f"scope: {method.scope}"]
    lines += [f"reduction: {reduction_line(method)}"]
    lines += [f"needs: {needs(method)}", f"certainty: {method.certainty}"]
    if method.hyperparameters:
        lines += ["", "hyper-parameters (--hyper NAME=VALUE):"]
    for name, knob in method.hyperparameters.items():
        choices = f" [{', '.join(map(str, knob.choices)) or knob.range}]" if knob.choices or knob.range else ""
        when = f"{' and '.join(map(str, knob.when))}: " if knob.when else ""
        lines.append(f"  {name} = {knob.default}{choices}\n      {when}{knob.help} (default from: {knob.source})")
    for kind, found in (("paper", method.paper_preset), ("released", method.released_preset)):
        if preset := preset_line(found):
            lines += ["", f"--preset {kind} is\n  {preset}"]
    return "\n".join(lines)


def document(methods: Iterable[Method]) -> str:
    """docs/methods.md: a table of all methods, then the page of each."""
    chosen = list(methods)
    lines = [
        "# Methods",
        "",
        "Made from the code by `lco methods --markdown > docs/methods.md`; a test compares them.",
        "",
        "| method | scope | reduction | needs | certainty |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| [`{m.name}`](#{m.name}) {m.title} | {m.scope} | `{m.reduction}` | {needs(m)} | {m.certainty} |"
        for m in chosen
    ]
    for method in chosen:
        lines += ["", f"## {method.name}", "", method.summary, "", "```text", page(method), "```"]
    return "\n".join(lines)
