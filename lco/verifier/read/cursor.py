"""A place in a row of tokens, which every level of the grammar reads from and moves on."""

from __future__ import annotations

from lco.verifier.read.guards import MAX_DEPTH
from lco.verifier.read.tokens import Token
from lco.verifier.tree import Node, RefusedError, UnreadableError


class Cursor:
    """The tokens, the place in them, and what the levels have to tell each other about what was just read.

    depth: levels of nesting entered and not left.
    in_bars: between `|` and `|`, so that the next bar closes.
    literal: the last atom was a bare whole number; literal_fraction: the last `\\frac` of two of them.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.in_bars = False
        self.literal = False
        self.literal_fraction: Node | None = None

    @property
    def peek(self) -> Token:
        """The token at the place."""
        return self.tokens[self.at]

    def ahead(self, count: int = 1) -> Token:
        """The token `count` places further on; the closing one behind the end."""
        return self.tokens[min(self.at + count, len(self.tokens) - 1)]

    def take(self) -> Token:
        """The token at the place, which moves on."""
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def at_sign(self, sign: str) -> bool:
        """Whether a sign stands at the place."""
        return self.peek.kind == "sign" and self.peek.text == sign

    def at_command(self, name: str) -> bool:
        """Whether `\\name` stands at the place."""
        return self.peek.kind == "command" and self.peek.text == name

    def at_open(self, bracket: str) -> bool:
        """Whether an opening bracket stands at the place."""
        return self.peek.kind == "open" and self.peek.text == bracket

    def at_word(self, *words: str) -> bool:
        """Whether one of these words stands at the place, in a text command or bare."""
        token = self.peek
        return token.kind in ("text", "letters") and token.text.strip().lower().rstrip(",") in words

    def enter(self) -> None:
        """One level of nesting further down."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RefusedError("too_deep", f"more than {MAX_DEPTH} levels of nesting")

    def leave(self) -> None:
        """Back from a level of nesting."""
        self.depth -= 1

    def shorten(self, text: str) -> None:
        """Leave only `text` of the token at the place; move on if nothing is left."""
        if text:
            self.tokens[self.at] = Token(self.peek.kind, text, False)
        else:
            self.take()

    def insert(self, token: Token, offset: int = 0) -> None:
        """Put a token at the place, or `offset` places behind it."""
        self.tokens.insert(self.at + offset, token)

    def group(self) -> list[Token]:
        """The tokens of a brace group, or the one token that stands in its place."""
        if not self.at_open("{"):
            return [self.take()]
        self.take()
        inner: list[Token] = []
        depth = 1
        while True:
            token = self.take()
            if token.kind == "end" and not token.text:
                raise UnreadableError("a group is never closed")
            depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind in ("open", "close") else 0
            if depth == 0:
                return inner
            inner.append(token)

    def subscript(self) -> list[Token]:
        """The tokens behind `_`: a group, or one number, letter, command or text."""
        if self.at_open("{"):
            return self.group()
        token = self.take()
        if token.kind == "letters" and len(token.text) > 1:
            self.insert(Token("letters", token.text[1:]))
            token = Token("letters", token.text[:1])
        if token.kind not in ("num", "letters", "command", "text"):
            raise UnreadableError("an empty subscript")
        return [token]


def plain(tokens: list[Token]) -> str:
    """The text of some tokens."""
    return "".join(token.text for token in tokens).strip()
