"""Find the answer in a response.

What a person would take for the answer, in this order (the first that is there counts, and of its kind the last):

    <answer>…</answer>     unless a box stands behind it
    \\boxed{…}, \\fbox{…}    the last; several in one statement ("\\boxed{3} and \\boxed{5}") belong together
    #### 42
    "The final answer is …", "Answer: …"
    a closing formula, or a response that is nothing but an answer

Thinking (`<think>…</think>`) is not an answer, and a box or tag that is never closed was cut off: no answer.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from lco.verifier.read.tokens import trim
from lco.verifier.rules import Rules
from lco.verifier.tree import RefusedError

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
_OPEN_THOUGHT = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_CLOSED_THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_TAG = re.compile(r"<answer>", re.IGNORECASE)
_TAG_END = re.compile(r"</answer>", re.IGNORECASE)
# Models trained on one-line solutions write the marker behind the last step, so it may stand after any blank.
_HASH = re.compile(r"(?:^|(?<=\s))#{4}(?!#)[ \t]*([^\n#]+)", re.MULTILINE)
_PHRASE = re.compile(
    r"(?:\bfinal\s+answer|\banswer)\s*(?:\*\*|__)?\s*(?:to\s+(?:the|this)\s+(?:question|problem)\s*)?"
    r"(?:\bis\b(?:\s*:)?|\bequals\b|:|=)\s*(?:\*\*|__)?\s*(?:therefore|thus|simply)?\s*",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"(?:^|\n)[ \t]*(?:#{1,6}[ \t]*|\*\*|__)[ \t]*(?:final\s+)?answer[ \t]*:?[ \t]*(?:\*\*|__)?[ \t]*:?[ \t]*\n\s*",
    re.IGNORECASE,
)
_DISPLAY_END = re.compile(r"(?:\$\$(?P<a>[^$]+)\$\$|\\\[(?P<b>(?:(?!\\\[|\\\]).)+)\\\])\s*[.,]?\s*$", re.DOTALL)
_INLINE_END = re.compile(
    r"(?:(?<!\\)\$(?P<a>[^$\n]+)(?<!\\)\$|\\\((?P<b>[^\n]+?)\\\)|\*\*(?P<c>[^*\n]+)\*\*)\s*[.!]?\s*$"
)
_CUE = re.compile(
    r"\b(?:so|thus|therefore|hence|answer|result|get|gives|find|obtain|have|is|are|equals|total|value|conclude|yields?)\b|∴|=",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|n't|isn't|cannot|never|wrong|incorrect|neither|nor)\b", re.IGNORECASE)
_NUMBER = re.compile(r"-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|-?\.\d+")
_JOINT = re.compile(r"[\s$,;]*(?:\\text\s*\{\s*(?:and|or)\s*\}|and|or|,|;)?[\s$]*(?:\w\s*=\s*)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(\"'*]|\s*$)|\n")
_TAIL = 20_000  # characters from the end in which phrases are looked for
_BARE = 300  # characters of a response that may be nothing but an answer


def _silent(text: str) -> None:
    del text


def find_answer(response: str, rules: Rules, note: Callable[[str], None] = _silent) -> str | None:
    """The text of the answer, or None. Raises RefusedError for boxes that contradict each other, if asked to."""
    text = _after_thinking(response)
    if text is None:
        note("the thinking never ends")
        return None
    how = rules.extraction
    if how == "whole":
        return text.strip() or None
    if how == "hash":
        return _hash(text)
    if how == "boxed_only":
        return _boxed(text, rules, note)[0]
    tagged, behind = _tagged(text, rules, note)
    if how == "answer_tag" or tagged is not None:
        return tagged
    boxed, unclosed = _boxed(behind, rules, note)
    if boxed is not None or unclosed:
        return boxed
    found = _hash(text)
    if found is None:
        found = _phrase(text)
        if found == "":
            note("the words that announce an answer are followed by none: the response was cut off")
            return None
    found = found or _closing(text) or (_bare(text) if how == "lenient" else None)
    if found is None and how == "last_line":
        found = _last_line(text)
    if found is None and how == "last_number":
        found = _last_number(text)
    note("nothing marks an answer" if found is None else f"found the answer by its words or place: {found!r}")
    return found


def _after_thinking(response: str) -> str | None:
    """The response behind its thinking; None if the thinking was cut off."""
    if "<" not in response:
        return response
    text = response
    closed = _last(_CLOSED_THOUGHT, text)
    if closed is not None:
        text = text[closed.end() :]
    opened = _OPEN_THOUGHT.search(text)
    if opened is None:
        return text
    before = text[: opened.start()]
    return before if before.strip() and _BOX.search(before) else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _tagged(text: str, rules: Rules, note: Callable[[str], None]) -> tuple[str | None, str]:
    """The content of the last answer tag, and the text in which a box still counts."""
    last = _last(_TAG, text)
    if last is None:
        return None, text
    end = _TAG_END.search(text, last.end())
    if end is None:
        return None, ""  # cut off
    if _BOX.search(text, end.end()):
        return None, text
    content = text[last.end() : end.start()]
    boxed, unclosed = _boxed(content, rules, note)
    note("found the last answer tag")
    if unclosed:
        return None, ""
    return (boxed if boxed is not None else content.strip()), text


def _boxed(text: str, rules: Rules, note: Callable[[str], None]) -> tuple[str | None, bool]:
    """The content of the last box, and whether a box was cut off."""
    boxes = []
    resume = 0
    for found in _BOX.finditer(text):
        if found.start() < resume:
            continue
        content, end = _content(text, found.end())
        if content is None:
            note("a box is never closed: the response was cut off")
            return None, True
        boxes.append((content, found.start(), end))
        resume = end
    if not boxes:
        return None, False
    group = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box[2] : group[0][1]]
        if len(between) > 40 or not _JOINT.fullmatch(between) or not re.search(r"and|or|,|;", between, re.IGNORECASE):
            break
        group.insert(0, box)
    note(
        f"found {len(boxes)} box(es); "
        + ("the last counts" if len(group) == 1 else f"the last {len(group)} belong together")
    )
    if rules.boxes == "agree" and len({_squeezed(content) for content, _, _ in boxes}) > len(group):
        raise RefusedError("contradicting_boxes", "the boxes do not agree")
    if len(group) > 1 and len({_squeezed(content) for content, _, _ in group}) == 1:
        group = group[-1:]
    joint = " \\text{ or } " if _either(text, group) else ", "
    return joint.join(content for content, _, _ in group), False


def _either(text: str, group: list[tuple[str, int, int]]) -> bool:
    """Whether the boxes are offered as alternatives."""
    between = (text[left[2] : right[1]] for left, right in pairwise(group))
    return any(re.search(r"\bor\b", gap, re.IGNORECASE) for gap in between)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$]|\\[,;!]", "", text)


def _content(text: str, at: int) -> tuple[str | None, int]:
    """What a box at this place holds, and where it ends; None if it is never closed."""
    if at >= len(text):
        return None, at
    if text[at] != "{":  # \boxed 5
        word = re.compile(r"\\?[\w.\-]+").match(text, at)
        return (word[0], word.end()) if word else ("", at)
    depth, place = 0, at
    for found in _BRACE.finditer(text, at):
        sign = found[0]
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                place = found.end()
                return text[at + 1 : place - 1].strip(), place
    return None, len(text)


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def _hash(text: str) -> str | None:
    last = _last(_HASH, text)
    return last[1].strip() if last and last[1].strip() else None


def _phrase(text: str) -> str | None:
    """What follows the last "answer is", up to the end of the sentence; "" if that is nothing."""
    tail = text[-_TAIL:]
    last = None
    for pattern in (_PHRASE, _HEADING):
        for found in pattern.finditer(tail):
            if last is None or found.end() > last.end():
                last = found
    if last is None:
        return None
    rest = tail[last.end() :].lstrip()
    for mark, end in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)")):
        if rest.startswith(mark):
            stop = rest.find(end, 2)
            if stop < 0:
                return ""
            following = rest[stop + 2 : stop + 60]
            if not re.match(r"\s*(?:,|and\b|or\b)", following):
                return rest[2:stop].strip()
    stop = _sentence_end(rest)
    return trim(rest[:stop])


def _sentence_end(text: str) -> int:
    """Where the first sentence ends; a point inside a formula or a number is none."""
    for found in _SENTENCE_END.finditer(text):
        if len(re.findall(r"(?<!\\)\$", text[: found.start()])) % 2 == 0:
            return found.start()
    return len(text)


def _closing(text: str) -> str | None:
    """The formula with which the response ends, if it is displayed or the line draws a conclusion."""
    tail = text.rstrip()[-_TAIL:]
    found = _DISPLAY_END.search(tail)
    if found:
        return (found["a"] or found["b"]).strip()
    line = tail.rsplit("\n", 1)[-1][-2_000:]
    found = _INLINE_END.search(line)
    if not found:
        return None
    before = line[: found.start()]
    if before.strip() and (not _CUE.search(before) or _NEGATED.search(before)):
        return None
    return (found["a"] or found["b"] or found["c"]).strip()


def _bare(text: str) -> str | None:
    """A response that is one short line is its own answer; the reading decides whether it is one."""
    plain = text.strip()
    return plain if plain and len(plain) <= _BARE and "\n" not in plain else None


def _last_line(text: str) -> str | None:
    lines = [line for line in text.split("\n") if line.strip()]
    return lines[-1].strip() if lines else None


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text[-_TAIL:])
    return numbers[-1].replace("$", "") if numbers else None
