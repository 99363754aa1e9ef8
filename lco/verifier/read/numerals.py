"""Numbers as they are written: decimals, exponents, repeating and continued decimals, numerals with a base."""

from __future__ import annotations

import re
from fractions import Fraction

from lco.verifier.read.cursor import Cursor, plain
from lco.verifier.read.tokens import Token
from lco.verifier.tree import Node, RefusedError, UnreadableError


def decimal(text: str) -> Node:
    """The exact value of a decimal; exponents beyond any use are refused before they become digits."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 2000 or len(exponent) > 5 or (exponent and abs(int(exponent)) > 5000):
        raise RefusedError("too_large", f"the number {text[:20]}… is too long")
    return Node("num", Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0))


def read_number(cursor: Cursor, token: Token) -> Node:
    """The number that begins with `token`, which has been taken."""
    node = decimal(token.text)
    following = cursor.peek
    if following.kind == "sign" and following.text == "_":
        cursor.take()
        base = plain(cursor.subscript())
        if not base.isdigit() or not token.text.isdigit():
            raise UnreadableError("a number with a subscript that is no base")
        return Node("based", (token.text, int(base[:4])))
    if following.kind == "command" and following.text == "dots":
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
    if cursor.at_sign(".") and cursor.ahead().text == ".":  # 0.333...
        while cursor.at_sign("."):
            cursor.take()
        return continued(token.text)
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
