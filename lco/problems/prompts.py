"""Problems become prompts: styles as data, and one way to turn them into ids that training and every evaluation share.

The ids always come from the tokenizer's own chat template, rendered once: one BOS, chat markers exactly once, the same
system message (templates such as Qwen2.5's insert one when none is given) and the same date: a template that asks what
day it is is told `TEMPLATE_DATE`, whatever it calls the answer, so that prompts do not change by the day.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lco.errors import UserError, nearest
from lco.problems.progress import counted
from lco.problems.records import Problem

TEMPLATE_DATE = datetime(2024, 7, 26)
"""The day that templates print where they would print today's (Llama-3.2, SmolLM3, gpt-oss, Granite): Llama's own default."""

CLOCK = "strftime_now"
"""What templates call for today's date, with a format as `strftime` takes it."""

DIRECTIVES = [*"aAbBcdDeFhHIjmMpRSTuUwWxXyY", "-d", "-H", "-I", "-j", "-m", "-M", "-S", "-y", "%"]

PINNED_CLOCK = (
    f"{{%- macro {CLOCK}(format) %}}{{{{- format"
    + "".join(f" | replace('%{d}', '{TEMPLATE_DATE.strftime('%' + d)}')" for d in DIRECTIVES)
    + " }}{%- endmacro %}\n"
)
"""The same clock in a template's own language, for programs that know nothing of this one."""


@dataclass(frozen=True)
class PromptStyle:
    """How a question is asked.

    Attributes:
        template: the user's message; `{problem}` is the question.
        system: the system message; None leaves it to the chat template's own default.
    """

    template: str
    system: str | None = None

    def messages(self, problem: str) -> list[dict[str, str]]:
        user = {"role": "user", "content": self.template.replace("{problem}", problem)}
        return [user] if self.system is None else [{"role": "system", "content": self.system}, user]


STYLES: dict[str, PromptStyle] = {
    "plain": PromptStyle("{problem}"),
    "boxed": PromptStyle("{problem}", "Please reason step by step, and put your final answer within \\boxed{}."),
    "boxed_user": PromptStyle("{problem}\n\nReason step by step and put your final answer in \\boxed{}."),
    "hash": PromptStyle("{problem}\n\nReason step by step. End with a line of the form: #### answer"),
    "number_only": PromptStyle("{problem}\nReply with only the number."),
}


def style_named(name: str) -> PromptStyle:
    """The style.

    Raises:
        UserError: no such style; the message names the nearest one.
    """
    if name not in STYLES:
        raise UserError(f"there is no prompt style {name!r}{nearest(name, STYLES)}")
    return STYLES[name]


def render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The prompt as text, BOS included where the template writes it.

    Raises:
        UserError: the tokenizer has no chat template, or the template refuses the messages.
    """
    from jinja2 import TemplateError  # which a list of the styles does not need

    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; use an instruction-tuned model, or put a "
            "chat_template.jinja beside its tokenizer"
        )
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **{CLOCK: TEMPLATE_DATE.strftime}
        )
    except TemplateError as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} refuses the prompt ({error}); if it takes no system message, "
            "use a prompt style without one, such as boxed_user"
        ) from None


def prompt_facts(tokenizer: Any) -> dict[str, str]:
    """What decides how a message becomes ids: the template's hash, the date it prints where it asks for today's ("" where it
    does not ask), and whether it was told to think. For manifests and results."""
    template = str(getattr(tokenizer, "chat_template", ""))
    date = TEMPLATE_DATE.strftime("%d %b %Y") if CLOCK in template else ""
    told = PINNED_THINKING.search(template)
    return {
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "template_date": date,
        **({"thinking": ON_OFF[told[1]]} if told else {}),
    }


THINKING = "enable_thinking"
"""What templates of models that can think call the switch."""

ON_OFF = {"true": "on", "false": "off"}

PINNED_THINKING = re.compile(r"\{%- set enable_thinking = (true|false) %\}\n")


def with_thinking(tokenizer: Any, thinking: str) -> Any:
    """A tokenizer whose chat template thinks, or does not, for every program that it is given to; the one that was given stays as
    it is, and is returned where nothing is asked.

    Args:
        thinking: "on", "off", or "" for the template's own default.

    Raises:
        UserError: the template does not know the switch, or was saved with the other value.
    """
    if not thinking:
        return tokenizer
    value = {on_off: word for word, on_off in ON_OFF.items()}[thinking]
    templates = tokenizer.chat_template
    several = templates if isinstance(templates, dict) else {"": str(templates or "")}
    knows = {name: template for name, template in several.items() if THINKING in template}
    if not knows:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} does not know {THINKING}, so --thinking {thinking} would change "
            "nothing; leave it out"
        )
    for template in knows.values():
        told = PINNED_THINKING.search(template)
        if told and told[1] != value:
            raise UserError(
                f"{tokenizer.name_or_path} was trained with --thinking {ON_OFF[told[1]]}, and its chat template says so to every "
                "program; give that, or leave --thinking out"
            )
    line = f"{{%- set {THINKING} = {value} %}}\n"
    changed = {name: t if PINNED_THINKING.search(t) else line + t for name, t in knows.items()}
    found = copy.copy(tokenizer)
    found.chat_template = {**several, **changed} if isinstance(templates, dict) else changed[""]
    return found


def with_pinned_date(tokenizer: Any) -> Any:
    """A tokenizer whose chat templates tell every program the date that they told this one. To be saved beside a trained
    model; the one that was given stays as it is."""
    templates = tokenizer.chat_template
    found = copy.copy(tokenizer)
    if isinstance(templates, dict):
        found.chat_template = {name: pinned(template) for name, template in templates.items()}
    elif templates:
        found.chat_template = pinned(templates)
    return found


def pinned(template: str) -> str:
    """The template with a clock of its own, where it asks for the date and has none yet."""
    return PINNED_CLOCK + template if CLOCK in template and not template.startswith(PINNED_CLOCK) else template


def prompts_sha256(prompts: Iterable[Sequence[int]]) -> str:
    """Hash of the ids of all prompts, in order: the same only where the same tokens are sent."""
    digest = hashlib.sha256()
    for ids in prompts:
        digest.update(f"{','.join(map(str, ids))}\n".encode())
    return digest.hexdigest()


def encode(tokenizer: Any, problem: Problem, style: PromptStyle) -> tuple[int, ...]:
    """Ids of the prompt, exactly as sent to every sampler and evaluation."""
    return tuple(tokenizer.encode(render(tokenizer, style.messages(problem.problem)), add_special_tokens=False))


TOGETHER = 1000
"""Prompts that the tokenizer is given at once."""


def encode_all(tokenizer: Any, problems: Sequence[Problem], style: PromptStyle) -> list[tuple[int, ...]]:
    """`encode` of every problem, many at a time, with a bar where it takes long."""
    found: list[tuple[int, ...]] = []
    texts: list[str] = []
    for number, problem in enumerate(counted(problems, "encoding prompts", len(problems)), 1):
        texts.append(render(tokenizer, style.messages(problem.problem)))
        if len(texts) == TOGETHER or number == len(problems):
            found += map(tuple, tokenizer(texts, add_special_tokens=False)["input_ids"])
            texts = []
    return found
