"""What stands between brackets, and in environments: groups, tuples, intervals, sets, matrices, definitions by cases."""

from __future__ import annotations

from typing import Protocol

from lco.verifier.read.cursor import Cursor
from lco.verifier.read.tokens import Token
from lco.verifier.tree import Node, UnreadableError

_MATRICES = frozenset("pmatrix bmatrix matrix Bmatrix smallmatrix array psmallmatrix bsmallmatrix vmatrix".split())
_LARGEST_DETERMINANT = 4


class Levels(Protocol):
    """The upper levels of the grammar, which read what brackets hold."""

    def answer(self, *closers: str) -> Node:
        """Values joined by commas, semicolons and connecting words, up to one of the closing brackets."""

    def relation(self) -> Node:
        """One value, or values chained by relation signs."""

    def union(self) -> Node:
        """Sets joined by ∪, ∩ and \\."""

    def sum(self) -> Node:
        """Terms joined by + - ± ∓."""


class Brackets:
    """Reads brackets and environments from a cursor; the levels above read what is inside."""

    def __init__(self, cursor: Cursor, levels: Levels) -> None:
        self.cursor = cursor
        self.levels = levels

    def bracket(self) -> Node:
        """What stands between brackets: a group, a tuple, an interval or a set."""
        cursor = self.cursor
        opener = cursor.take().text
        bars, cursor.in_bars = cursor.in_bars, False
        cursor.enter()
        node = self._set() if opener == "\\{" else self._enclosed(opener)
        cursor.leave()
        cursor.in_bars = bars
        return node

    def _enclosed(self, opener: str) -> Node:
        cursor = self.cursor
        closers = ("}",) if opener == "{" else (")", "]")
        if cursor.peek.kind == "close":
            raise UnreadableError("empty brackets")
        node = self.levels.answer(*closers)
        node = self.infix(node)
        closer = cursor.take()
        if closer.kind != "close" or closer.text not in closers:
            raise UnreadableError(f"{opener} is not closed where it should be")
        if node.kind == "list":
            return Node("set", None, node.args) if opener == "{" else Node("seq", opener + closer.text, node.args)
        if opener + closer.text not in ("()", "[]", "{}"):
            raise UnreadableError("an interval with one end")
        # "(5)" stands alone as 5, but not as a literal: `2(\frac12)` is a product, never a mixed number.
        cursor.literal = cursor.literal and opener == "{"
        cursor.literal_fraction = cursor.literal_fraction if opener == "{" else None
        return node

    def infix(self, node: Node) -> Node:
        """TeX's `a \\over b` and `n \\choose k`, which take the whole group; in an equation, its last side."""
        cursor = self.cursor
        kind = {"over": "div", "choose": "binom"}.get(cursor.peek.text) if cursor.peek.kind == "command" else None
        if kind is None:
            return node
        cursor.take()
        bottom = self.levels.sum()
        if node.kind == "rel":
            return Node("rel", node.value, (*node.args[:-1], Node(kind, None, (node.args[-1], bottom))))
        result = Node(kind, None, (node, bottom))
        cursor.literal_fraction = result if kind == "div" and node.kind == bottom.kind == "num" else None
        return result

    def _set(self) -> Node:
        cursor = self.cursor
        if cursor.peek.kind == "close" and cursor.peek.text == "\\}":
            cursor.take()
            return Node("nothing")
        bar = self._builder_bar()
        if bar is None:
            node = self.levels.answer("\\}")
            self._close_set()
            return Node("set", None, node.args if node.kind == "list" else (node,))
        # The bar ends the variable: hide it from the grammar, which would take it for an absolute value.
        cursor.tokens[bar] = Token("row", "|")
        variable = self.levels.relation()
        if cursor.at != bar:
            raise UnreadableError("a set whose variable cannot be read")
        cursor.take()
        condition = self.levels.answer("\\}")
        self._close_set()
        return Node("builder", None, (variable, condition))

    def _close_set(self) -> None:
        closer = self.cursor.take()
        if closer.kind != "close" or closer.text != "\\}":
            raise UnreadableError("a set is never closed")

    def _builder_bar(self) -> int | None:
        """Where the one bar or colon of `{x | …}` stands."""
        tokens = self.cursor.tokens
        depth, bars = 0, []
        for at in range(self.cursor.at, len(tokens)):
            token = tokens[at]
            depth += {"open": 1, "close": -1}.get(token.kind, 0)
            if depth < 0:
                break
            if depth == 0 and (token.text in ("mid", "|") or (token.text == ":" and token.kind in ("sign", "command"))):
                bars.append(at)
        return bars[0] if len(bars) == 1 or (bars and tokens[bars[0]].text == "mid") else None

    def environment(self) -> Node:
        """A matrix or a definition by cases."""
        cursor = self.cursor
        name = cursor.take().text
        if name == "array" and cursor.at_open("{"):
            cursor.group()
        if name == "cases":
            return self._cases()
        if name not in _MATRICES:
            raise UnreadableError(f"the environment {name}")
        cursor.enter()
        rows, row = [], []
        while True:
            row.append(self.levels.sum())
            if cursor.at_sign("&"):
                cursor.take()
                continue
            rows.append(Node("row", None, tuple(row)))
            row = []
            if self._ends(name):
                break
        cursor.leave()
        if len({len(line.args) for line in rows}) != 1:
            raise UnreadableError("a matrix with rows of different lengths")
        return _determinant([row.args for row in rows]) if name == "vmatrix" else Node("matrix", None, tuple(rows))

    def _cases(self) -> Node:
        cursor = self.cursor
        cursor.enter()
        rows = []
        while True:
            value = self.levels.union()
            while cursor.at_sign("&") or cursor.at_sign(",") or cursor.at_word("if", "for", "when"):
                cursor.take()
            if cursor.at_word("otherwise", "else"):
                cursor.take()
                condition = Node("text", "otherwise")
            else:
                condition = self.levels.answer()
            rows.append(Node("row", None, (value, condition)))
            if self._ends("cases"):
                cursor.leave()
                return Node("cases", None, tuple(rows))

    def _ends(self, name: str) -> bool:
        """Whether the environment ends here, perhaps behind a last `\\\\`; False at the end of a row."""
        token = self.cursor.take()
        if token.kind == "row" and self.cursor.peek.kind == "end" and self.cursor.peek.text == name:
            token = self.cursor.take()
        if token.kind == "end" and token.text == name:
            return True
        if token.kind != "row":
            raise UnreadableError(f"the environment {name} is never closed")
        return False


def _determinant(rows: list[tuple[Node, ...]]) -> Node:
    """The determinant written out along the first row."""
    if not rows or len(rows) != len(rows[0]) or len(rows) > _LARGEST_DETERMINANT:
        raise UnreadableError("a determinant that is not square or too large")
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for at, entry in enumerate(rows[0]):
        minor = _determinant([row[:at] + row[at + 1 :] for row in rows[1:]])
        term = Node("mul", None, (entry, minor))
        terms.append(Node("neg", None, (term,)) if at % 2 else term)
    return Node("add", None, tuple(terms))
