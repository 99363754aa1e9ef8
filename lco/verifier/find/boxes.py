r"""Boxes: the last one counts; several in one statement ("\boxed{3} and \boxed{5}") belong together."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from lco.verifier.patterns import regex
from lco.verifier.rules import Rules
from lco.verifier.tree import RefusedError

_BOX_NAME = r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*"
_BOX = regex(_BOX_NAME)
OPENED_BOX = regex(_BOX_NAME + r"(?:\{|[-+]?\d)")
_BRACE = regex(r"\\.|[{}]", re.DOTALL)
_BARE_NUMBER = regex(r"[-+]?\d[\d.,/]*(?<![.,/])")
_PLACEHOLDER = regex(r"(?:\s|\.|…|\\(?:[lc]?dots|dotsc?|cdot|square|ast)\b|\\[,;!: ])*")
_SPOKEN_OF = regex(
    r"\b(?:inside|within|into|in|using|uses?d?|with|via|by)\s+(?:an?\s+|the\s+|LaTeX\s+)*[`\"']?\$?$", re.IGNORECASE
)
_LARGEST_GAP = 160  # characters between boxes of one statement
# What may stand between boxes beside a joint: math delimiters, spacing, alignment, \text around words.
_SET_APART = regex(
    r"\\(?:text|mbox|textrm|mathrm|textbf)\s*\{([^{}]*)\}|\$+|\\[()\[\]]|\\(?:quad|qquad|enspace|thinspace|newline)(?![a-zA-Z])"
    r"|\\hspace\*?\s*\{[^{}]*\}|\\[,;:! \\]|[~&*]"
)
_NAME = regex(
    r"((?:\\(?:angle|triangle|sin|cos|tan|Delta)\s*)?(?:\\?[A-Za-z]+)(?:_\s*(?:\{[^{}]*\}|\w))?'*(?:\([A-Za-z0-9]\))?)\s*(?::=|=)\s*$"
)
_JOINT = regex(r"[\s,;]*(and|or|und|和|或|as well as|,|;)[\s,;]*", re.IGNORECASE)


class Box(NamedTuple):
    """A box: what it holds, and where it begins and ends."""

    content: str
    start: int
    end: int


class Boxes(NamedTuple):
    """The boxes of a text, and whether one of them was cut off."""

    closed: list[Box]
    cut_off: bool


def boxed(text: str, rules: Rules, note: Callable[[str], None]) -> tuple[str | None, bool]:
    """The content of the last box or group of boxes, None if there is none; and whether a box was cut off."""
    boxes = _find(text)
    if boxes.cut_off:
        note("a box is never closed: the response was cut off")
        return None, True
    if not boxes.closed:
        return None, False
    group = _last_group(text, boxes.closed)
    note(
        f"found {len(boxes.closed)} box(es); "
        + ("the last counts" if len(group) == 1 else f"the last {len(group)} belong together")
    )
    if rules.boxes == "agree" and len({_squeezed(box.content) for box in boxes.closed}) > len(group):
        raise RefusedError("contradicting_boxes", "the boxes do not agree")
    if len(group) == 1 or len({_squeezed(box.content) for box in group}) == 1:
        return group[-1].content, False
    joint = " \\text{ or } " if _are_alternatives(text, group) else ", "
    return joint.join(_with_names(text, group)), False


def behind_last_box(text: str) -> str:
    """What stands behind the last box that is closed."""
    closed = _find(text).closed
    return text[closed[-1].end :] if closed else ""


def _find(text: str) -> Boxes:
    """All boxes. The command without braces opens a box only before a number; elsewhere it is merely mentioned."""
    found: list[Box] = []
    resume = 0
    for command in _BOX.finditer(text):
        if command.start() < resume:
            continue
        if text[command.end() : command.end() + 1] != "{":
            number = _BARE_NUMBER.match(text, command.end())
            if number:
                found.append(Box(number[0], command.start(), number.end()))
            continue
        end = _closing_brace(text, command.end())
        if end < 0:
            return Boxes(found, True)
        found.append(Box(text[command.end() + 1 : end - 1].strip(), command.start(), end))
        resume = end
    if len(found) < 2:
        return Boxes(found, False)
    answers = [box for box in found if not _is_mention(text, box)]
    return Boxes(answers or found, False)


def _is_mention(text: str, box: Box) -> bool:
    r"""`\boxed{...}` and a quoted `\boxed{}` only speak of a box."""
    if not _PLACEHOLDER.fullmatch(box.content):
        return False
    quotes = "`\"'"
    quoted = text[box.start - 1 : box.start] in quotes and text[box.end : box.end + 1] in quotes
    return bool(box.content) or quoted or _SPOKEN_OF.search(text[max(0, box.start - 40) : box.start]) is not None


def _closing_brace(text: str, start: int) -> int:
    """Just behind the brace that closes the one at `start`, -1 if none does."""
    depth = 0
    for found in _BRACE.finditer(text, start):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}":
            depth -= 1
            if depth == 0:
                return found.end()
    return -1


def _last_group(text: str, boxes: list[Box]) -> list[Box]:
    """The last box and those joined to it."""
    group = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.end : group[0].start]
        if len(between) > _LARGEST_GAP or not _JOINT.fullmatch(_words_between(between)):
            break
        group.insert(0, box)
    return group


def _words_between(between: str) -> str:
    """What stands between two boxes without what only sets type, and without the name of the second."""
    return _NAME.sub("", _set_plain(between))


def _set_plain(text: str) -> str:
    """The text without delimiters and spacing; the end of a row is a comma."""
    return _SET_APART.sub(lambda found: " , " if found[0] == "\\\\" else f" {found[1] or ''} ", text).rstrip()


def _are_alternatives(text: str, group: list[Box]) -> bool:
    """Whether the boxes are offered as alternatives."""
    gaps = (_words_between(text[left.end : right.start]) for left, right in pairwise(group))
    return any(re.search(r"\bor\b|或", gap, re.IGNORECASE) for gap in gaps)


def _with_names(text: str, group: list[Box]) -> list[str]:
    """The contents; with their names if every one has another: `p = 3, q = 5`."""
    names = []
    for box in group:
        found = _NAME.search(_set_plain(text[max(0, box.start - 60) : box.start]))
        names.append(found[1] if found else "")
    if "" in names or len(set(names)) < len(names):
        return [box.content for box in group]
    return [f"{name} = {box.content}" for name, box in zip(names, group, strict=True)]


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$]|\\[,;!]", "", text)
