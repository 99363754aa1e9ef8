"""Numbers in English words: "twenty-five", "three quarters", "two and a half", "minus six"."""

from __future__ import annotations

from fractions import Fraction

_ONES = {
    word: value
    for value, word in enumerate(
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen"
        ).split()
    )
}
_TENS = {
    word: 10 * value for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_ILLIONS = (
    "million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion undecillion "
    "duodecillion tredecillion quattuordecillion quindecillion sexdecillion septendecillion octodecillion novemdecillion "
    "vigintillion"
).split()
_SCALES = {
    "thousand": 10**3, "lakh": 10**5, "lac": 10**5, "crore": 10**7, "milliard": 10**9, "myriad": 10**4, "googol": 10**100,
    "centillion": 10**303, **{name: 10 ** (3 * at + 3) for at, name in enumerate(_ILLIONS, 1)},
}  # fmt: skip
# Words behind digits that multiply them.
MULTIPLIERS = {"hundred": 100, "dozen": 12, **_SCALES}
# Short forms, set upright behind digits.
SHORT_MULTIPLIERS = {"grand": 10**3, "mil": 10**6, "mn": 10**6, "mln": 10**6, "mio": 10**6, "bn": 10**9, "bln": 10**9,
                     "tn": 10**12, "trn": 10**12, "tril": 10**12, "bil": 10**9}  # fmt: skip
PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "sixteenth": 16, "twentieth": 20, "hundredth": 100,
    "thousandth": 1000, "millionth": 10**6, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "seventeenth": 17,
    "eighteenth": 18, "nineteenth": 19, "thirtieth": 30, "fortieth": 40, "fiftieth": 50, "sixtieth": 60, "seventieth": 70,
    "eightieth": 80, "ninetieth": 90, "ten-thousandth": 10**4, "hundred-thousandth": 10**5, "billionth": 10**9,
    "trillionth": 10**12,
}  # fmt: skip
_WORDS = frozenset((*_ONES, *_TENS, *_SCALES, "hundred", "dozen", "and", "a", "an", "minus", "negative", "point"))


def read_cardinal(words: str) -> Fraction | None:
    """The value of a number in words, None where they are none. Articles may stand before hundred, half and the like."""
    parts = words.lower().replace("-", " ").split()
    if not parts or len(parts) > 20:
        return None
    negative = parts[0] in ("minus", "negative")
    value = _amount(parts[1:] if negative else parts)
    return None if value is None else -value if negative else value


def _amount(parts: list[str]) -> Fraction | None:
    """A whole number, a fraction, or both joined by "and"."""
    if not parts:
        return None
    if parts[-1].removesuffix("s") in PARTS or parts[-1] in PARTS:
        below = PARTS.get(parts[-1]) or PARTS[parts[-1].removesuffix("s")]
        if "and" in parts:
            at = len(parts) - 1 - parts[::-1].index("and")
            whole, part = _whole(parts[:at]), _amount(parts[at + 1 :])
            return None if whole is None or part is None or part >= 1 else whole + part
        alone = parts in (["half"], ["quarter"])  # "third" alone is a place in a row
        above = 1 if alone or parts[:-1] in (["a"], ["an"]) else _whole(parts[:-1])
        return None if not above else Fraction(above, below)
    if "point" in parts:
        at = parts.index("point")
        whole, digits = _whole(parts[:at]), [_ONES.get(part, 10) for part in parts[at + 1 :]]
        if whole is None or not digits or max(digits) > 9:
            return None
        return whole + Fraction(int("".join(map(str, digits))), 10 ** len(digits))
    value = _whole(parts)
    return None if value is None else Fraction(value)


def _whole(parts: list[str]) -> int | None:
    """A whole number: "two thousand three hundred and five"."""
    if not parts or any(part not in _WORDS for part in parts) or parts[-1] in ("and", "a", "an"):
        return None
    total, group, seen = 0, 0, False
    limit = 10**400
    for part in parts:
        if part in _ONES or part in _TENS:
            value = _ONES.get(part, _TENS.get(part, 0))
            if group % 100 and (part in _TENS or group % 10 or group % 100 < 20 or value == 0 or value > 9):
                return None
            group, seen = group + value, True
        elif part in ("hundred", "dozen"):
            if group >= 100:
                return None
            group, seen = (group or 1) * (100 if part == "hundred" else 12), True
        elif part in _SCALES:
            if _SCALES[part] >= limit:
                return None
            limit = _SCALES[part]
            total, group, seen = total + (group or 1) * limit, 0, True
        elif part in ("minus", "negative", "point") or (part == "and" and not seen):
            return None
    return total + group if seen else None
