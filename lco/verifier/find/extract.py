"""Find the answer in a response.

What a person would take for the answer, in this order (the first that is there counts, and of its kind the last):

    <answer>…</answer>     unless a box stands behind it
    \\boxed{…}, \\fbox{…}    the last; several in one statement ("\\boxed{3} and \\boxed{5}") belong together
    #### 42
    "The final answer is …", "Answer: …"
    a closing formula, or a response that is nothing but an answer

Thinking (`<think>…</think>`) is not an answer, and a box or tag that is never closed was cut off: no answer. Marks that end
a turn (`<|im_end|>`, `</s>`) are no part of it, and what stands behind them is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from lco.verifier.find.boxes import OPENED_BOX, behind_last_box, boxed
from lco.verifier.find.corrections import correction, may_be_taken_back
from lco.verifier.find.phrases import (
    announced,
    closing_formula,
    formulas_alone,
    last_line,
    last_number,
    marked_by_hash,
    only_line,
)
from lco.verifier.find.thoughts import after_thinking, last_match, within_turn
from lco.verifier.patterns import regex
from lco.verifier.rules import Rules

_TAG = regex(r"<answer>", re.IGNORECASE)
_TAG_END = regex(r"</answer>", re.IGNORECASE)
_END_OF_TURN = regex(
    r"(?:<\|(?!begin|end_of_box)[\w/]{2,30}\|>|<｜[^<>｜]{2,30}｜>|</?s>|<eos>|<bos>|<end_of_turn>|<pad>|\[/?INST\])$"
)


class Found(NamedTuple):
    """The text of an answer; `by_place` where nothing marks it but that it is the only line, or the last."""

    text: str
    by_place: bool = False


def _silent(text: str) -> None:
    del text


def find_answer(response: str, rules: Rules, note: Callable[[str], None] = _silent) -> Found | None:
    """The answer, or None. Raises RefusedError for boxes that contradict each other, if asked to."""
    if not within_turn(response).strip():
        note("the turn ends before anything is said")
        return None
    text = after_thinking(_without_end_of_turn(response))
    if text is None:
        note("the thinking never ends")
        return None
    ended = within_turn(text)
    if ended != text:
        note("what stands behind the mark that ends the turn is left out")
        text = ended
    how = rules.extraction
    if how == "whole":
        return _marked(text.strip() or None)
    if how == "hash":
        return _marked(marked_by_hash(text))
    if how == "boxed_only":
        return _marked(_standing(boxed(text, rules, note)[0], text, note))
    tagged, behind = _tagged(text, rules, note)
    if how == "answer_tag" or tagged is not None:
        return _marked(tagged)
    content, cut_off = boxed(behind, rules, note)
    if content is not None or cut_off:
        return _marked(_standing(content, behind, note))
    found = marked_by_hash(text)
    if found is None:
        found, rest = announced(text)
        if found == "":
            note("the words that announce an answer are followed by none, or it is taken back")
            return None
        if rest != text:
            note("the words that name an answer deny or doubt it: only what stands behind them counts")
            text = rest
    found = found or formulas_alone(text) or closing_formula(text)
    placed = None
    if found is None and how != "last_number":
        placed = only_line(text) if how == "lenient" else last_line(text)
    if found is None and how == "last_number":
        found = last_number(text)
    if found is None and placed is None:
        note("nothing marks an answer")
        return None
    note(f"found the answer by its words or place: {found or placed!r}")
    return Found(found) if found is not None else Found(placed or "", by_place=True)


def _standing(content: str | None, text: str, note: Callable[[str], None]) -> str | None:
    """What a box holds, None where the words behind it take it back: a box has to be given anew."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"), 0)
    if content is None or not may_be_taken_back(text, start) or correction(behind_last_box(text), content) is None:
        return content
    note("the words behind the box take it back")
    return None


def _marked(text: str | None) -> Found | None:
    return None if text is None else Found(text)


def _without_end_of_turn(response: str) -> str:
    """The response without the marks by which a chat template ends a turn."""
    text = response
    while text[-1:].isspace() or text[-1:] in (">", "]"):
        text = text.rstrip()
        found = _END_OF_TURN.search(text, max(0, len(text) - 40))
        if found is None:
            break
        text = text[: found.start()]
    return text


def _tagged(text: str, rules: Rules, note: Callable[[str], None]) -> tuple[str | None, str]:
    """The content of the last answer tag, and the text in which a box still counts."""
    last = last_match(_TAG, text) if "<" in text else None
    if last is None:
        return None, text
    end = _TAG_END.search(text, last.end())
    if end is None:
        return None, ""  # cut off
    if OPENED_BOX.search(text, end.end()):
        return None, text
    content = text[last.end() : end.start()]
    inside, cut_off = boxed(content, rules, note)
    note("found the last answer tag")
    if cut_off or correction(text[end.end() :], content.strip()) is not None:
        return None, ""
    return (inside if inside is not None else content.strip()), text
