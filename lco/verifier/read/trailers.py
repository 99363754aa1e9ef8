"""What may stand behind a formula: "for all x ∈ ℝ", "where m ≠ 0", "for some real c"."""

from __future__ import annotations

import re
from typing import NamedTuple

from lco.verifier.patterns import regex
from lco.verifier.read.words import unwrap

_KEYWORD = regex(
    r"[,;]?\s*(?:\\(?:text|mbox|textrm|mathrm|textnormal)\s*\{\s*,?\s*(?=for\b|where\b|when\b|whenever\b|if\b|with\b|such that\b)"
    r"|(?<=[\s,;)}\d])(?=(?:for|where|when|whenever|if|with|such that)\b))"
)
_QUANTIFIER = regex(r"[,;]?\s*\\(forall|exists)(?![a-zA-Z])\s*")
_IN_BRACKETS = regex(r"\(\s*((?:\\text\s*\{\s*for all\s*\})?\s*[A-Za-z]\s*\\in\s*\\mathbb\s*\{?\s*[A-Z]\s*\}?)\s*\)$")
_WORDS = regex(r"(for|where|when|whenever|if|with|such that)\s*(.*)", re.DOTALL)
_LETTER = r"(?:[A-Za-z](?:_\s*\{?\s*\w+\s*\}?)?|\\(?:alpha|beta|gamma|delta|lambda|mu|theta|omega))"
_LETTERS = rf"(?P<letters>{_LETTER}(?:\s*(?:,|and|,\s*and)\s*{_LETTER})*)"
_SET = r"(?P<set>\\mathbb\s*\{?\s*[RZNQC]\s*\}?(?:\s*_?\^?\s*\{?[+*>0]*\}?)?|[RZNQC]\b)"
_KIND = (
    r"(?P<kind>(?:positive\s+(?=integer)|(?:real|integer|rational|natural|whole|complex|arbitrary|fixed|free|constant|possible)s?\s+"
    r"|numbers?\s+|values?\s+(?:of\s+)?)*)"
)
_WHAT_IT_IS = regex(rf",\s*(?={_LETTER}\s*(?:\\text\s*\{{\s*)?(?:is|are)\b)")
_DOMAINS = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}
_KINDS = {
    "real": "reals",
    "integer": "integers",
    "natural": "naturals",
    "rational": "rationals",
    "complex": "complexes",
}


class Trailer(NamedTuple):
    """What a trailer says: which letters it declares, of what domain ("" if it names none); or a condition, as text."""

    letters: tuple[str, ...]
    domain: str
    condition: str


_NATURES = "real|integer|rational|natural|arbitrary|fixed|free|constant"
_QUANTIFIED = regex(
    rf"(?:all|any|every|each|some|an?|arbitrary)?\s*{_KIND}{_LETTERS}\s*(?:(?:\\in|in)\s*{_SET})?", re.IGNORECASE
)  # `all x ∈ ℝ` behind "for"
_DESCRIBED = regex(
    rf"{_LETTERS}\s*(?:(?:is|are)\s*(?:an?|any|some|all)?\s*(?P<kind>(?:(?:{_NATURES})s?\s*|numbers?\s*|of integration\s*)+)"
    rf"|\\in\s*{_SET})",
    re.IGNORECASE,
)  # `c is a constant` behind "where"


def declares(text: str) -> bool:
    """Whether a text has signs that only a trailer has: ∀, ∃, `(x ∈ ℝ)` at its end."""
    return ("\\in" in text and _IN_BRACKETS.search(text) is not None) or _QUANTIFIER.search(text) is not None


def split_trailer(text: str) -> tuple[str, Trailer] | None:
    """The formula and what its trailer says, None where there is no trailer that is understood."""
    text = _QUANTIFIER.sub(lambda found: f" \\text{{for {'all' if found[1] == 'forall' else 'some'} }}", text)
    text = _WHAT_IT_IS.sub(", where ", text)
    text = _IN_BRACKETS.sub(r" \\text{for all } \1", text)
    for found in _KEYWORD.finditer(text):
        main, rest = text[: found.start()].strip(), unwrap(text[found.start() :]).strip(" ,;")
        words = _WORDS.fullmatch(rest)
        if not main or not words or len(rest) > 200:
            continue
        return main, _trailer(words[1], words[2].strip())
    return None


def _trailer(keyword: str, rest: str) -> Trailer:
    plain = re.sub(r"\s+", " ", rest).rstrip(".")
    found = _QUANTIFIED.fullmatch(plain) if keyword == "for" else None
    found = found or (_DESCRIBED.fullmatch(plain) if keyword in ("where", "for", "with") else None)
    if not found:
        return Trailer((), "", rest)
    letters = re.split(r"\s*(?:,\s*and|,|and)\s+|,", found["letters"])
    names = tuple(re.sub(r"[\s{}\\]", "", letter) for letter in letters if letter.strip())
    letter = re.search(r"[RZNQC]", found["set"]) if found["set"] else None
    if letter and re.search(r"[+*>0]", found["set"]):
        return Trailer((), "", rest)
    if "positive" in (found["kind"] or ""):
        return Trailer(names, "naturals", "")
    named = next((domain for kind, domain in _KINDS.items() if kind in (found["kind"] or "").lower()), "")
    return Trailer(names, _DOMAINS[letter[0]] if letter else named, "")
