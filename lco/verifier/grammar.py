"""The grammar of answers: tokens in, one `Node` out.

A descent through the usual levels, loosest first:

    answer    values joined by "," ";" "and" "or"          -> list
    relation  x = 3, -2 ≤ x < 7, x ∈ [0, 1)                -> rel
    union     A ∪ B, A ∩ B, A \\ B                          -> union, intersection, minus
    quantity  a sum with its unit
    sum       terms, ±                                     -> add, neg, pm
    product   factors, also those merely written side by side -> mul, div
    factor    powers, factorials, primes, degrees, percent -> pow, fact, degree, percent
    atom      (in atoms.py) numbers, letters, commands, brackets, environments

Nothing here computes: `9^{9^{9^9}}` is read in microseconds and refused later by whoever would have to evaluate it.
"""

from __future__ import annotations

from lco.verifier.atoms import is_word
from lco.verifier.brackets import Brackets, starts_value
from lco.verifier.nodes import Node, UnreadableError, is_scalar
from lco.verifier.tokens import Token, tokenize
from lco.verifier.units import CANONICAL, agree, read_unit

_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "in": "∈"}
_SET_OPERATIONS = {"cup": "union", "cap": "intersection", "setminus": "minus"}
_CONNECTORS = frozenset(("and", "or", ", and", "and,", ", or", "or,"))
MAX_TERMS = 400


def parse(text: str) -> Node:
    """The answer a cleaned text states; raises UnreadableError where the grammar does not reach."""
    reader = Reader(tokenize(text))
    node = reader.answer()
    if reader.peek.kind != "end":
        raise UnreadableError(f"cannot read on at {reader.peek.text!r}")
    return node


class Reader(Brackets):
    """The levels above an atom."""

    def answer(self, *closers: str) -> Node:
        """Values joined by commas, semicolons and connecting words; one value alone is itself."""
        values = [self.relation()]
        joints: set[str] = set()
        while (joint := self._separator(closers)) is not None:
            joints.add(joint)
            values.append(self.relation())
            if len(values) > MAX_TERMS:
                raise UnreadableError(f"more than {MAX_TERMS} values")
        if len(values) == 1:
            return values[0]
        word = "or" if "or" in joints else "and" if "and" in joints else ","
        return Node("list", word, tuple(values))

    def _separator(self, closers: tuple[str, ...]) -> str | None:
        found = None
        while self.at_sign(",") or self.at_sign(";") or self._at_connector():
            text = self.take().text.lower()
            found = "or" if "or" in text else "and" if "and" in text else found or ","
        # A separator with nothing behind it ("3, 4,") is punctuation.
        if self.peek.kind == "end" or (self.peek.kind == "close" and self.peek.text in closers):
            return None
        return found

    def _at_connector(self) -> bool:
        token = self.peek
        if token.kind == "command":
            return token.text in ("lor", "land")
        return token.kind in ("letters", "text") and token.text.strip().lower() in _CONNECTORS

    def relation(self) -> Node:
        """One value, or values chained by relation signs."""
        parts, operators = [self.union()], []
        while (operator := self._relation_sign()) is not None:
            operators.append(operator)
            parts.append(self.union())
        return parts[0] if not operators else Node("rel", tuple(operators), tuple(parts))

    def _relation_sign(self) -> str | None:
        token = self.peek
        if token.kind not in ("sign", "command") or token.text not in _RELATIONS:
            return None
        if token.kind == "sign" and token.text in ("le", "ge", "ne", "in"):
            return None
        self.take()
        operator = _RELATIONS[token.text]
        if operator in "<>" and self.at_sign("="):  # "< =" and "\leq" spelled apart
            self.take()
            operator = "≤" if operator == "<" else "≥"
        return operator

    def union(self) -> Node:
        """Sets joined by ∪, ∩ and \\."""
        left = self.quantity()
        while self.peek.kind == "command" and self.peek.text in _SET_OPERATIONS:
            kind = _SET_OPERATIONS[self.take().text]
            right = self.quantity()
            if kind == "union" and left.kind == "union":
                left = Node("union", None, (*left.args, right))
            else:
                left = Node(kind, None, (left, right))
        return left

    def quantity(self) -> Node:
        """A sum, with the currency before it or the unit behind it."""
        prefix = ""
        while self.peek.kind == "command" and self.peek.text == "approx":  # "≈ 8.24": the sign says nothing new
            self.take()
        sign = self.at_sign("-") and self.tokens[self.at + 1].kind == "text"
        if sign:
            self.take()
        if self.peek.kind == "text" and self.peek.text in CANONICAL and self.peek.text in "$€£¥":
            prefix = CANONICAL[self.take().text]
        node = self.sum()
        if sign:
            node = Node("neg", None, (node,))
        if self.peek.kind == "sign" and self.peek.text == ":" and is_scalar(node):
            parts = [node]
            while self.at_sign(":"):
                self.take()
                parts.append(self.sum())
            node = Node("ratio", None, tuple(parts))
        unit = self._unit()
        if prefix and unit:
            if not agree(prefix, unit) and not unit.startswith("label "):
                raise UnreadableError(f"two units, {prefix} and {unit}")
            unit = prefix
        unit = prefix or unit
        if node.kind == "percent" and not unit:
            return Node("quantity", "%", node.args)
        return Node("quantity", unit, (node,)) if unit else node

    def _unit(self) -> str:
        """The unit or label that ends a value; "" if there is none. Only words, `/` and exponents belong to it."""
        start = self.at
        words: list[str] = []
        opened = False
        while True:
            token = self.peek
            word = token.kind in ("text", "letters") and not self._at_connector()
            sign = bool(words) and token.kind == "sign" and token.text in "^/.-"
            exponent = bool(words) and token.kind == "num" and words[-1] in "^{-"
            if word or sign or exponent:
                words.append(token.text)
            elif words and words[-1] == "^" and token.kind == "open" and token.text == "{":
                words.append("{")
                opened = True
            elif opened and token.kind == "close" and token.text == "}":
                words.append("}")
                opened = False
            else:
                break
            self.take()
        if not words:
            return ""
        unit = read_unit(" ".join(words).replace("^ ", "^").replace("{ ", "{").replace(" }", "}"))
        if unit is None:
            self.at = start
            raise UnreadableError(f"the words {' '.join(words)!r} are no unit")
        return unit

    def sum(self) -> Node:
        """Terms joined by + - ± ∓."""
        self.descend()
        terms = [self._term(self._leading_sign())]
        while True:
            token = self.peek
            if (token.kind == "sign" and token.text in "+-") or (
                token.kind == "command" and token.text in ("pm", "mp")
            ):
                self.take()
                terms.append(self._term(token.text, self._leading_sign()))
            else:
                break
            if len(terms) > MAX_TERMS:
                raise UnreadableError(f"more than {MAX_TERMS} terms")
        self.ascend()
        return terms[0] if len(terms) == 1 else Node("add", None, tuple(terms))

    def _leading_sign(self) -> str:
        """The sign before a term, several of them (`--3`) multiplied out."""
        result = ""
        while True:
            token = self.peek
            if token.kind == "sign" and token.text in "+-":
                result = result if token.text == "+" else ("" if result == "-" else "-")
            elif token.kind == "command" and token.text in ("pm", "mp"):
                result = token.text
            else:
                return result
            self.take()

    def _term(self, *signs: str) -> Node:
        node = self.product()
        for sign in reversed(signs):
            if sign == "-":
                node = Node("neg", None, (node,))
            elif sign in ("pm", "mp"):
                node = Node("pm", 1 if sign == "pm" else -1, (node,))
        return node

    def product(self) -> Node:
        """Factors joined by × · / or nothing; `/` divides by the one factor behind it."""
        result = self.factor()
        pending = [result]
        divisions = 0
        while True:
            token = self.peek
            if token.kind == "sign" and token.text == "*":
                self.take()
                pending.append(self._signed_factor())
            elif token.kind == "sign" and token.text == "/":
                self.take()
                divisor = self._signed_factor()
                pending = [self._divide(pending, divisor)]
                divisions += 1
                if divisions > 40:
                    raise UnreadableError("too many divisions in a row")
            elif self._starts_factor(token):
                pending.append(self._juxtaposed(pending))
            else:
                break
            if len(pending) > MAX_TERMS:
                raise UnreadableError(f"more than {MAX_TERMS} factors")
        return pending[0] if len(pending) == 1 else Node("mul", None, tuple(pending))

    def _signed_factor(self) -> Node:
        negative = self._leading_sign()
        node = self.factor()
        if negative in ("pm", "mp"):
            return Node("pm", 1 if negative == "pm" else -1, (node,))
        return Node("neg", None, (node,)) if negative else node

    def _divide(self, factors: list[Node], divisor: Node) -> Node:
        """`a b / c`; in "1 1/2" the last two numbers are a mixed number's fraction."""
        if self.mixed_at is not None:
            self.mixed_at = None
            if len(factors) == 2 and divisor.kind == "num" and factors[1].value < divisor.value:
                return Node("add", None, (factors[0], Node("div", None, (factors[1], divisor))))
            raise UnreadableError("two numbers side by side")
        dividend = factors[0] if len(factors) == 1 else Node("mul", None, tuple(factors))
        return Node("div", None, (dividend, divisor))

    def _starts_factor(self, token: Token) -> bool:
        if token.kind == "num" or (token.kind == "open" and token.text != "\\{"):
            return True
        if token.kind == "letters":
            return not is_word(token.text, after_value=True)
        if token.kind == "command":
            return starts_value(token.text)
        return token.kind == "sign" and token.text == "|" and not self.in_bars

    def _juxtaposed(self, factors: list[Node]) -> Node:
        """A factor written behind another: numbers side by side are only read as mixed numbers or grouped digits."""
        previous, token = factors[-1], self.peek
        if token.kind == "num" and previous.kind == "num" and len(factors) == 1:
            return self._second_number(factors)
        literal = self.literal
        node = self.factor()
        if literal and len(factors) == 1 and self.literal_fraction is node and previous.kind == "num":
            top, bottom = node.args
            if top.value >= bottom.value:
                raise UnreadableError("a number beside an improper fraction")
            factors.pop()
            return Node("add", None, (previous, node))
        if token.kind == "num" and previous.kind == "num":
            raise UnreadableError("two numbers side by side")
        return node

    def _second_number(self, factors: list[Node]) -> Node:
        """The number after a number and a space: thousands (`10 000`) or the numerator of a mixed number (`1 1/2`)."""
        token = self.take()
        following = self.tokens[self.at]
        if token.spaced and len(token.text) == 3 and token.text.isdigit() and factors[0].value < 1000:
            whole = token.text
            while (
                self.peek.kind == "num" and self.peek.spaced and len(self.peek.text) == 3 and self.peek.text.isdigit()
            ):
                whole += self.take().text
            first = factors.pop()
            if first.value.denominator == 1 and not (self.at_sign("/")):
                return Node("num", first.value * 10 ** len(whole) + int(whole))
            raise UnreadableError("two numbers side by side")
        if token.spaced and following.kind == "sign" and following.text == "/" and token.text.isdigit():
            self.mixed_at = self.number_node(token.text)
            return self.mixed_at
        raise UnreadableError("two numbers side by side")
