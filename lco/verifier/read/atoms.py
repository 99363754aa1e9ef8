"""The lower levels of the grammar: factors with their powers, and atoms (numbers, letters, texts, absolute values)."""

from __future__ import annotations

import re

from lco.verifier.read.brackets import Brackets, Levels
from lco.verifier.read.commands import Commands
from lco.verifier.read.cursor import Cursor, plain
from lco.verifier.read.names import CONSTANTS, GREEK, UNKNOWN_FUNCTIONS, is_named, is_word
from lco.verifier.read.numerals import base_named, decimal, numeral, read_number
from lco.verifier.read.tokens import Token
from lco.verifier.tree import Node, UnreadableError

_ORDINAL_ENDINGS = ("th", "st", "nd", "rd")
_GLUED = ("arcsin", "arccos", "arctan", "sqrt", "sin", "cos", "tan", "log", "ln")


class Atoms:
    """Reads factors from a cursor; `levels` are the levels above, for what stands between brackets."""

    def __init__(self, cursor: Cursor, levels: Levels) -> None:
        self.cursor = cursor
        self.levels = levels
        self.brackets = Brackets(cursor, levels)
        self.commands = Commands(cursor, self, self.brackets, levels)

    # factors ----------------------------------------------------------------------------------------------------

    def factor(self) -> Node:
        """An atom with its powers and postfixes."""
        cursor = self.cursor
        cursor.enter()
        node = self.postfix(self.atom())
        if cursor.at_sign("^"):
            cursor.literal = False
            cursor.take()
            node = self._raised(node)
        cursor.leave()
        return node

    def _raised(self, base: Node) -> Node:
        """The base with what stands behind `^`: a degree sign, a prime, an ordinal's ending, an exponent."""
        token = self.cursor.peek
        if token.kind == "command" and token.text == "circ":
            self.cursor.take()
            return self.postfix(Node("degree", None, (base,)))
        if token.kind == "sign" and token.text in "'*":
            self.cursor.take()
            return self.postfix(_primed(base))
        if token.kind == "open" and token.text == "{":
            inner = self.cursor.ahead()
            if inner.text.lower() in _ORDINAL_ENDINGS and self.cursor.ahead(2).text == "}":
                for _ in range(3):
                    self.cursor.take()
                return base
            if inner.text in ("circ", "'", "o") and self.cursor.ahead(2).text == "}":
                for _ in range(3):
                    self.cursor.take()
                return self.postfix(_primed(base) if inner.text == "'" else Node("degree", None, (base,)))
        if token.kind in ("letters", "text") and token.text == "o":  # a raised o for the degree sign
            self.cursor.take()
            return self.postfix(Node("degree", None, (base,)))
        if token.kind in ("letters", "text") and token.text.lower() in _ORDINAL_ENDINGS:
            self.cursor.take()
            return base
        exponent = self.exponent()
        if base.kind == "degree":
            raise UnreadableError("a power of degrees")
        return self.postfix(Node("pow", None, (base, exponent)))

    def exponent(self) -> Node:
        """What stands behind `^`: a group, or a signed atom, itself perhaps raised."""
        cursor = self.cursor
        negative = False
        while cursor.peek.kind == "sign" and cursor.peek.text in "+-":
            negative ^= cursor.take().text == "-"
        if cursor.peek.kind == "letters" and cursor.peek.text not in CONSTANTS and cursor.peek.text not in GREEK:
            node: Node = self._letter()
        elif cursor.at_open("{"):
            node = self.argument()
        else:
            node = self.postfix(self.atom())
        if cursor.at_sign("^"):
            cursor.take()
            cursor.enter()
            node = Node("pow", None, (node, self.exponent()))
            cursor.leave()
        return Node("neg", None, (node,)) if negative else node

    def postfix(self, node: Node) -> Node:
        """Factorials, primes, percent signs and degrees behind a value."""
        cursor = self.cursor
        for _ in range(6):
            if cursor.at_sign("!"):
                node = Node("fact", None, (node,))
            elif cursor.at_sign("'"):
                node = _primed(node)
            elif cursor.at_sign("%"):
                node = Node("percent", None, (node,))
            elif node.kind in ("num", "div") and cursor.at_command("circ"):
                node = Node("degree", None, (node,))
            else:
                return node
            cursor.take()
            cursor.literal = False
        raise UnreadableError("too many postfixes")

    # atoms ------------------------------------------------------------------------------------------------------

    def atom(self) -> Node:
        """One number, letter, function, bracket or environment."""
        cursor = self.cursor
        token = cursor.peek
        cursor.literal = False
        if token.kind == "num":
            cursor.take()
            return read_number(cursor, token)
        if token.kind == "letters":
            return self._letters(token.text)
        if token.kind == "command":
            cursor.take()
            return self.commands.command(token.text)
        if token.kind == "open":
            return self.brackets.bracket()
        if token.kind == "sign" and token.text == "|" and not cursor.in_bars:
            return self._bars()
        if token.kind == "begin":
            return self.brackets.environment()
        if token.kind == "text":
            return self._text()
        raise UnreadableError(f"cannot read {token.text!r}" if token.text else "the text ends too early")

    def _letters(self, run: str) -> Node:
        """A run of letters: a function, a constant, or letters one by one."""
        cursor = self.cursor
        if is_named(run):
            cursor.take()
            return self.commands.command(run)
        for name in _GLUED:
            if run.startswith(name) and len(run) - len(name) <= 2:  # "sinx"
                cursor.shorten(run[len(name) :])
                return self.commands.command(name)
        if run.endswith("pi") and len(run) <= 4:  # "xpi" and "rpi" are letters, then π
            cursor.insert(Token("letters", "pi"), 1)
            cursor.shorten(run[:-2])
        if len(run) >= 4 and run.isupper():  # SRMC is one name, RC a product
            cursor.take()
            return Node("sym", run)
        if is_word(cursor.peek.text, after_value=False):
            raise UnreadableError(f"the word {run!r} is no mathematics")
        return self._letter()

    def _letter(self) -> Node:
        """The first letter of a run; the rest stays for the next factor."""
        cursor = self.cursor
        first, rest = cursor.peek.text[0], cursor.peek.text[1:]
        cursor.shorten(rest)
        if first in "ei" and not cursor.at_sign("_") and not cursor.at_sign("'"):
            return Node("const", first)
        return self.named(first, alone=not rest)

    def named(self, name: str, alone: bool = True) -> Node:
        """A letter with its subscript, primes and, if it is a function, its arguments."""
        cursor = self.cursor
        if alone and cursor.at_sign("_"):
            cursor.take()
            lower = cursor.subscript()
            if name == "C" and len(lower) == 1 and lower[0].kind == "num" and self._raised_to_number():
                cursor.take()  # C_{400}^{40} chooses 40 of 400
                return Node("binom", None, (decimal(lower[0].text), self.argument()))
            name = f"{name}_{plain(lower)}"
        while alone and cursor.at_sign("'"):
            cursor.take()
            name += "'"
        if alone and cursor.at_open("(") and self._is_call(name):
            inner = self.brackets.bracket()
            return Node("call", name, inner.args if inner.kind == "seq" else (inner,))
        return Node("sym", name)

    def _raised_to_number(self) -> bool:
        return self.cursor.at_sign("^") and "num" in (self.cursor.ahead().kind, self.cursor.ahead(2).kind)

    def _is_call(self, name: str) -> bool:
        """`f(…)` always; any other letter before one symbol or number in brackets: I(0), x(t), u(t)."""
        if name.rstrip("'") in UNKNOWN_FUNCTIONS:
            return True
        inner = self.cursor.ahead()
        if self.cursor.ahead(2).text != ")":
            return False
        return inner.kind == "num" or (inner.kind == "letters" and len(inner.text) == 1 and inner.text not in "ei")

    def _text(self) -> Node:
        """A `\\text{}` in the place of a value: a numeral's digits, or something that is read elsewhere."""
        digits = self.cursor.take().text
        if digits.lower().rstrip(".") in ("const", "constant"):
            return Node("sym", "const")
        if re.fullmatch(r"[0-9A-Z]+", digits) and self.cursor.at_sign("_"):
            self.cursor.take()
            return numeral(digits, base_named(plain(self.cursor.subscript())))
        raise UnreadableError(f"the text {digits!r} is no value")

    def _bars(self) -> Node:
        cursor = self.cursor
        cursor.take()
        cursor.in_bars = True
        cursor.enter()
        inner = self.levels.sum()
        cursor.leave()
        cursor.in_bars = False
        if not cursor.at_sign("|"):
            raise UnreadableError("a bar is never closed")
        cursor.take()
        return Node("fn", "abs", (inner,))

    def argument(self) -> Node:
        """The argument of a command: a group, one digit, one letter or one command."""
        cursor = self.cursor
        token = cursor.peek
        if token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
            cursor.shorten(token.text[1:])
            cursor.literal = True
            return decimal(token.text[0])
        if token.kind == "letters" and not is_named(token.text):
            return self._letter()
        if cursor.at_sign("-"):
            cursor.take()
            return Node("neg", None, (self.argument(),))
        return self.atom()


def _primed(node: Node) -> Node:
    if node.kind == "sym":
        return Node("sym", node.value + "'")
    if node.kind == "call":
        return Node("call", node.value + "'", node.args)
    raise UnreadableError("a prime behind something that is no letter")
