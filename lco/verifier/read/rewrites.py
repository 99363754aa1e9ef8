"""Ways of writing a formula that the grammar does not know, put into the way that it knows; text in, text out."""

from __future__ import annotations

import re

from lco.verifier.read.cardinals import PARTS
from lco.verifier.read.units import MULTIPLIERS

_TIMES_TEN = re.compile(r"(?<=[\d.])\s*[xX]\s*10\s*(?=\^)")
_CALL_PREFIX = re.compile(r"\b(?:np|math|numpy|sp|sympy)\.(?=[a-z])")
_UPRIGHT_E = re.compile(r"(?<=\d)\s*\\(?:text|mathrm|textrm)\s*\{\s*[eE]\s*\}\s*(?=[+-]?\d)")
_MODULUS = re.compile(r"\\(?:text|mathrm)\s*\{\s*\(?\s*mod(?:ulo)?\s+(\d+)\s*\)?\s*\}")
_OPENING = r"(?<=\d)\s*(\\(?:text|mathrm|mbox|textrm)\s*\{)?\s*"
_MULTIPLIER = re.compile(_OPENING + r"(tens|(?:" + "|".join(MULTIPLIERS) + r")s?)\b", re.IGNORECASE)
_PART = re.compile(
    _OPENING + r"(?:-\s*)?(" + "|".join((*PARTS, *(f"{name}s" for name in PARTS))) + r")\b(?=\s*(?:\}|$))",
    re.IGNORECASE,
)
# 9C3, _9C_3, {}^9C_3 and C_9^3 are ways of writing 9 over 3; the last one is the grammar's.
_CHOOSE = re.compile(
    r"(?:(?:\{\s*\})?\s*[_^]\s*\{?\s*(\d+)\s*\}?|(?<![\w.}])(\d+))\s*(?:\\mathrm\s*\{\s*C\s*\}|C)\s*_?\s*\{?\s*(\d+)\s*\}?(?![\w^])"
)
_POWER_IN_WORDS = re.compile(r"(-?\d+(?:\.\d+)?|[a-zA-Z])\s+(squared|cubed|factorial)", re.IGNORECASE)
_BELOW_ZERO = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\^\s*\\circ|degrees?)?\s*below zero", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?:negative|minus)\s+(?=[\d.\\])(.*)", re.IGNORECASE | re.DOTALL)
_CHOOSE_IN_WORDS = re.compile(r"(\w+)\s+choose\s+(\w+)", re.IGNORECASE)
_POWERS = {"squared": "^2", "cubed": "^3", "factorial": "!"}
_SINGLE_UNIT = re.compile(
    r"(?<=[\d}])\s+([msghLNJWV])(\s*\^\s*\{?[23]\}?)?$|(?<=\\pi)\s+([msgh])(\s*\^\s*\{?[23]\}?)?$"
)
_QUOTIENT_UNIT = re.compile(
    r"(?<=[\d}])\s*((?:k|c|m)?[mg]|mi|ft|[LJNW])\s*/\s*(h|hr|s|min|[km]?g|[cm]?m\s*\^?\s*\{?[23]?\}?|s\s*\^\s*\{?2\}?)$"
)
_CHOSEN = re.compile(r"(?<![A-Za-z\\_])C\s*\(\s*([^(),;]+?)\s*,\s*([^(),;]+?)\s*\)")
_POINT = re.compile(r"[A-Z]'?\s*(\((?:[^()]|\([^()]*\))+,(?:[^()]|\([^()]*\))+\))")
_OHM = re.compile(r"(?<=\d)\s*(k|M)?\s*\\Omega$")


def rewritten(text: str) -> str:
    """The formula in the grammar's own notation."""
    if "." in text:
        text = _CALL_PREFIX.sub("", text)
    text = _TIMES_TEN.sub(r"\\times 10", text)
    if "C" in text:
        text = _CHOOSE.sub(lambda found: f"\\binom{{{found[1] or found[2]}}}{{{found[3]}}}", text)
    if not re.search(r"[A-Za-z]{3}", text):
        return text
    text = _UPRIGHT_E.sub("e", text)
    text = _MODULUS.sub(r"\\pmod{\1}", text)
    text = _MULTIPLIER.sub(lambda found: f"\\times {_multiplier(found[2])} {found[1] or ''}", text)
    return _PART.sub(lambda found: f"\\times \\frac{{1}}{{{_part(found[2])}}} {found[1] or ''}", text)


def otherwise(text: str) -> str | None:
    """Another reading of a capital letter before brackets: C(9,3) chooses, and P(2,5) is a point with its name."""
    chosen = _CHOSEN.sub(r"\\binom{\1}{\2}", text)
    if chosen != text:
        return chosen
    point = _POINT.fullmatch(text)
    return point[1] if point else None


def _multiplier(word: str) -> int:
    return (
        10 if word.lower() == "tens" else MULTIPLIERS.get(word.lower()) or MULTIPLIERS[word.lower().removesuffix("s")]
    )


def _part(word: str) -> int:
    return PARTS.get(word.lower()) or PARTS[word.lower().removesuffix("s")]


def in_words(plain: str) -> str | None:
    """`6 squared`, `9 below zero`, `negative 5`, `5 choose 2` in signs: words that change the value; None for other texts."""
    if found := _POWER_IN_WORDS.fullmatch(plain):
        return f"({found[1]}){_POWERS[found[2].lower()]}"
    if found := _BELOW_ZERO.fullmatch(plain):
        return f"-{found[1]}"
    if found := _NEGATIVE.fullmatch(plain):
        return f"-{found[1]}"
    if found := _CHOOSE_IN_WORDS.fullmatch(plain):
        return f"\\binom{{{found[1]}}}{{{found[2]}}}"
    return None


def with_unit(text: str) -> str | None:
    """The formula with the letters at its end set as a unit (`5 m`, `72 km/h`, `8 Ω`), None where they cannot be one."""
    single = _SINGLE_UNIT.sub(lambda found: f" \\text{{{found[1] or found[3]}{found[2] or found[4] or ''}}}", text)
    if single != text:
        return re.sub(r"\\text\{([a-zA-Z]+)\s*\^\s*\{?([23])\}?\}", r"\\text{\1^\2}", single)
    quotient = _QUOTIENT_UNIT.sub(lambda found: f" \\text{{{found[1]}/{re.sub(r'[ {}]', '', found[2])}}}", text)
    if quotient != text:
        return quotient
    ohm = _OHM.sub(lambda found: f" \\text{{{found[1] or ''}Ω}}", text)
    return ohm if ohm != text else None
