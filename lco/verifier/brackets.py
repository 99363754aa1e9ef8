"""Commands, brackets and environments: the atoms that hold other answers."""

from __future__ import annotations

import re

from lco.verifier.atoms import CONSTANTS, FUNCTIONS, GREEK, Atoms
from lco.verifier.listed import listed
from lco.verifier.nodes import INFINITY, ONE, Node, UnreadableError
from lco.verifier.tokens import Token

_ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
}  # fmt: skip
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_MATRICES = frozenset(listed("pmatrix bmatrix matrix Bmatrix smallmatrix array psmallmatrix bsmallmatrix"))
_NAMED_SETS = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}
_MARKS = frozenset(
    listed("hat bar overline tilde widehat widetilde overleftrightarrow overarc wideparen vec overrightarrow")
)
_DOTS = {"dot": "'", "ddot": "''"}
_FIGURES = frozenset(("angle", "triangle", "measuredangle", "square", "odot", "parallelogram"))
_FENCES = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
_OTHERS = frozenset(("frac", "binom", "langle", "mathbb", "emptyset", *_MARKS, *_DOTS, *_FIGURES, *_FENCES))

_DIFFERENTIAL = r"(?:d|partial)"
_UPPER = re.compile(_DIFFERENTIAL + r"(?:\^(?:\{(\d)\}|(\d)))?\s*([a-zA-Z](?:_\w+|_\{\w+\})?|[a-z]{3,7})")
_LOWER = re.compile(_DIFFERENTIAL + r"\s*[a-zA-Z](?:_\w+)?(?:\^(?:\{\d\}|\d))?")


def starts_value(name: str) -> bool:
    """Whether `\\name` begins a number, a letter or a function."""
    return name in FUNCTIONS or name in GREEK or name in CONSTANTS or name in _OTHERS


class Brackets(Atoms):
    """Reads what stands behind a backslash or between brackets."""

    def command(self, name: str) -> Node:
        """The value that `\\name` begins; the command itself has been taken."""
        if name in CONSTANTS:
            return INFINITY if CONSTANTS[name] == "inf" else Node("const", "pi")
        if name in GREEK:
            return self.named(name)
        if name == "frac":
            return self._fraction()
        if name in ("sqrt", "cbrt"):
            return self._root(3 if name == "cbrt" else 2)
        if name in FUNCTIONS:
            return self._function(_ALIASES.get(name, name))
        if name == "binom":
            return Node("binom", None, (self.argument(), self.argument()))
        if name in _FENCES:
            closer, function = _FENCES[name]
            inner = self.sum()
            self._close_command(closer)
            return Node("fn", function, (inner,))
        if name == "langle":
            inner = self.answer()
            self._close_command("rangle")
            return Node("seq", "()", inner.args) if inner.kind == "list" else inner
        if name == "mathbb":
            return Node(_NAMED_SETS.get(self._plain(self._group_tokens()), "") or self._unknown(name))
        if name == "emptyset":
            return Node("nothing")
        return self._name(name)

    def _name(self, name: str) -> Node:
        """Letters under a mark or behind a figure's sign are one name."""
        if name in _DOTS:
            inner = self._plain(self._group_tokens())
            return self.named(inner + _DOTS[name])
        if name in _MARKS:
            inner = self._plain(self._group_tokens())
            if not re.fullmatch(r"[a-zA-Z0-9_'{}]+", inner) or inner.isdigit():
                self._unknown(name)
            if name in ("vec", "overrightarrow"):
                return self.named(inner if len(inner) == 1 else f"vector {inner}")
            return self.named(f"{'bar' if name == 'overline' else name.removeprefix('wide')} {inner}")
        if name in _FIGURES:
            letters = ""
            while self.peek.kind == "letters" or (letters and self.at_sign("_")):
                if self.at_sign("_"):
                    self.take()
                    letters += "_" + self._plain(self.subscript())
                else:
                    letters += self.take().text
            return Node("sym", f"{name} {letters}") if letters else Node("sym", self._unknown(name))
        return Node("sym", self._unknown(name))

    @staticmethod
    def _unknown(name: str) -> str:
        raise UnreadableError(f"\\{name} is not a command of answers")

    def _close_command(self, name: str) -> None:
        if not (self.peek.kind == "command" and self.peek.text == name):
            raise UnreadableError(f"\\{name} is missing")
        self.take()

    def _fraction(self) -> Node:
        start = self.at
        upper = self._part_text()
        lower = self._part_text()
        order = _UPPER.fullmatch(upper)
        if order and _LOWER.fullmatch(lower):
            return self.named(order[3].replace("{", "").replace("}", "") + "'" * int(order[1] or order[2] or 1))
        if upper in ("d", "partial") and _LOWER.fullmatch(lower):
            raise UnreadableError("a derivative that has not been taken")
        self.at = start
        top = self.argument()
        literal = self.literal
        bottom = self.argument()
        node = Node("div", None, (top, bottom))
        self.literal_fraction = node if literal and self.literal and top.kind == bottom.kind == "num" else None
        self.literal = False
        return node

    def _part_text(self) -> str:
        """The text of a fraction's part if it is a group, to see whether it is a differential; the place moves on."""
        if not (self.peek.kind == "open" and self.peek.text == "{"):
            return ""
        return self._plain(self._group_tokens())

    def _root(self, degree: int) -> Node:
        if self.peek.kind == "open" and self.peek.text == "[":
            self.take()
            index = self.sum()
            if not (self.peek.kind == "close" and self.peek.text == "]"):
                raise UnreadableError("a root's degree is never closed")
            self.take()
            if index.kind != "num" or index.value.denominator != 1 or not 1 <= index.value <= 100:
                return Node("pow", None, (self.argument(), Node("div", None, (ONE, index))))
            degree = int(index.value)
        # `\sqrt12` is typeset as √1·2, but whoever writes it means √12.
        whole = self.peek.kind == "num"
        return Node("root", degree, (self.atom() if whole else self.argument(),))

    def _function(self, name: str) -> Node:
        """A function, its power (`\\sin^2 x`), its base (`\\log_2 8`) and its argument."""
        base = power = None
        while self.at_sign("_") or self.at_sign("^"):
            if self.take().text == "_":
                base = self.argument()
            else:
                power = self.exponent()
        if name in ("min", "max"):
            inner = self.bracket() if self.peek.kind == "open" else Node("sym", self._unknown(name))
            return Node("fn", name, inner.args if inner.kind in ("seq", "set") else (inner,))
        if power is not None and power == Node("neg", None, (Node("num", 1),)) and name in _INVERSES:
            name, power = _INVERSES[name], None
        argument = self._function_argument()
        if base is not None:
            if name != "log":
                self._unknown(name)
            node = Node("fn", "logb", (base, argument))
        elif name == "lg":
            node = Node("fn", "logb", (self.number_node("10"), argument))
        elif name == "exp":
            node = Node("pow", None, (Node("const", "e"), argument))
        else:
            node = Node("fn", name, (argument,))
        return node if power is None else Node("pow", None, (node, power))

    def _function_argument(self) -> Node:
        """Brackets hold the whole argument; without them it is the product up to the next function or sign."""
        self.descend()
        if self.peek.kind == "open":
            node = self.bracket()
            self.ascend()
            return node
        negative = self.at_sign("-")
        if negative:
            self.take()
        factors = [self.factor()]
        while self._continues_argument():
            factors.append(self.factor())
        node = factors[0] if len(factors) == 1 else Node("mul", None, tuple(factors))
        self.ascend()
        return Node("neg", None, (node,)) if negative else node

    def _continues_argument(self) -> bool:
        token = self.peek
        if token.kind == "command":
            return starts_value(token.text) and (token.text not in FUNCTIONS or token.text == "sqrt")
        if token.kind == "letters":
            return token.text not in FUNCTIONS and len(token.text) < 3
        return token.kind == "num"

    def bracket(self) -> Node:
        """What stands between brackets: a group, a tuple, an interval or a set."""
        opener = self.take().text
        bars, self.in_bars = self.in_bars, False
        self.descend()
        node = self._set() if opener == "\\{" else self._enclosed(opener)
        self.ascend()
        self.in_bars = bars
        return node

    def _enclosed(self, opener: str) -> Node:
        closers = ("}",) if opener == "{" else (")", "]")
        if self.peek.kind == "close":
            raise UnreadableError("empty brackets")
        node = self.answer(*closers)
        if opener == "{" and self.peek.kind == "command" and self.peek.text == "choose":
            self.take()
            node = Node("binom", None, (node, self.sum()))
        closer = self.take()
        if closer.kind != "close" or closer.text not in closers:
            raise UnreadableError(f"{opener} is not closed where it should be")
        if node.kind == "list":
            return Node("set", None, node.args) if opener == "{" else Node("seq", opener + closer.text, node.args)
        if opener + closer.text not in ("()", "[]", "{}"):
            raise UnreadableError("an interval with one end")
        # "(5)" stands alone as 5, but not as a literal: `2(\frac12)` is a product, never a mixed number.
        self.literal = self.literal and opener == "{"
        self.literal_fraction = self.literal_fraction if opener == "{" else None
        return node

    def _set(self) -> Node:
        if self.peek.kind == "close" and self.peek.text == "\\}":
            self.take()
            return Node("nothing")
        bar = self._builder_bar()
        if bar is None:
            node = self.answer("\\}")
            self._close_set()
            return Node("set", None, node.args if node.kind == "list" else (node,))
        # The bar ends the variable: hide it from the grammar, which would take it for an absolute value.
        self.tokens[bar] = Token("row", "|")
        variable = self.relation()
        if self.at != bar:
            raise UnreadableError("a set whose variable cannot be read")
        self.take()
        condition = self.answer("\\}")
        self._close_set()
        return Node("builder", None, (variable, condition))

    def _close_set(self) -> None:
        closer = self.take()
        if closer.kind != "close" or closer.text != "\\}":
            raise UnreadableError("a set is never closed")

    def _builder_bar(self) -> int | None:
        """Where the one bar or colon of `{x | …}` stands."""
        depth, bars = 0, []
        for at in range(self.at, len(self.tokens)):
            token = self.tokens[at]
            depth += {"open": 1, "close": -1}.get(token.kind, 0)
            if depth < 0:
                break
            if depth == 0 and (token.text in ("mid", "|") or (token.text == ":" and token.kind in ("sign", "command"))):
                bars.append(at)
        return bars[0] if len(bars) == 1 or (bars and self.tokens[bars[0]].text == "mid") else None

    def environment(self) -> Node:
        """A matrix or a definition by cases."""
        name = self.take().text
        if name == "array" and self.peek.kind == "open" and self.peek.text == "{":
            self._group_tokens()
        if name == "cases":
            return self._cases()
        if name not in _MATRICES:
            raise UnreadableError(f"the environment {name}")
        self.descend()
        rows, row = [], []
        while True:
            row.append(self.sum())
            token = self.take()
            if token.kind == "sign" and token.text == "&":
                continue
            rows.append(Node("row", None, tuple(row)))
            row = []
            if token.kind == "row" and self.peek.kind == "end" and self.peek.text == name:
                token = self.take()
            if token.kind == "end" and token.text == name:
                break
            if token.kind != "row":
                raise UnreadableError(f"the environment {name} is never closed")
        self.ascend()
        if len({len(line.args) for line in rows}) != 1:
            raise UnreadableError("a matrix with rows of different lengths")
        return Node("matrix", None, tuple(rows))

    def _cases(self) -> Node:
        self.descend()
        rows = []
        while True:
            value = self.union()
            while self.at_sign("&") or self.at_sign(",") or self._at_word("if", "for", "when"):
                self.take()
            if self._at_word("otherwise", "else"):
                self.take()
                condition = Node("text", "otherwise")
            else:
                condition = self.answer()
            rows.append(Node("row", None, (value, condition)))
            token = self.take()
            if token.kind == "row" and self.peek.kind == "end" and self.peek.text == "cases":
                token = self.take()
            if token.kind == "end" and token.text == "cases":
                self.ascend()
                return Node("cases", None, tuple(rows))
            if token.kind != "row":
                raise UnreadableError("the environment cases is never closed")

    def _at_word(self, *words: str) -> bool:
        token = self.peek
        return token.kind in ("text", "letters") and token.text.strip().lower().rstrip(",") in words
