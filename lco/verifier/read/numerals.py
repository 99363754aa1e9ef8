"""Numbers as they are written: decimals, exponents, repeating and continued decimals, numerals with a base."""

from __future__ import annotations

import re
from fractions import Fraction

from lco.verifier.patterns import regex
from lco.verifier.read.cardinals import read_cardinal
from lco.verifier.read.cursor import Cursor, plain
from lco.verifier.read.tokens import Token
from lco.verifier.tree import Node, RefusedError, UnreadableError

_BASES = {"binary": 2, "ternary": 3, "quaternary": 4, "octal": 8, "decimal": 10, "hex": 16, "hexadecimal": 16}
_SUBSCRIPTED = regex(r"(?:\(\s*([0-9A-Za-z]+)\s*\)|([0-9A-Za-z]+))\s*_\s*(?:\{([^{}]*)\}|([0-9A-Za-z]))")
_DIGITS = regex(
    r"(?<![\w.}^_])\(?(\d+)\)?\s*_\s*(?:\{\s*\\(?:text|mathrm|textbf|rm)\s*\{([^{}]*)\}\s*\}|\{([^{}\\]*)\}|(\d))"
)
_IN_WORDS = regex(
    r"([0-9A-Za-z]*[0-9][0-9A-Za-z]*)[\s,]*(?:\(\s*)?(?:(?:written\s+)?in\s+)?(?:base[\s\-]*([0-9A-Za-z]+)|(binary|octal|hexadecimal))\s*\)?",
    re.IGNORECASE,
)


def read_numeral(text: str) -> list[Node]:
    """`A5_{11}`, `(52)_8`, `ff_{16}`, `2041 in base five`: digits with a base as a whole answer; empty where it is none."""
    found = _SUBSCRIPTED.fullmatch(text)
    digits, named = (found[1] or found[2], found[3] or found[4] or "") if found else ("", "")
    if not found and (found := _IN_WORDS.fullmatch(text)):
        digits, named = found[1], found[2] or found[3]
    if not found:
        return []
    base = base_named(named)
    letters = re.sub(r"\d", "", digits)
    if base is None or (letters and base <= 10) or (len(letters) == len(digits) and (len(digits) == 1 or base < 16)):
        return []
    try:
        return [numeral(digits, base)]
    except UnreadableError:
        return []


def has_foreign_digit(text: str) -> bool:
    """Whether a numeral stands in the text with a digit that its base does not have: `9_8`. It is no number."""
    if "_" not in text:
        return False
    for found in _DIGITS.finditer(text):
        base = base_named(found[2] or found[3] or found[4] or "")
        if base is not None and (base < 2 or any(int(digit) >= base for digit in found[1])):
            return True
    return False


def base_named(text: str) -> int | None:
    """The base that `8`, `(8)`, `eight`, `base 8` or `octal` names."""
    name = text.strip("() ").lower().removeprefix("base").strip(" -")
    if re.fullmatch(r"[0-9]{1,2}", name):
        return int(name)
    value = _BASES.get(name) or read_cardinal(name)
    return int(value) if value is not None and value.denominator == 1 else None


def numeral(digits: str, base: int | None) -> Node:
    """The numeral with these digits; raises UnreadableError where the base has no such digit."""
    if base is None or not 2 <= base <= 36 or len(digits) > 500:
        raise UnreadableError("a number with a subscript that is no base")
    try:
        int(digits, base)
    except ValueError:
        raise UnreadableError(f"{digits} has a digit that base {base} does not have") from None
    return Node("based", (digits.upper().lstrip("0") or "0", base))


def decimal(text: str) -> Node:
    """The exact value of a decimal; exponents beyond any use are refused before they become digits."""
    if len(text) < 300 and text.isdigit():
        return Node("num", Fraction(int(text)))
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 2000 or len(exponent) > 5 or (exponent and abs(int(exponent)) > 5000):
        raise RefusedError("too_large", f"the number {text[:20]}… is too long")
    value = Fraction(mantissa.rstrip(".") or "0")
    return Node("num", value * Fraction(10) ** int(exponent) if exponent else value)


def read_number(cursor: Cursor, token: Token) -> Node:
    """The number that begins with `token`, which has been taken."""
    node = decimal(token.text)
    following = cursor.peek
    if following.kind == "sign" and following.text == "_":
        cursor.take()
        return numeral(token.text, base_named(plain(cursor.subscript())))
    if following.kind == "command" and following.text == "dots" and "." in token.text:
        cursor.take()
        return continued(token.text)
    if "." in token.text and following.kind == "command" and following.text in ("overline", "bar", "dot"):
        cursor.take()
        return repeating(token.text, plain(cursor.group()))
    if "." in token.text and following.kind == "open" and following.text == "(" and not following.spaced:
        inner = cursor.ahead()
        if inner.kind == "num" and inner.text.isdigit() and cursor.ahead(2).text == ")":
            for _ in range(3):
                cursor.take()
            return repeating(token.text, inner.text)
    cursor.literal = token.text.isdigit()
    return node


def repeating(head: str, block: str) -> Node:
    """`0.1` with the block `6` repeating is 1/6."""
    if not block.isdigit() or len(head) + len(block) > 200:
        raise UnreadableError("a repeating decimal whose block is no digits")
    whole, _, digits = head.partition(".")
    shift = 10 ** len(digits)
    value = Fraction(int((whole or "0") + digits), shift) + Fraction(int(block), (10 ** len(block) - 1) * shift)
    return Node("num", value)


def continued(text: str) -> Node:
    """`0.333…`: exact only if a block has been written at least twice (three times for one digit)."""
    found = re.fullmatch(r"(\d*\.\d*?)(\d{1,12}?)\2+", text.rstrip("."))
    if not found or len(text.partition(".")[2].rstrip(".")) < 3:
        raise UnreadableError("a decimal that goes on without saying how")
    if len(found[2]) == 1 and not text.endswith(found[2] * 3):
        raise UnreadableError("a decimal that goes on without saying how")
    return repeating(found[1], found[2])
