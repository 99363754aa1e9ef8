"""What a backslash begins: fractions, roots, functions with their powers and bases, names under a mark."""

from __future__ import annotations

import re
from typing import Protocol

from lco.verifier.patterns import regex
from lco.verifier.read.brackets import Brackets, Levels
from lco.verifier.read.cursor import Cursor, plain
from lco.verifier.read.names import CONSTANTS, DOTS, FENCES, FIGURES, FUNCTIONS, GREEK, MARKS, starts_value
from lco.verifier.read.numerals import decimal
from lco.verifier.tree import INFINITY, ONE, Node, UnreadableError

_ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
}  # fmt: skip
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_NAMED_SETS = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}
_DIFFERENTIAL = r"(?:d|partial)"
_UPPER = regex(_DIFFERENTIAL + r"(?:\^(?:\{(\d)\}|(\d)))?\s*([a-zA-Z](?:_\w+|_\{\w+\})?|[a-z]{3,7})")
_LOWER = regex(_DIFFERENTIAL + r"\s*[a-zA-Z](?:_\w+)?(?:\^(?:\{\d\}|\d))?")


class Values(Protocol):
    """The level that reads what a command is applied to."""

    def factor(self) -> Node:
        """An atom with its powers and postfixes."""

    def atom(self) -> Node:
        """One number, letter, function, bracket or environment."""

    def argument(self) -> Node:
        """A group, one digit, one letter or one command."""

    def exponent(self) -> Node:
        """What stands behind `^`."""

    def named(self, name: str) -> Node:
        """A letter with its subscript, primes and arguments."""


class Commands:
    """Reads the value that a command begins."""

    def __init__(self, cursor: Cursor, values: Values, brackets: Brackets, levels: Levels) -> None:
        self.cursor = cursor
        self.values = values
        self.brackets = brackets
        self.levels = levels

    def command(self, name: str) -> Node:
        """The value that `\\name` begins; the command itself has been taken."""
        if name in CONSTANTS:
            return INFINITY if CONSTANTS[name] == "inf" else Node("const", "pi")
        if name in GREEK:
            return self.values.named(name)
        if name == "frac":
            return self._fraction()
        if name in ("sqrt", "cbrt"):
            return self._root(3 if name == "cbrt" else 2)
        if name in FUNCTIONS:
            return self._function(_ALIASES.get(name, name))
        if name == "binom":
            return Node("binom", None, (self.values.argument(), self.values.argument()))
        if name in FENCES:
            closer, function = FENCES[name]
            inner = self.levels.sum()
            self._close(closer)
            return Node("fn", function, (inner,))
        if name == "langle":
            inner = self.levels.answer()
            self._close("rangle")
            return Node("seq", "()", inner.args) if inner.kind == "list" else inner
        if name == "mathbb":
            return Node(_NAMED_SETS.get(plain(self.cursor.group()), "") or _unknown(name))
        if name == "top":  # the transpose
            return Node("sym", "T")
        if name == "emptyset":
            return Node("nothing")
        return self._name(name)

    def _name(self, name: str) -> Node:
        """Letters under a mark or behind a figure's sign are one name."""
        if name in DOTS:
            return self.values.named(plain(self.cursor.group()) + DOTS[name])
        if name in MARKS:
            inner = plain(self.cursor.group())
            if not re.fullmatch(r"[a-zA-Z0-9_'{}]+", inner) or inner.isdigit():
                _unknown(name)
            if name in ("vec", "overrightarrow"):
                return self.values.named(inner if len(inner) == 1 else f"vector {inner}")
            return self.values.named(f"{'bar' if name == 'overline' else name.removeprefix('wide')} {inner}")
        if name in FIGURES:
            letters = ""
            while self.cursor.peek.kind == "letters" or (letters and self.cursor.at_sign("_")):
                if self.cursor.at_sign("_"):
                    self.cursor.take()
                    letters += "_" + plain(self.cursor.subscript())
                else:
                    letters += self.cursor.take().text
            return Node("sym", f"{name} {letters}") if letters else Node("sym", _unknown(name))
        return Node("sym", _unknown(name))

    def _close(self, name: str) -> None:
        if not self.cursor.at_command(name):
            raise UnreadableError(f"\\{name} is missing")
        self.cursor.take()

    def _fraction(self) -> Node:
        cursor = self.cursor
        start = cursor.at
        upper, lower = self._part(), self._part()
        order = _UPPER.fullmatch(upper)
        if order and _LOWER.fullmatch(lower):
            name = order[3].replace("{", "").replace("}", "")
            return self.values.named(name + "'" * int(order[1] or order[2] or 1))
        if upper in ("d", "partial") and _LOWER.fullmatch(lower):
            raise UnreadableError("a derivative that has not been taken")
        cursor.at = start
        top = self.values.argument()
        literal = cursor.literal
        bottom = self.values.argument()
        node = Node("div", None, (top, bottom))
        literals = literal and cursor.literal and top.kind == bottom.kind == "num"
        cursor.literal_fraction = node if literals else None
        cursor.literal = False
        return node

    def _part(self) -> str:
        """The text of a fraction's part if it is a group, to see whether it is a differential; the place moves on."""
        return plain(self.cursor.group()) if self.cursor.at_open("{") else ""

    def _root(self, degree: int) -> Node:
        cursor = self.cursor
        if cursor.at_open("["):
            cursor.take()
            index = self.levels.sum()
            if not (cursor.peek.kind == "close" and cursor.peek.text == "]"):
                raise UnreadableError("a root's degree is never closed")
            cursor.take()
            if index.kind != "num" or index.value.denominator != 1 or not 1 <= index.value <= 100:
                return Node("pow", None, (self.values.argument(), Node("div", None, (ONE, index))))
            degree = int(index.value)
        # `\sqrt12` is typeset as √1·2, but whoever writes it means √12.
        whole = cursor.peek.kind == "num"
        return Node("root", degree, (self.values.atom() if whole else self.values.argument(),))

    def _function(self, name: str) -> Node:
        """A function, its power (`\\sin^2 x`), its base (`\\log_2 8`) and its argument."""
        cursor = self.cursor
        base = power = None
        while cursor.at_sign("_") or cursor.at_sign("^"):
            if cursor.take().text == "_":
                base = self.values.argument()
            else:
                power = self.values.exponent()
        if name in ("min", "max"):
            inner = self.brackets.bracket() if cursor.peek.kind == "open" else Node("sym", _unknown(name))
            return Node("fn", name, inner.args if inner.kind in ("seq", "set") else (inner,))
        if power is not None and power == Node("neg", None, (Node("num", 1),)) and name in _INVERSES:
            name, power = _INVERSES[name], None
        argument = self._function_argument()
        if base is not None:
            if name != "log":
                _unknown(name)
            node = Node("fn", "logb", (base, argument))
        elif name == "lg":
            node = Node("fn", "logb", (decimal("10"), argument))
        elif name == "exp":
            node = Node("pow", None, (Node("const", "e"), argument))
        else:
            node = Node("fn", name, (argument,))
        return node if power is None else Node("pow", None, (node, power))

    def _function_argument(self) -> Node:
        """Brackets hold the whole argument; without them it is the product up to the next function or sign."""
        cursor = self.cursor
        cursor.enter()
        if cursor.peek.kind == "open":
            node = self.brackets.bracket()
            cursor.leave()
            return node
        negative = cursor.at_sign("-")
        if negative:
            cursor.take()
        factors = [self.values.factor()]
        while self._continues_argument():
            factors.append(self.values.factor())
        node = factors[0] if len(factors) == 1 else Node("mul", None, tuple(factors))
        cursor.leave()
        return Node("neg", None, (node,)) if negative else node

    def _continues_argument(self) -> bool:
        token = self.cursor.peek
        if token.kind == "command":
            return starts_value(token.text) and (token.text not in FUNCTIONS or token.text == "sqrt")
        if token.kind == "letters":
            return token.text not in FUNCTIONS and len(token.text) < 3
        return token.kind == "num"


def _unknown(name: str) -> str:
    raise UnreadableError(f"\\{name} is not a command of answers")
