"""Units in a row of tokens: the currency before an amount, the unit or label behind it."""

from __future__ import annotations

import re

from lco.verifier.read.cursor import Cursor, plain
from lco.verifier.read.names import is_word
from lco.verifier.read.tokens import Token
from lco.verifier.read.units import CANONICAL, CURRENCY_CODES, CURRENCY_SIGNS, read_unit
from lco.verifier.tree import Node, UnreadableError

_NO_UNITS = frozenset(("and", "or", ", and", "and,", ", or", "or,", "和", "与", "或", "或者", "mod", "modulo"))


class Units:
    """Reads units from a cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def currency(self) -> str:
        """The currency that stands before an amount; "" if there is none."""
        token = self.cursor.peek
        name = token.text.strip()
        if token.kind == "text" and name and name in CURRENCY_SIGNS:
            self.cursor.take()
            return CANONICAL[name]
        following = self.cursor.ahead()
        if token.kind in ("text", "letters") and name == "US" and following.text == "$":
            self.cursor.take()
            self.cursor.take()
            return "$"
        if token.kind in ("text", "letters") and name.rstrip(".") in CURRENCY_CODES:
            dotted = following.kind == "sign" and following.text == "."
            if following.kind == "num" or (dotted and self.cursor.ahead(2).kind == "num"):
                self.cursor.take()
                if dotted:
                    self.cursor.take()
                return CANONICAL[name.rstrip(".").lower()]
        return ""

    def behind(self, node: Node) -> tuple[Node, str]:
        """The value and its unit or label; "" if there is none. A C or F behind a degree sign names the scale."""
        negative = node.kind == "neg"
        inner = node.args[0] if negative else node
        token = self.cursor.peek
        if inner.kind == "degree" and token.kind in ("letters", "text") and token.text in ("C", "F"):
            self.cursor.take()
            value = inner.args[0]
            return Node("neg", None, (value,)) if negative else value, f"°{token.text}"
        return node, self._unit(_counts_one(inner))

    def at_quotient(self) -> bool:
        """Whether a fraction of units stands at the place."""
        cursor = self.cursor
        return cursor.at_command("frac") and cursor.ahead().text == "{" and cursor.ahead(2).kind == "text"

    def _unit(self, single: bool) -> str:
        """Words, signs between them, exponents; only what belongs to one unit."""
        start = self.cursor.at
        words: list[str] = []
        upright = False
        while (word := self._next(words)) is not None:
            token = self.cursor.tokens[self.cursor.at - 1]
            if upright and token.kind == "letters" and not _is_upright(token.text):
                raise UnreadableError(f"the letters {token.text!r} behind the words {' '.join(words)!r} are a factor")
            upright = upright or token.kind == "text"
            words.append(word)
        if not words:
            return ""
        unit = read_unit(" ".join(words).replace("^ ", "^"), single)
        if unit is None:
            self.cursor.at = start
            raise UnreadableError(f"the words {' '.join(words)!r} are no unit")
        return unit

    def _next(self, words: list[str]) -> str | None:
        """The next piece of the unit, taken; None at its end."""
        cursor = self.cursor
        token = cursor.peek
        if self._is_word(token):
            return cursor.take().text
        if not words:
            return self._quotient() if self.at_quotient() else None
        if cursor.at_sign("^") and words[-1][-1:].isalpha():
            cursor.take()
            negative = cursor.at_sign("-")
            if negative:
                cursor.take()
            exponent = plain(cursor.group())
            if not re.fullmatch(r"-?\d", exponent):
                raise UnreadableError("a unit to a power that is no small number")
            return "^" + ("-" if negative else "") + exponent
        if token.kind == "num" and not token.spaced and token.text in ("2", "3") and words[-1].isalpha():  # cm2
            return "^" + cursor.take().text
        if token.kind == "sign" and token.text in "/*" and self._is_word(cursor.ahead()):
            return cursor.take().text
        if token.kind == "sign" and token.text in ".-":
            return cursor.take().text
        return None

    def _is_word(self, token: Token) -> bool:
        return token.kind in ("text", "letters") and token.text.strip().lower() not in _NO_UNITS

    def _quotient(self) -> str | None:
        """`\\frac{\\text{km}}{\\text{h}}` behind a value, as km/h."""
        cursor = self.cursor
        start = cursor.at
        cursor.take()
        upper, lower = cursor.group(), cursor.group()
        if upper and lower and all(token.kind == "text" for token in (*upper, *lower)):
            return f"{plain(upper)} / {plain(lower)}"
        cursor.at = start
        return None


def _is_upright(run: str) -> bool:
    """Whether letters that stand outside of the text with which a unit began may belong to it all the same."""
    return len(run) == 1 or run.lower() in CANONICAL or is_word(run, after_value=True) or read_unit(run) == run


def _counts_one(value: Node) -> bool:
    """Whether the number counts no more than one thing: 1, 1/2, 0.4."""
    if value.kind == "div" and all(part.kind == "num" for part in value.args):
        return abs(value.args[0].value) <= abs(value.args[1].value)
    return value.kind == "num" and abs(value.value) <= 1
