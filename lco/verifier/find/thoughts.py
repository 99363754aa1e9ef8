"""Thinking is no answer: what stands behind it, and whether a prompt has begun it."""

from __future__ import annotations

import re
from collections import deque

_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|seed:think"
OPEN = re.compile(rf"<(?:{_NAMES})>|(?-i:\[THINK\])|◁think▷|<\|begin_of_thought\|>", re.IGNORECASE)
CLOSED = re.compile(rf"</(?:{_NAMES})>|(?-i:\[/THINK\])|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)
_SIGNS = ("<", "[THINK]", "[/THINK]", "◁")  # one of them stands in every mark
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def with_open_thought(prompt: str, response: str) -> str:
    """The response as it has to be judged: behind the thought that the prompt opens for it, if it ends in such a tag.

    Chat templates of thinking models end the prompt in `<think>`, so that the response holds the end of the thought alone. A
    box in a thought that never ends is no answer; behind `</think>` the answer counts as ever.

    >>> with_open_thought("Question? <think>\\n", "Perhaps \\\\boxed{41}. But")
    '<think>Perhaps \\\\boxed{41}. But'
    """
    opened = last_match(OPEN, prompt)
    if opened is None or prompt[opened.end() :].strip():
        return response
    return opened[0] + response


def after_thinking(response: str) -> str | None:
    """The response behind its thinking; None if the thinking was cut off before there was an answer."""
    if not any(sign in response for sign in _SIGNS):
        return response
    closed = last_match(CLOSED, response)
    text = response if closed is None else response[closed.end() :]
    opened = OPEN.search(text)
    if opened is None:
        return text
    before = text[: opened.start()]
    return before if _BOX.search(before) else None


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last place where a pattern matches."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
