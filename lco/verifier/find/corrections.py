r"""Answers that are taken back behind the place where they were given: "The answer is (B). Wait, it's (C)."

The last claim counts. Only words that begin a sentence and turn against what was said open a correction, and only an
answer behind "it is" and the like is a new claim: "Wait, let me check: 2 + 3 = 5." takes nothing back.
"""

from __future__ import annotations

import re

from lco.verifier.patterns import regex

_OPENER = regex(
    r"(?:^|[.!?;:\n(—–*}$)\]])[\s*_(—–-]{0,8}(?:(?:but|oh,?|hm{1,4},?|no,?|and)\s{1,4}){0,3}"
    r"(?:wait|actually|correction|oops|whoops|sorry|scratch that|on second thoughts?|i mean|rather|my mistake|my bad|apologies"
    r"|i (?:made|see|notice|found|have made) (?:a|an|my|the) (?:mistake|error)|let me correct|i (?:was|am) wrong"
    r"|that(?:'s|’s| is| was) (?:wrong|incorrect|not (?:right|correct))|no(?=[,.:!]))\b",
    re.IGNORECASE,
)
_ANSWER = (
    r"(?:\$[^$\n]+\$|\\\([^\n]+?\\\)|\*\*[^*\n]+\*\*|(?-i:\([A-J]\)|[A-J](?![A-Za-z'’]))|[-−]?\\?\$?\.?\d[^\s;!?]*)"
)
_CLAIM = regex(
    r"(?:(?:\b(?:it|that|this|answer|result|value|option|choice)"
    r"(?:'s|’s|\s+is|\s+are|\s+equals|\s+(?:should|must|has to|ought to)(?:\s+be|\s+have\s+been))"
    r"|\bmake (?:that|it)|\bi (?:mean|meant)|\bcorrection\s*[:,—–-]?|\bno,|\brather,?)"
    r"\s*:?\s*(?:actually\s+|really\s+|in fact\s+|instead\s+|simply\s+|equal to\s+|option\s+|choice\s+)*)"
    rf"(?P<claim>{_ANSWER})(?=\s*(?:[.,;:!)\n]|$|(?:because|since|as|not|and|so|instead|rather)\b))",
    re.IGNORECASE,
)
# "Wait, 6.": the answer itself behind the word, and nothing more.
_BARE_CLAIM = regex(
    rf"\b(?:wait|actually|sorry|oops|whoops|correction|scratch that|rather|no)[,;:]?\s+(?P<claim>{_ANSWER})(?=\s*(?:[.!\n]|$))",
    re.IGNORECASE,
)
_WRONG = regex(
    r"\b(?:wrong|incorrect|not (?:right|correct|it|the answer)|mistake|mistaken|scratch that|error|miscalculated|misread)\b",
    re.IGNORECASE,
)
_AFFIRMED = regex(
    r"\b(?:no (?:mistake|error)|not (?:wrong|incorrect|a mistake)|is (?:correct|right)|still|indeed|confirm)",
    re.IGNORECASE,
)
_REACH = 2_000  # characters behind an answer in which it is taken back


def may_be_taken_back(text: str, start: int) -> bool:
    """Whether words that open a correction stand behind `start`: a quick look before the box's end is sought."""
    return _OPENER.search(text, start, start + 4 * _REACH) is not None


def correction(behind: str, answer: str) -> str | None:
    """What the text behind an answer claims in its place: "" if it only takes the answer back, None if it lets it stand."""
    text = behind[:_REACH]
    opened = _OPENER.search(text)
    if opened is None:
        return None
    rest = text[opened.start() :]
    found = sorted((*_CLAIM.finditer(rest), *_BARE_CLAIM.finditer(rest)), key=lambda claim: claim.end())
    claims = [claim["claim"].rstrip(".,:") for claim in found]
    if claims:
        return None if same_claim(claims[-1], answer) else claims[-1]
    return "" if _WRONG.search(rest) and not _AFFIRMED.search(rest) else None


def same_claim(one: str, other: str) -> bool:
    """Whether two answers are the same text but for delimiters, brackets and closing signs."""
    return _bare(one) == _bare(other)


def _bare(text: str) -> str:
    """An answer without delimiters, brackets and closing signs."""
    return re.sub(r"[\s$*(){}\\.,]|\\[()]", "", text).lower()
