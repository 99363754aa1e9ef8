r"""Words and places that announce an answer: `#### 42`, "the answer is …", a closing formula, the only line."""

from __future__ import annotations

import re
from typing import NamedTuple

from lco.verifier.find.corrections import correction, same_claim
from lco.verifier.find.doubts import doubt
from lco.verifier.find.thoughts import last_match
from lco.verifier.patterns import regex
from lco.verifier.read.tokens import trim

# Models trained on one-line solutions write the marker behind the last step, so it may stand after any blank.
_HASH = regex(r"(?:^|(?<=\s))#{4}(?!#)[ \t]*([^\n#]+)", re.MULTILINE)
_PHRASE = regex(
    r"(?:\bfinal\s+answer|\banswer|\bcorrect\s+(?:option|choice))\s*(?:\*\*|__)?\s*(?:to\s+(?:the|this)\s+(?:question|problem)\s*)?"
    r"(?:\bis\b(?:\s*:)?|\bequals\b|:|=)\s*(?:\*\*|__)?\s*(?:therefore|thus|simply)?\s*",
    re.IGNORECASE,
)
_HEADING = regex(
    r"(?:^|\n)[ \t]*(?:#{1,6}[ \t]*|\*\*|__)[ \t]*(?:final\s+)?answer[ \t]*:?[ \t]*(?:\*\*|__)?[ \t]*:?[ \t]*\n\s*",
    re.IGNORECASE,
)
_CHINESE = regex(
    r"答案(?:应该|应|就)?(?:是|为|选|[:：])\s*[:：]?\s*|(?:故|因此|所以)?选(?:择)?\s*[:：]?\s*(?=[A-J](?![A-Za-z]))|(?:^|\n)答\s*[:：]\s*"
)
_DISPLAY_END = regex(r"(?:\$\$(?P<a>[^$]+)\$\$|\\\[(?P<b>(?:(?!\\\[|\\\]).)+)\\\])\s*[.,]?\s*$", re.DOTALL)
_INLINE_END = regex(r"(?:(?<!\\)\$(?P<a>[^$\n]+)(?<!\\)\$|\\\((?P<b>[^\n]+?)\\\)|\*\*(?P<c>[^*\n]+)\*\*)\s*[.!。]?\s*$")
_CUE = regex(
    r"\b(?:so|thus|therefore|hence|answer|result|get|gives|find|obtain|have|is|are|equals|total|value|conclude|yields?)\b|∴|="
    r"|[是为得故]",
    re.IGNORECASE,
)
_NEGATED = regex(r"\b(?:not|n't|isn't|cannot|never|wrong|incorrect|neither|nor)\b", re.IGNORECASE)
_NUMBER = regex(r"-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|-?\.\d+")
_SENTENCE_END = regex(r"[.!?](?=\s+[A-Z(\"'*]|\s*$)|\n|[。！？]")
_REASON = regex(
    r"[\s,;(]+(?:because|since|due to)\b|[\s,;(]*因为|,\s*as\b|,\s*(?:given|written|expressed|stated|formatted)\b",
    re.IGNORECASE,
)
_REASON_OF_VALUE = regex(r"([($\s]*(?:[A-J]|[^A-Za-z]*\d[^A-Za-z]*)[)$.\s]*),?\s+as\s", re.IGNORECASE)
_FORMULA = r"(?:(?<!\\)\$[^$\n]+(?<!\\)\$|\\\([^\n]+?\\\))"
_BETWEEN = r"\s*(?:[,;]|[,;]?\s*(?:and|or|for|where|when|whenever|if|with)\b[ A-Za-z,]{0,60}?)\s*"
_FORMULAS = regex(rf"{_FORMULA}(?:{_BETWEEN}{_FORMULA})+\s*[.,]?")
_JOINED_END = regex(rf"{_FORMULA}(?:\s*,?\s*(?:and|or|,)\s*{_FORMULA})+\s*[.!]?\s*$")
_LISTING = regex(r"\b(?:are|namely|either|were)\s*:?\s*$", re.IGNORECASE)
_CONCLUSION = regex(
    r"(?:(?:^|[.;]\s+|,\s+)(?:therefore|thus|hence|so)|\b(?:is|are|have|get|obtain|find))\s*,?\s*$", re.IGNORECASE
)
_TAIL = 20_000  # characters from the end in which phrases are looked for
_BARE = 300  # characters of a response that may be nothing but an answer


def marked_by_hash(text: str) -> str | None:
    """What stands behind the last `####`, None where the words behind it take it back."""
    last = last_match(_HASH, text)
    if last is None or not last[1].strip() or correction(text[last.end() :], last[1].strip()) is not None:
        return None
    return last[1].strip()


class Announced(NamedTuple):
    """What words announce ("" if nothing follows them, None if none announce), and the text in which other places count:
    behind the last sentence that only doubts an answer."""

    claim: str | None
    rest: str


def announced(text: str) -> Announced:
    """What follows the last "answer is", up to the end of the sentence and without its reason; a sentence that denies or
    doubts what it names announces nothing, and a denial takes back what was announced before and is the same."""
    tail = text[-_TAIL:]
    places = sorted(
        (found.end(), found.start()) for pattern in (_PHRASE, _HEADING, _CHINESE) for found in pattern.finditer(tail)
    )
    rest = text
    denied: list[str] = []
    for end, start in reversed(places):
        how = doubt(tail, start)
        claim, stop = _claimed(tail, end)
        if not how:
            return Announced("" if any(same_claim(other, claim) for other in denied) else claim, text)
        if how == "denied":
            denied.append(claim)
        if rest is text:
            rest = tail[stop:].lstrip(".!?。！？* \t\n")
    return Announced(None, rest)


def _claimed(tail: str, start: int) -> tuple[str, int]:
    """What is claimed at a place, and where the claim ends."""
    rest = tail[start:].lstrip()
    start = len(tail) - len(rest)
    for mark, end in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)")):
        if rest.startswith(mark):
            stop = rest.find(end, 2)
            if stop < 0:
                return "", len(tail)
            following = rest[stop + 2 : stop + 60]
            if not re.match(r"\s*(?:,|and\b|or\b|和|或)", following):
                return _as_corrected(rest[2:stop].strip(), rest[stop + 2 :]), start + stop + 2
    stop = _sentence_end(rest)
    asked = rest[stop : stop + 1] in ("?", "？")  # "B? No, C." claims nothing
    return _as_corrected(trim(_without_reason(rest[: stop + asked])), rest[stop:]), start + stop


def _as_corrected(claim: str, behind: str) -> str:
    """The claim, or what takes its place behind it; "" where it is only taken back."""
    later = correction(behind, claim)
    return claim if later is None or not claim else trim(later)


def _without_reason(text: str) -> str:
    """The claim before "because", "since" and the like."""
    if reason := _REASON.search(text):
        claim = text[: reason.start()]
    elif reason := _REASON_OF_VALUE.match(text):
        claim = reason[1]
    else:
        return text
    return claim if claim.strip(" $*") else text


def _sentence_end(text: str) -> int:
    """Where the first sentence ends; a point inside a formula or a number is none."""
    for found in _SENTENCE_END.finditer(text):
        if len(re.findall(r"(?<!\\)\$", text[: found.start()])) % 2 == 0:
            return found.start()
    return len(text)


def formulas_alone(text: str) -> str | None:
    """A response of one line that is nothing but formulas and the words between them: `$f(x)=2x$ for $x \\ge 0$`."""
    plain = text.strip()
    if len(plain) > _BARE or "\n" in plain or not plain.startswith(("$", "\\(")):
        return None
    return plain if _FORMULAS.fullmatch(plain) else None


def closing_formula(text: str) -> str | None:
    """The formula with which the response ends, if it is displayed or the line draws a conclusion."""
    tail = text.rstrip()[-_TAIL:]
    found = _DISPLAY_END.search(tail)
    if found:
        return (found["a"] or found["b"]).strip()
    line = tail.rsplit("\n", 1)[-1][-2_000:]
    found = _INLINE_END.search(line)
    if not found:
        return None
    joined = _joined_formulas(line)
    before = line[: joined.start() if joined else found.start()]
    if before.strip() and (not _CUE.search(before) or _NEGATED.search(before)):
        return None
    return joined[0].strip() if joined else (found["a"] or found["b"] or found["c"]).strip()


def _joined_formulas(line: str) -> re.Match[str] | None:
    """The formulas with which a line ends, where they make up one answer: values of one letter, values behind "are", or
    values of several letters that a conclusion gives. Elsewhere the last formula alone concludes."""
    found = _JOINED_END.search(line)
    if found is None or not re.search(r"\b(?:and|or)\b", re.sub(_FORMULA, " ", found[0])):
        return None
    formulas = [formula.strip("$ \\()") for formula in re.findall(_FORMULA, found[0])]
    before = line[: found.start()]
    names = [formula.partition("=")[0].strip() if "=" in formula else "" for formula in formulas]
    if "" in names:
        alike = set(names) == {""} and _LISTING.search(before) is not None
    elif len(set(names)) == 1:
        alike = True
    else:
        letters = all(re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?", name) for name in names)
        alike = (
            letters
            and _CONCLUSION.search(before) is not None
            and not any(formula.count("=") > 1 for formula in formulas)
        )
    return found if alike else None


def only_line(text: str) -> str | None:
    """A response that is one short line is its own answer; the reading decides whether it is one."""
    plain = text.strip()
    return plain if plain and len(plain) <= _BARE and "\n" not in plain else None


def last_line(text: str) -> str | None:
    """The last line that is not empty."""
    lines = [line for line in text.split("\n") if line.strip()]
    return lines[-1].strip() if lines else None


def last_number(text: str) -> str | None:
    """The last number in the text."""
    numbers = _NUMBER.findall(text[-_TAIL:])
    return numbers[-1].replace("$", "") if numbers else None
