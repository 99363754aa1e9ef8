"""The lower half of the grammar: factors and atoms (numbers, letters, commands, brackets, environments)."""

from __future__ import annotations

import re
from fractions import Fraction

from lco.verifier.guards import MAX_DEPTH
from lco.verifier.listed import listed
from lco.verifier.nodes import Node, RefusedError, UnreadableError
from lco.verifier.tokens import Token
from lco.verifier.units import PLAIN

FUNCTIONS = frozenset(
    listed(
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch "
        "arcsinh arccosh "
        "arctanh ln log lg exp asin acos atan asinh acosh atanh sqrt abs min max floor ceil cbrt"
    )
)
GREEK = frozenset(
    listed(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon "
        "phi chi psi omega "
        "Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega hbar ell mho aleph nabla partial"
    )
)
CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf"}
_SMALL_WORDS = frozenset(listed("or and is of the to if for per not no sq all yes"))
_UNKNOWN_FUNCTIONS = frozenset(listed("f g h F G H"))


def is_word(run: str, after_value: bool) -> bool:
    """Whether a run of letters is a word (a unit, a label, prose) and not a product of letters or a function."""
    if run in FUNCTIONS or run in CONSTANTS or run in GREEK or run == "pi":
        return run in ("min",) and after_value
    if run.lower() in _SMALL_WORDS or (after_value and run in PLAIN):
        return True
    if run.isupper():
        return False
    return len(run) >= 4 and not any(run.startswith(name) for name in ("sin", "cos", "tan", "log", "sqrt"))


class Atoms:
    """Reads factors; the levels above are in grammar.Reader."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.in_bars = False
        self.literal = False  # the last atom was a bare integer literal
        self.literal_fraction: Node | None = None  # the last \frac of two integer literals
        self.mixed_at: Node | None = None  # the numerator of "1 1/2"

    @property
    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def at_sign(self, sign: str) -> bool:
        return self.peek.kind == "sign" and self.peek.text == sign

    def descend(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RefusedError("too_deep", f"more than {MAX_DEPTH} levels of nesting")

    def ascend(self) -> None:
        self.depth -= 1

    def number_node(self, text: str) -> Node:
        """The exact value of a decimal; exponents beyond any use are refused before they become digits."""
        mantissa, _, exponent = text.lower().partition("e")
        if len(mantissa) > 2000 or len(exponent) > 5 or (exponent and abs(int(exponent)) > 5000):
            raise RefusedError("too_large", f"the number {text[:20]}… is too long")
        return Node("num", Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0))

    # factors ----------------------------------------------------------------------------------------------------

    def factor(self) -> Node:
        """An atom with its powers and postfixes."""
        self.descend()
        node = self.postfix(self.atom())
        if self.at_sign("^"):
            self.literal = False
            self.take()
            node = self._raised(node)
        self.ascend()
        return node

    def _raised(self, base: Node) -> Node:
        token = self.peek
        if token.kind == "command" and token.text == "circ":
            self.take()
            return self.postfix(Node("degree", None, (base,)))
        if token.kind == "sign" and token.text in "'*":
            self.take()
            return self.postfix(self._primed(base))
        if token.kind == "open" and token.text == "{":
            inner = self.tokens[self.at + 1]
            closed = self.tokens[self.at + 2].text == "}" if self.at + 2 < len(self.tokens) else False
            if closed and inner.text in ("circ", "'", "o"):
                self.at += 3
                raised = self._primed(base) if inner.text == "'" else Node("degree", None, (base,))
                return self.postfix(raised)
        if token.kind in ("letters", "text") and token.text == "o":  # a raised o for the degree sign
            self.take()
            return self.postfix(Node("degree", None, (base,)))
        if token.kind in ("letters", "text") and token.text.lower() in ("th", "st", "nd", "rd"):
            self.take()
            return base
        exponent = self.exponent()
        if base.kind == "degree":
            raise UnreadableError("a power of degrees")
        return self.postfix(Node("pow", None, (base, exponent)))

    def exponent(self) -> Node:
        """What stands behind `^`: a group, or a signed atom, itself perhaps raised."""
        negative = False
        while self.peek.kind == "sign" and self.peek.text in "+-":
            negative ^= self.take().text == "-"
        if self.peek.kind == "letters" and self.peek.text not in CONSTANTS and self.peek.text not in GREEK:
            node: Node = self._letter()
        elif self.peek.kind == "open" and self.peek.text == "{":
            node = self.argument()
        else:
            node = self.postfix(self.atom())
        if self.at_sign("^"):
            self.take()
            self.descend()
            node = Node("pow", None, (node, self.exponent()))
            self.ascend()
        return Node("neg", None, (node,)) if negative else node

    def postfix(self, node: Node) -> Node:
        """Factorials, primes, percent signs and degrees behind a value."""
        for _ in range(6):
            if self.at_sign("!"):
                self.take()
                node = Node("fact", None, (node,))
            elif self.at_sign("'"):
                self.take()
                node = self._primed(node)
            elif self.at_sign("%"):
                self.take()
                node = Node("percent", None, (node,))
            elif self.peek.kind == "command" and self.peek.text == "circ" and node.kind == "num":
                self.take()
                node = Node("degree", None, (node,))
            else:
                return node
            self.literal = False
        raise UnreadableError("too many postfixes")

    def _primed(self, node: Node) -> Node:
        if node.kind == "sym":
            return Node("sym", node.value + "'")
        if node.kind == "call":
            return Node("call", node.value + "'", node.args)
        raise UnreadableError("a prime behind something that is no letter")

    # atoms ------------------------------------------------------------------------------------------------------

    def atom(self) -> Node:
        """One number, letter, function, bracket or environment."""
        token = self.peek
        self.literal = False
        if token.kind == "num":
            self.take()
            return self._number(token)
        if token.kind == "letters":
            return self._letters(token)
        if token.kind == "command":
            self.take()
            return self.command(token.text)
        if token.kind == "open":
            return self.bracket()
        if token.kind == "sign" and token.text == "|" and not self.in_bars:
            return self._bars()
        if token.kind == "begin":
            return self.environment()
        if token.kind == "text":
            return self._text(token)
        raise UnreadableError(f"cannot read {token.text!r}" if token.text else "the text ends too early")

    def _number(self, token: Token) -> Node:
        node = self.number_node(token.text)
        following = self.peek
        if following.kind == "sign" and following.text == "_":
            self.take()
            base = self._plain(self.subscript())
            if not base.isdigit() or not token.text.isdigit():
                raise UnreadableError("a number with a subscript that is no base")
            return Node("based", (token.text, int(base[:4])))
        if following.kind == "command" and following.text == "dots":
            self.take()
            return self._continued(token.text)
        if "." in token.text and following.kind == "command" and following.text in ("overline", "bar", "dot"):
            self.take()
            return self._repeating(token.text, self._plain(self._group_tokens()))
        if "." in token.text and following.kind == "open" and following.text == "(" and not following.spaced:
            inner = self.tokens[self.at + 1]
            if inner.kind == "num" and inner.text.isdigit() and self.tokens[self.at + 2].text == ")":
                self.at += 3
                return self._repeating(token.text, inner.text)
        if self.at_sign(".") and self.tokens[self.at + 1].text == ".":  # 0.333...
            while self.at_sign("."):
                self.take()
            return self._continued(token.text)
        self.literal = token.text.isdigit()
        return node

    def _repeating(self, head: str, block: str) -> Node:
        """`0.1` with the block `6` repeating is 1/6."""
        if not block.isdigit() or len(head) + len(block) > 200:
            raise UnreadableError("a repeating decimal whose block is no digits")
        whole, _, digits = head.partition(".")
        shift = 10 ** len(digits)
        value = Fraction(int((whole or "0") + digits), shift) + Fraction(int(block), (10 ** len(block) - 1) * shift)
        return Node("num", value)

    def _continued(self, text: str) -> Node:
        """`0.333…`: exact only if a block has been written at least twice (three times for one digit)."""
        found = re.fullmatch(r"(\d*\.\d*?)(\d{1,12}?)\2+", text.rstrip("."))
        if not found or len(text.partition(".")[2].rstrip(".")) < 3:
            raise UnreadableError("a decimal that goes on without saying how")
        if len(found[2]) == 1 and not text.endswith(found[2] * 3):
            raise UnreadableError("a decimal that goes on without saying how")
        return self._repeating(found[1], found[2])

    def _letters(self, token: Token) -> Node:
        """A run of letters: a function, a constant, or letters one by one."""
        run = token.text
        if run in FUNCTIONS or run in CONSTANTS or run in GREEK:
            self.take()
            return self.command(run)
        for name in ("arcsin", "arccos", "arctan", "sqrt", "sin", "cos", "tan", "log", "ln"):
            if run.startswith(name) and len(run) - len(name) <= 2:  # "sinx"
                self._replace(token, run[len(name) :])
                return self.command(name)
        if run.endswith("pi") and len(run) <= 4:  # "xpi" and "rpi" are letters, then π
            self.tokens.insert(self.at + 1, Token("letters", "pi"))
            self._replace(token, run[:-2])
        if len(run) >= 4 and run.isupper():  # SRMC is one name, RC a product
            self.take()
            return Node("sym", run)
        if is_word(self.peek.text, after_value=False):
            raise UnreadableError(f"the word {run!r} is no mathematics")
        return self._letter()

    def _letter(self) -> Node:
        """The first letter of a run; the rest stays for the next factor."""
        token = self.peek
        first, rest = token.text[0], token.text[1:]
        if rest:
            self._replace(token, rest)
        else:
            self.take()
        if first in "ei" and not self.at_sign("_") and not self.at_sign("'"):
            return Node("const", first)
        return self.named(first, alone=not rest)

    def _replace(self, token: Token, text: str) -> None:
        if text:
            self.tokens[self.at] = Token(token.kind, text, False)
        else:
            self.take()

    def named(self, name: str, alone: bool = True) -> Node:
        """A letter with its subscript, primes and, if it is a function, its arguments."""
        if alone and self.at_sign("_"):
            self.take()
            lower = self.subscript()
            if name == "C" and len(lower) == 1 and lower[0].kind == "num" and self._raised_to_number():
                self.take()  # C_{400}^{40} chooses 40 of 400
                return Node("binom", None, (self.number_node(lower[0].text), self.argument()))
            name = f"{name}_{self._plain(lower)}"
        while alone and self.at_sign("'"):
            self.take()
            name += "'"
        if alone and self.peek.kind == "open" and self.peek.text == "(" and self._is_call(name):
            inner = self.bracket()
            return Node("call", name, inner.args if inner.kind == "seq" else (inner,))
        return Node("sym", name)

    def _raised_to_number(self) -> bool:
        following = self.tokens[self.at : self.at + 3]
        return self.at_sign("^") and any(token.kind == "num" for token in following[1:])

    def _is_call(self, name: str) -> bool:
        """`f(…)` always; any other letter before one symbol or number in brackets: I(0), x(t), u(t)."""
        if name.rstrip("'") in _UNKNOWN_FUNCTIONS:
            return True
        inner, after = self.tokens[self.at + 1 : self.at + 3] if self.at + 2 < len(self.tokens) else (None, None)
        if inner is None or after is None or after.text != ")":
            return False
        return inner.kind == "num" or (inner.kind == "letters" and len(inner.text) == 1 and inner.text not in "ei")

    def subscript(self) -> list[Token]:
        """The tokens of a subscript."""
        if self.peek.kind == "open" and self.peek.text == "{":
            return self._group_tokens()
        token = self.take()
        if token.kind == "letters" and len(token.text) > 1:
            self.tokens.insert(self.at, Token("letters", token.text[1:]))
            token = Token("letters", token.text[:1])
        if token.kind not in ("num", "letters", "command", "text"):
            raise UnreadableError("an empty subscript")
        return [token]

    def _group_tokens(self) -> list[Token]:
        if not (self.peek.kind == "open" and self.peek.text == "{"):
            return [self.take()]
        self.take()
        inner: list[Token] = []
        depth = 1
        while True:
            token = self.take()
            if token.kind == "end":
                raise UnreadableError("a group is never closed")
            depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind in ("open", "close") else 0
            if depth == 0:
                return inner
            inner.append(token)

    @staticmethod
    def _plain(tokens: list[Token]) -> str:
        return "".join(token.text for token in tokens).strip()

    def _text(self, token: Token) -> Node:
        """A `\\text{}` in the place of a value: a one-letter name, or something that is read elsewhere."""
        self.take()
        if re.fullmatch(r"[0-9A-Z]+", token.text) and self.at_sign("_"):
            self.take()
            base = self._plain(self.subscript())
            if base.isdigit():
                return Node("based", (token.text, int(base[:4])))
        raise UnreadableError(f"the text {token.text!r} is no value")

    def _bars(self) -> Node:
        self.take()
        self.in_bars = True
        self.descend()
        inner = self.sum()
        self.ascend()
        self.in_bars = False
        if not self.at_sign("|"):
            raise UnreadableError("a bar is never closed")
        self.take()
        return Node("fn", "abs", (inner,))

    def argument(self) -> Node:
        """The argument of a command: a group, one digit, one letter or one command."""
        token = self.peek
        if token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at] = Token("num", token.text[1:], False)
            self.literal = True
            return self.number_node(token.text[0])
        if token.kind == "letters" and not (token.text in CONSTANTS or token.text in FUNCTIONS or token.text in GREEK):
            return self._letter()
        if token.kind == "sign" and token.text == "-":
            self.take()
            return Node("neg", None, (self.argument(),))
        return self.atom()

    # Supplied by the classes built on this one: brackets.Brackets, then grammar.Reader.

    def answer(self, *closers: str) -> Node:
        raise UnreadableError("values in a list")

    def union(self) -> Node:
        raise UnreadableError("a set")

    def relation(self) -> Node:
        raise UnreadableError("a relation")

    def sum(self) -> Node:
        raise UnreadableError("a sum")

    def command(self, name: str) -> Node:
        raise UnreadableError(f"\\{name}")

    def bracket(self) -> Node:
        raise UnreadableError("a bracket")

    def environment(self) -> Node:
        raise UnreadableError("an environment")
