"""Choice letters: `(B)`, `B.`, `(B) 12`, `B, because …`; a letter that is taken back or stands beside another is none."""

from __future__ import annotations

import re

from lco.verifier.patterns import regex
from lco.verifier.tree import Node

# How a choice was written: a small letter alone may be a variable as well, so it is a choice only against brackets.
BRACKETED, BARE, SMALL = "bracketed", "bare", "small"

_LETTER = regex(
    r"(?:(?:the )?(?:correct |right )?(?:option|choice|answer)(?: is)?:?\s*)?([(\[]?)([A-Z])([)\]]?)[.:]?",
    re.IGNORECASE,
)
_WITH_TEXT = regex(
    r"(?:(?:[Oo]ption|[Cc]hoice)\s+)?(?:\(([A-J])\)|\[([A-J])\]|([A-J])[).:](?![A-Z]\b))\s*(?:[-–—:]\s+)?(?=\S)(.+)",
    re.DOTALL,
)
_AFFIRMED = r"(?i)" + (
    r"[,;]?\s*(?:is|is the|was|must be|seems|the)?\s*(?:correct|right|true)(?: (?:answer|option|choice|one))?[.!]?"
    r"|(?:is|would be)\s+(?:the |my |our )?(?:final |correct |right )?(?:answer|option|choice)[.!]?"
)
_SAID = regex(
    r"(?:[Oo]ption |[Cc]hoice )?\(?([A-J])\)? is (?:the )?(?:correct|right)(?: (?:answer|option|choice|one))?|"
    r"(?:[Oo]ption |[Cc]hoice )?\(?([A-J])\)? is the (?:final )?answer"
)
# A verb behind the letter speaks about the option; other words may be the option's own text.
_VERB = r"(?i)" + (
    r"(?:is|isn'?t|are|was|were|can|can'?t|could|would|wouldn'?t|should|might|may|must|seems?|looks?|does|doesn'?t|has|have|will"
    r"|won'?t|cannot be (?:right|correct|true|it|the))\b"
)
_TAKEN_BACK = r"(?i)" + "|".join(
    (
        r"^\W*or\b|\bor (?:[A-J]\b|an?other|maybe)|\beither\b",  # another one is offered
        r"\b(?:wrong|incorrect|ruled out|eliminated?|excluded?|rejected?|nope)\b|\b(?:false|impossible)\W*$",
        r"\b(?:maybe|perhaps|possibly|probably|likely|guess\w*|unsure|wait|actually|instead|rather|however|but|unless)\b|\?",
        r"\bno,|\b(?:not|than) [A-J]\b|\bnot (?:correct|right|true|sure|it|the (?:answer|right|correct))\b|\bnot\W*$",
        # "(E) not enough information" is an option's text
        r"^\W*(?:not|no)\b(?! (?:enough|sufficient|possible|determinable|of|such|solution|real|change))",
    )
)
_OTHER = r"\([A-J]\)|\[[A-J]\]|(?<![A-Za-z])[A-J][).:](?!\w)|\b(?:option|choice) [A-J]\b"


def read_choice(plain: str) -> list[Node]:
    """The readings of a text that is one choice letter; the letter itself may be a variable, too."""
    affirmed = _SAID.fullmatch(plain)
    if affirmed:
        return [choice(affirmed[1] or affirmed[2], BRACKETED)]
    found = _LETTER.fullmatch(plain)
    if not found:
        return []
    brackets, letter = found[1] + found[3], found[2]
    if brackets in ("", ")") and letter.isupper() and len(plain) <= 2:
        return [choice(letter, BARE), Node("sym", letter)]
    if brackets in ("()", "[]") or len(plain) > 3:
        return [choice(letter, BRACKETED), *([Node("sym", letter)] if letter not in "ei" else [])]
    return [choice(letter, BARE)] if letter.isupper() else []


def small_choice(plain: str) -> list[Node]:
    """A small letter alone, which a reference in brackets may mean."""
    return [choice(plain, SMALL)] if re.fullmatch(r"[a-j]", plain) else []


def choice_with_text(plain: str) -> tuple[Node, str] | None:
    """`(B) 12` as its choice and its text; None where the text takes the letter back or offers another."""
    found = _WITH_TEXT.fullmatch(plain.strip())
    if not found:
        return None
    letter, text = found[1] or found[2] or found[3], found[4].strip()
    if re.fullmatch(_AFFIRMED, text) or text == "False":
        return choice(letter, BRACKETED), ""
    if re.match(_VERB, text) or re.search(_TAKEN_BACK, text) or re.search(_OTHER, text):
        return None
    if re.match(r"[,;/&|]|and\b", text) or re.fullmatch(r"[\[(]?[A-J][\])]?[.:]?", text):
        return None
    return choice(letter, BRACKETED), text


def choice(letter: str, written: str) -> Node:
    """The node of a choice letter."""
    return Node("choice", (letter.upper(), written))


def same_choice(gold: tuple[str, str], answer: tuple[str, str]) -> bool:
    """The same letter; a small one alone is a choice only where the other stands in brackets."""
    if gold[0] != answer[0]:
        return False
    return {gold[1], answer[1]} != {SMALL, BARE}
