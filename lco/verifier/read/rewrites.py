"""Ways of writing a formula that the grammar does not know, put into the way that it knows; text in, text out.

Patterns that few texts need stand as strings: they are compiled when they are first wanted, for a quick start.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from lco.verifier.patterns import regex
from lco.verifier.read.cardinals import MULTIPLIERS, PARTS, SHORT_MULTIPLIERS, read_cardinal

_REWRITABLE = regex(r"[A-Za-z万亿]{2}|[C=]|(?<=[\d.])\s*[xX]\s*10|[万亿]")
_WORDY = regex(r"[A-Za-z]{3}")
_CAPITAL = regex(r"[ACP]")
_TIMES_TEN = regex(r"(?<=[\d.])\s*[xX]\s*10\s*(?=\^)")
_CALL_PREFIX = r"\b(?:np|math|numpy|sp|sympy)\.(?=[a-z])"
_UPRIGHT_E = r"(?<=\d)\s*\\(?:text|mathrm|textrm)\s*\{\s*[eE]\s*\}\s*\{?\s*([+-]?\d+)\s*\}?"
_MODULUS = r"\\(?:text|mathrm)\s*\{\s*\(?\s*mod(?:ulo)?\s+(\d+)\s*\)?\s*\}"
_MYRIADS = r"(?<=\d)\s*(万|亿)"
_OPENING = r"(?<=\d)\s*(\\(?:text|mathrm|mbox|textrm)\s*\{)?\s*"
_MULTIPLIER = rf"(?i){_OPENING}(tens|(?:{'|'.join(MULTIPLIERS)})s?)\b"
_SHORT = "|".join((*SHORT_MULTIPLIERS, *(name.capitalize() for name in SHORT_MULTIPLIERS)))
_SHORT_MULTIPLIER = (
    rf"(?<=\d)\s*(\\(?:text|mathrm|mbox|textrm)\s*\{{)\s*(?!(?:grand|mil)\s+[a-z])({_SHORT})\b\.?(?=\s*[}}A-Za-z])"
)
_PART = (
    rf"(?i){_OPENING}(?:-\s*)?(halves|(?:{'|'.join(name for name in PARTS if name != 'halves')})s?)\b(?=\s*(?:\}}|$))"
)
# 9C3, _9C_3, {}^9C_3 and C_9^3 are ways of writing 9 over 3; the last one is the grammar's.
_CHOOSE = (
    r"(?:(?:\{\s*\})?\s*[_^]\s*\{?\s*(\d+)\s*\}?|(?<![\w.}])(\d+))\s*"
    r"(?:\\mathrm\s*\{\s*C\s*\}|C)\s*_?\s*\{?\s*(\d+)\s*\}?(?![\w^])"
)
_UPRIGHT_LETTER = r"\\(?:mathrm|text|operatorname)\s*\{\s*([CP])\s*\}"
_CHOSEN = r"(?<![A-Za-z\\_])C\s*\(\s*([^(),;]+?)\s*,\s*([^(),;]+?)\s*\)"
_CHOSEN_BELOW = r"(?<![A-Za-z\\_])C\s*\^\s*\{?\s*(\d+)\s*\}?\s*_\s*\{?\s*(\d+)\s*\}?"
_ARRANGED = (
    r"(?<![A-Za-z\\_])(?:P\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)|[AP]\s*_\s*\{?\s*(\d+)\s*\}?\s*\^\s*\{?\s*(\d+)\s*\}?"
    r"|(?:\{\s*\})?\s*[_^]\s*\{?\s*(\d+)\s*\}?\s*P\s*_\s*\{?\s*(\d+)\s*\}?)"
)
_POINT = r"[A-Z]'?\s*(\((?:[^()]|\([^()]*\))+,(?:[^()]|\([^()]*\))+\))"
# P(A|B) = …, E[X] = …, \gcd(a, b) = …: the left side names what the right side is the value of.
_MEASURE = (
    r"^(?:P|\\Pr|\\mathbb\s*\{?\s*[PE]\s*\}?|E|Var|\\(?:max|min|det|gcd|dim|deg)|\\operatorname\s*\{[A-Za-z]+\}"
    r"|\\text\s*\{\s*(?:lcm|gcd|Var)\s*\})"
    r"(?:\s*(?:\(|\[|\\\{)[^()\[\]]*(?:\([^()]*\)[^()\[\]]*)*(?:\)|\]|\\\})|\s*[A-Za-z]\b)\s*=(?=[^=]*$)"
)
_CONDITION = r"[<>]|\\(?:le|ge|leq|geq|ne|neq|leqslant|geqslant)(?![a-zA-Z])|="
_SINGLE_UNIT = regex(r"(?<=[\d}])\s+([msghLNJWV])(\s*\^\s*\{?[23]\}?)?$|(?<=\\pi)\s+([msgh])(\s*\^\s*\{?[23]\}?)?$")
_QUOTIENT_UNIT = (
    r"(?<=[\d}])\s*((?:k|c|m)?[mg]|mi|ft|[LJNW])\s*/\s*(h|hr|s|min|[km]?g|[cm]?m\s*\^?\s*\{?[23]?\}?|s\s*\^\s*\{?2\}?)$"
)
_SIGN_UNIT = r"(?<=[\d}])\s*(?:(?:\\(?:text|mathrm)\s*\{\s*)?(k|M)?(?:\s*\})?\s*\\Omega|\\mu\s*([mgsFLAl]))$"
_NUMBER = r"-?\d+(?:\.\d+)?"
_IN_WORDS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (rf"({_NUMBER}|[a-z]) squared", lambda found: f"({found[1]})^2"),
    (rf"({_NUMBER}|[a-z]) cubed", lambda found: f"({found[1]})^3"),
    (rf"({_NUMBER}|[a-z]) factorial", lambda found: f"({found[1]})!"),
    (rf"({_NUMBER}|[a-z]) to the power (?:of )?({_NUMBER}|[a-z])", lambda found: f"({found[1]})^{{{found[2]}}}"),
    (rf"({_NUMBER}) times ({_NUMBER})", lambda found: f"{found[1]} \\times {found[2]}"),
    (r"(\w+) choose (\w+)", lambda found: f"\\binom{{{found[1]}}}{{{found[2]}}}"),
    (rf"({_NUMBER})\s*(?:\^\s*\\circ|degrees?)?\s*below zero", lambda found: f"-{found[1]}"),
    (r"(?:negative|minus)\s+(?=[\d.\\])(.*)", lambda found: f"-{found[1]}"),
    (r"(?:exactly|precisely|plus|just|only)\s+(?=[\d.\\])(.*)", lambda found: found[1]),
)


def rewritten(text: str) -> str:
    """The formula in the grammar's own notation."""
    if not _REWRITABLE.search(text):
        return text
    if "." in text:
        text = re.sub(_CALL_PREFIX, "", text)
    if "\\cup" in text or "\\cap" in text:
        text = _joined_conditions(text)
    text = _TIMES_TEN.sub(r"\\times 10", text)
    if "=" in text:
        text = _without_operation(re.sub(_MEASURE, lambda found: f"{_name_of(found[0])} = ", text))
    if "C" in text:
        text = re.sub(_CHOOSE, lambda found: f"\\binom{{{found[1] or found[2]}}}{{{found[3]}}}", text)
    if "万" in text or "亿" in text:
        text = re.sub(_MYRIADS, lambda found: f"\\times {10**4 if found[1] == '万' else 10**8} ", text)
    return _without_words(text) if _WORDY.search(text) else text


def _without_words(text: str) -> str:
    """Words and letters set upright that change the number before them, written as factors."""
    text = re.sub(_UPRIGHT_E, r"e\1", text)
    text = re.sub(_MODULUS, r"\\pmod{\1}", text)
    text = re.sub(_MULTIPLIER, lambda found: f"\\times {_multiplier(found[2])} {found[1] or ''}", text)
    text = re.sub(_SHORT_MULTIPLIER, lambda found: f"\\times {SHORT_MULTIPLIERS[found[2].lower()]} {found[1]}", text)
    return re.sub(_PART, lambda found: f"\\times \\frac{{1}}{{{_part(found[2])}}} {found[1] or ''}", text)


def _multiplier(word: str) -> int:
    return (
        10 if word.lower() == "tens" else MULTIPLIERS.get(word.lower()) or MULTIPLIERS[word.lower().removesuffix("s")]
    )


def _part(word: str) -> int:
    return PARTS.get(word.lower()) or PARTS[word.lower().removesuffix("s")]


def otherwise(text: str) -> list[str]:
    """Other readings of a capital letter with numbers: C(9,3) chooses, P(9,3) arranges, and P(2,5) is a point with its name."""
    found: list[str] = []
    plain = re.sub(_UPRIGHT_LETTER, r"\1", text) if "\\" in text else text
    if _CAPITAL.search(plain):
        chosen = re.sub(_CHOSEN_BELOW, r"\\binom{\2}{\1}", re.sub(_CHOSEN, r"\\binom{\1}{\2}", plain))
        arranged = re.sub(_ARRANGED, _arrangement, plain)
        found += [variant for variant in (chosen, arranged) if variant != plain]
    point = re.fullmatch(_POINT, plain) if plain[-1:] == ")" and plain[:1].isupper() else None
    return [*found, point[1]] if point else found


def _arrangement(found: re.Match[str]) -> str:
    total, taken = (number for number in found.groups() if number is not None)
    return f"\\frac{{{total}!}}{{({total}-{taken})!}}"


def _joined_conditions(text: str) -> str:
    """`x < 1 ∪ x > 3`: a union of conditions is "or", an intersection "and"."""
    parts = re.split(r"\\(cup|cap)(?![a-zA-Z])", text)
    if not all(
        re.search(_CONDITION, part) and not re.search(r"[(\[]|\\\{|\\in(?![a-zA-Z])", part) for part in parts[::2]
    ):
        return text
    joints = [" \\text{ or } " if joint == "cup" else " \\text{ and } " for joint in parts[1::2]]
    return "".join(piece for pair in zip(parts[::2], [*joints, ""], strict=True) for piece in pair)


def _name_of(text: str) -> str:
    """A letter for what a left side names; another text is another letter."""
    squeezed = re.sub(r"[\s{}]", "", text.rstrip("= "))
    return f"P_{{{zlib.crc32(squeezed.encode())}}}"


def _without_operation(text: str) -> str:
    """`\\lim … = 5` and `\\int … = 5` state a value; what has to be worked out stands before the last =."""
    if not text.startswith(("\\lim", "\\sum", "\\int", "\\prod")):
        return text
    at = text.rfind("=")
    return f"{_name_of(text[:at])} = {text[at + 1 :]}" if text[:at].count("{") == text[:at].count("}") else text


def in_words(plain: str) -> str | None:
    """`6 squared`, `9 below zero`, `negative 5`, `5 choose 2` in signs: words that change the value; None for other texts."""
    if not _WORDY.search(plain):
        return None
    plain = " ".join(plain.split())
    for pattern, write in _IN_WORDS:
        found = re.fullmatch(pattern, plain, re.IGNORECASE | re.DOTALL)
        if found:
            return write(found)
    return _mixed_in_words(plain)


def _mixed_in_words(plain: str) -> str | None:
    """`5 and a half`"""
    found = re.fullmatch(r"(\d+)\s+and\s+([A-Za-z \-]+)", plain)
    part = read_cardinal(found[2]) if found else None
    return f"({found[1]}+\\frac{{{part.numerator}}}{{{part.denominator}}})" if found and part and part < 1 else None


def with_unit(text: str) -> str | None:
    """The formula with the letters at its end set as a unit (`5 m`, `72 km/h`, `8 Ω`), None where they cannot be one."""
    single = _SINGLE_UNIT.sub(lambda found: f" \\text{{{found[1] or found[3]}{found[2] or found[4] or ''}}}", text)
    if single != text:
        return re.sub(r"\\text\{([a-zA-Z]+)\s*\^\s*\{?([23])\}?\}", r"\\text{\1^\2}", single)
    if "/" in text:
        quotient = re.sub(_QUOTIENT_UNIT, lambda found: f" \\text{{{found[1]}/{re.sub(r'[ {}]', '', found[2])}}}", text)
        return quotient if quotient != text else None
    if "\\Omega" in text or "\\mu" in text:
        sign = re.sub(_SIGN_UNIT, _sign_unit, text)
        return sign if sign != text else None
    return None


def _sign_unit(found: re.Match[str]) -> str:
    return f" \\text{{{found[1] or ''}Ω}}" if "Omega" in found[0] else f" \\text{{μ{found[2]}}}"
