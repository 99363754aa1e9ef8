"""`n ≡ 5 (mod 11)`: what stands behind a value that is meant modulo a number."""

from __future__ import annotations

from collections.abc import Sequence

from lco.verifier.read.commands import Values
from lco.verifier.read.cursor import Cursor
from lco.verifier.read.numerals import decimal
from lco.verifier.tree import Node, UnreadableError

_COMMANDS = frozenset(("pmod", "mod", "bmod", "pod"))


class Congruences:
    """Reads moduli from a cursor; `values` reads the number itself."""

    def __init__(self, cursor: Cursor, values: Values) -> None:
        self.cursor = cursor
        self.values = values

    def at_bracket(self) -> bool:
        """Whether `(mod …)` stands at the place."""
        return self.cursor.at_open("(") and self._is_mod(1)

    def modulus(self) -> Node | None:
        """The modulus that stands at the place, None if there is none."""
        cursor = self.cursor
        bracketed = self.at_bracket()
        if bracketed:
            cursor.take()
        elif not self._is_mod(0):
            return None
        cursor.take()
        number = decimal(cursor.take().text) if cursor.peek.kind == "num" else self.values.argument()
        if bracketed:
            closer = cursor.take()
            if closer.kind != "close" or closer.text != ")":
                raise UnreadableError("(mod is never closed")
        return number

    def _is_mod(self, offset: int) -> bool:
        token = self.cursor.ahead(offset)
        if token.kind == "command":
            return token.text in _COMMANDS
        return token.kind in ("letters", "text") and token.text.strip().lower() in ("mod", "modulo")


def share_modulus(values: Sequence[Node]) -> list[Node]:
    """`n ≡ 5, 7 (mod 12)`: the modulus holds for every value before it. Without one, ≡ says no more than =."""
    last = values[-1]
    if last.kind == "congruence":
        return [
            value if value.kind == "congruence" else Node("congruence", None, (value, last.args[1])) for value in values
        ]
    return [_plain(value) for value in values]


def _plain(node: Node) -> Node:
    if node.kind == "rel" and "≡" in node.value:
        return Node("rel", tuple("=" if operator == "≡" else operator for operator in node.value), node.args)
    return node
