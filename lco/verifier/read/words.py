"""Answers that are words: names, yes and no, choice letters, "no solution", times and dates."""

from __future__ import annotations

import re
from fractions import Fraction

from lco.verifier.patterns import regex
from lco.verifier.read.cardinals import PARTS, read_cardinal
from lco.verifier.read.choices import read_choice
from lco.verifier.read.units import CANONICAL
from lco.verifier.tree import INFINITY, MINUS_INFINITY, Node, number

_NOTHING = frozenset(
    (
        "no solution|no solutions|none|empty set|empty|there is no solution|there are no solutions|null set|"
        "has no solution|no real solution|no real solutions|there are no real solutions|no solution exists|"
        "no solutions exist|solution set is empty|no such solution|no answer exists|"
        "无解|无实数解|空集"
    ).split("|")
)
_REALS = frozenset(
    (
        "all real numbers|all reals|set of all real numbers|any real number|every real number|all real|real numbers|"
        "set of real numbers|all real x|all real values|all real values of x|"
        "all x|全体实数|任意实数|一切实数"
    ).split("|")
)
_ALIKE = {
    "infinity": INFINITY, "positive infinity": INFINITY, "infinite": Node("text", "infinite"),
    "negative infinity": MINUS_INFINITY, "minus infinity": MINUS_INFINITY, "dne": Node("text", "does not exist"),
    "does not exist": Node("text", "does not exist"), "doesnt exist": Node("text", "does not exist"),
    "不存在": Node("text", "does not exist"), "无穷大": INFINITY, "正无穷": INFINITY, "负无穷": MINUS_INFINITY,
    "limit does not exist": Node("text", "does not exist"), "not defined": Node("text", "undefined"),
    "infinitely many solutions": Node("text", "infinitely many"), "infinitely many": Node("text", "infinitely many"),
    "noon": Node("time", (12, 0, 0, "pm")), "midnight": Node("time", (12, 0, 0, "am")),
}  # fmt: skip
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTHS = "january february march april may june july august september october november december".split()
_SHORT = {name[:3]: name for name in (*_DAYS, *_MONTHS)} | {
    "tues": "tuesday",
    "thur": "thursday",
    "thurs": "thursday",
    "sept": "september",
}
_EXCEPTION = r"(?i)" + (
    r"(?:all|every|any) real(?:s| numbers?| values?)?(?: (?:of )?[a-z])?,? (?:except|excluding|other than|but)(?: for)?\s+"
    r"(?:[a-z]\s*=\s*)?(-?[\w./]+(?:(?:,| and| or|, and)\s+-?[\w./]+)*)"
)
_TAKES_BACK = {
    "yes": regex(r"\b(?:no|not|never|but|or|maybe|however|unless|if|neither|cannot)\b|n't|\?", re.IGNORECASE),
    "no": regex(r"\b(?:yes|but|or|maybe|however|unless|if)\b|\?", re.IGNORECASE),
}
_TEXT = regex(
    r"\\(?:text|mbox|textbf|textrm|textnormal|textsf|texttt|mathrm|textit|emph|operatorname)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_CLOCK = regex(r"(\d{1,2})\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?\s*(?:(a|p)\s*\.?\s*m\b\.?)?(?:\s*o'?clock)?", re.IGNORECASE)
_HOUR = regex(r"(\d{1,2})\s*(?:o'?clock)?\s*(?:(a|p)\s*\.?\s*m\b\.?)", re.IGNORECASE)
_MONTH = "(" + "|".join(sorted({*_MONTHS, *(m[:3] for m in _MONTHS), "sept"}, key=len, reverse=True)) + r")\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:\s*,?\s+(?P<year>\d{4}))?"
_DATE = (
    regex(rf"{_MONTH}\s+{_DAY}{_YEAR}", re.IGNORECASE),
    regex(rf"(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}{_YEAR}", re.IGNORECASE),
)
_AMOUNT = regex(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_AMOUNTS = regex(r"(?:\d+(?:\.\d+)?\s*[A-Za-z]+[\s,]*(?:and\s+)?){2,4}")


def unwrap(text: str) -> str:
    """The text with `\\text{…}` replaced by what it holds."""
    return _TEXT.sub(r"\1", text)


def canonical(text: str) -> str:
    """Words as they are compared: lower case, no articles, no punctuation, days and months in full."""
    words = re.sub(r"[^\w\s+%]", " ", re.sub(r"['’]", "", unwrap(text).lower())).replace("_", " ").split()
    kept = [word for word in words if word not in ("a", "an", "the")] or words
    return " ".join(_SHORT.get(word, word) for word in kept)


def read_words(text: str) -> list[Node]:
    """The readings of a cleaned text as words, the likeliest first; empty if it is none that is known here."""
    plain = unwrap(text).strip()
    exception = re.fullmatch(_EXCEPTION, plain)
    if exception:
        values = [read_number(value) for value in re.split(r"\s*(?:,|\band\b|\bor\b)\s*", exception[1]) if value]
        if None not in values:
            points = tuple(number(value) for value in values if value is not None)
            return [Node("minus", None, (Node("reals"), Node("set", None, points)))]
    fixed = _fixed(canonical(plain), plain) if plain.lstrip("( ")[:1].isalpha() else []
    return fixed or _clock(plain) or _date(plain) or _compound(plain) or read_choice(plain)


def read_number(text: str) -> Fraction | None:
    """A plain number in digits or words."""
    if re.fullmatch(r"-?\d+(?:\.\d+)?(?:/[1-9]\d*)?", text):
        return Fraction(text) if "." not in text or "/" not in text else None
    return read_cardinal(text)


def _fixed(words: str, plain: str) -> list[Node]:
    if words in _NOTHING:
        return [Node("nothing")]
    if words in _REALS:
        return [Node("reals")]
    if words in _ALIKE:
        return [_ALIKE[words]]
    if words in _DAYS or words in _MONTHS:
        return [Node("text", words)]
    value = read_cardinal(plain if words in PARTS else words)  # "a third" is a part, "the third" a place
    return [] if value is None else [number(value), Node("text", words)]


def _clock(plain: str) -> list[Node]:
    found = _CLOCK.fullmatch(plain)
    if found:
        hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
        half = f"{found[4].lower()}m" if found[4] else ""
        time = Node("time", (hour, minute, second, half))
        if half or found[2][0] == "0" or (found[3] or "1")[0] == "0":  # only times are written 8:04
            return [time]
        parts = [number(hour), number(minute), *([number(second)] if found[3] else [])]
        ratio = Node("ratio", None, tuple(parts))
        return [time, ratio] if hour <= 24 and max(minute, second) < 60 else [ratio]
    found = _HOUR.fullmatch(plain)
    return [Node("time", (int(found[1]), 0, 0, f"{found[2].lower()}m"))] if found else []


def _date(plain: str) -> list[Node]:
    for pattern in _DATE:
        found = pattern.fullmatch(plain)
        if found:
            month = next(group for group in found.groups() if group and group[0].isalpha()).lower()
            year = found["year"]
            return [Node("date", (_SHORT[month[:3]], int(found["day"]), int(year) if year else None))]
    return []


def _compound(plain: str) -> list[Node]:
    """`3 hours 20 minutes`: amounts of different units that are added up."""
    if not _AMOUNTS.fullmatch(plain):
        return []
    amounts = [(Fraction(amount), CANONICAL.get(unit, "")) for amount, unit in _AMOUNT.findall(plain)]
    kinds = {unit for _, unit in amounts}
    if len(amounts) < 2 or len(kinds) < len(amounts) or "" in kinds:
        return []
    return [Node("compound", tuple(amounts))]


def yes_or_no(plain: str) -> str:
    """`Yes, it is` as its first word; "" where there is none, or where what follows takes it back."""
    found = re.fullmatch(r"(yes|no)\s*[,;.:–-]\s*(.+)", plain, re.IGNORECASE | re.DOTALL)
    if not found or _TAKES_BACK[found[1].lower()].search(found[2]):
        return ""
    return found[1].lower()


def same_time(one: tuple[int, int, int, str], other: tuple[int, int, int, str]) -> bool:
    """Clock times agree, also 1:58 pm with 13:58; a missing half of the day is no contradiction."""
    if one[3] and other[3]:
        return _seconds(one) == _seconds(other)
    if one[:3] == other[:3]:
        return True
    return (bool(one[3]) != bool(other[3])) and _seconds(one) == _seconds(other)


def _seconds(time: tuple[int, int, int, str]) -> int:
    hour, minute, second, half = time
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return (hour * 60 + minute) * 60 + second


def is_prose(text: str) -> bool:
    """Whether the text consists of words alone and at least one is a real word."""
    plain = unwrap(text)
    if not re.fullmatch(r"[A-Za-zÀ-ÿ0-9 ,.'’\-_/&]+", plain) or not re.search(r"[A-Za-z]{2}", plain):
        return False
    return not re.fullmatch(r"[\d.,\s]*", plain)


_SPEECH = regex(
    r"\b(?:i(?:'m|'ll|'ve)|i (?:am|can|do|did|could|have|think|will|would|was|guess)|we|you|let|be|so|cannot"
    r"|(?:ca|do|is|could)n't|unable|unsure|needs?|see|know|think|guess|solve|please|sorry)\b",
    re.IGNORECASE,
)


def is_speech(text: str) -> bool:
    """Whether the text is words of somebody who speaks, and names nothing: "I cannot solve this", "So we", "Let x be".

    >>> is_speech("see above"), is_speech("Monday"), is_speech("I and II"), is_speech("the first of May")
    (True, False, False, False)
    """
    plain = unwrap(text).replace("’", "'")
    return (
        is_prose(text) and len(plain.split()) > 1 and not re.search(r"\d", plain) and _SPEECH.search(plain) is not None
    )
