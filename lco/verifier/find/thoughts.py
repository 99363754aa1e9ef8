"""Thinking is no answer, nor is what stands behind the end of a turn: the text between, and whether a prompt has begun a
thought."""

from __future__ import annotations

import re
from collections import deque

from lco.verifier.patterns import regex

NAMES = "think|thinking|thought|thoughts|reasoning|reflection|reason|analysis|scratch_?pad|inner_monologue|seed:think"
OPEN = regex(
    rf"<\s{{0,3}}(?:{NAMES})(?:\s[^<>]{{0,80}})?>|<\|(?:think|thinking|begin_of_thought|START_THINKING)\|>"
    r"|(?-i:\[THINK\])|◁think▷|<\|channel\|>(?:analysis|commentary)\b[^<]{0,80}<\|message\|>|<\|channel>thought\b"
    r"|<unused94>thought\b",
    re.IGNORECASE,
)
CLOSED = regex(
    rf"<\s{{0,3}}/\s{{0,3}}(?:{NAMES})\s{{0,3}}>|<\|(?:/think|/thinking|end_of_thought|END_THINKING)\|>"
    r"|(?-i:\[/THINK\])|◁/think▷|<\|channel\|>final\b[^<]{0,80}<\|message\|>|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_PARTS = frozenset(("<|channel|>", "<|message|>", "<|channel>", "<channel|>", "<unused94>", "<unused95>"))
"""Tokens of which a mark is made together with a word."""

_SIGNS = ("<", "[THINK]", "[/THINK]", "◁")  # one of them stands in every mark
_BOX = regex(r"\\(?:boxed|fbox)\s*\{")
_TURN = regex(r"<[|｜](?:[^<>]{1,30})>|<[^<>]{1,30}[|｜]>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|\bassistant\b", re.I)
"""What chat templates write between turns."""


_TURN_ENDS = regex(
    r"<\|(?:im_end|eot_id|eot|eom_id|end_of_text|endoftext|end_of_turn|end_of_turn_token|endofturn|eos|end|return)\|>"
    r"|<｜end▁of▁sentence｜>|</s>|<eos>|<end_of_turn>",
    re.IGNORECASE,
)
_NEW_TURN = regex(
    r"(?:<\|im_start\|>|<\|start_header_id\|>|<\|start\|>)\s*assistant\b|<start_of_turn>\s*model\b|<[|｜]assistant[|｜]>|\[/INST\]",
    re.IGNORECASE,
)


def is_thought_mark(token: str) -> bool:
    """Whether a token opens or closes a thought, or is a part of what does."""
    return token in _PARTS or bool(OPEN.fullmatch(token) or CLOSED.fullmatch(token))


def with_open_thought(prompt: str, response: str) -> str:
    """The response as it has to be judged: behind the thought that the prompt opens for it, and what it puts into it.

    Chat templates of thinking models end the prompt in `<think>`, some with a few words behind it, so that the response holds
    the end of the thought alone. A box in a thought that never ends is no answer; behind `</think>` the answer counts as ever.

    >>> with_open_thought("Question? <think>\\n", "Perhaps \\\\boxed{41}. But")
    '<think>Perhaps \\\\boxed{41}. But'
    """
    opened = last_match(OPEN, prompt)
    if opened is None:
        return response
    begun = prompt[opened.end() :].lstrip()
    # With words behind it the mark may be one that a question talks of: it counts in the turn that the response goes on with.
    mentioned = begun and (not _TURN.search(prompt[: opened.start()]) or _TURN.search(begun))
    if mentioned or CLOSED.search(begun):
        return response
    return opened[0] + begun + response


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


def within_turn(text: str) -> str:
    """The text up to the mark that ends the last turn of the assistant in it: what stands behind is nobody's answer.

    >>> within_turn("64<|im_end|>5"), within_turn("<|endoftext|>5"), within_turn("<s>5</s>"), within_turn("<s>4</s> 5")
    ('64', '', '<s>5', '<s>4</s> 5')
    """
    if "<" not in text:
        return text
    turn = last_match(_NEW_TURN, text)
    said = len(text.rstrip())
    before = 0
    for found in _TURN_ENDS.finditer(text, turn.end() if turn else 0):
        opened = text.rfind("<s>", before, found.start()) if found[0] == "</s>" and found.end() < said else -1
        before = found.end()
        if opened < 0 or not text[opened + 3 : found.start()].strip():  # <s>4</s> crosses out what it holds
            return text[: found.start()]
    return text


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last place where a pattern matches."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
