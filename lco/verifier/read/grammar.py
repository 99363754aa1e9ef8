"""The grammar of answers: tokens in, one `Node` out.

A descent through the usual levels, loosest first; a level is handed the levels that it may call:

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

from collections.abc import Callable

from lco.verifier.read.atoms import Atoms
from lco.verifier.read.congruences import Congruences, share_modulus
from lco.verifier.read.cursor import Cursor
from lco.verifier.read.measures import Units
from lco.verifier.read.names import is_named, is_word, starts_value
from lco.verifier.read.numerals import decimal
from lco.verifier.read.tokens import Token, tokenize
from lco.verifier.read.units import agree
from lco.verifier.tree import Node, UnreadableError, is_scalar

_RELATIONS = {
    "equiv": "≡",
    "=": "=",
    "<": "<",
    ">": ">",
    "le": "≤",
    "ge": "≥",
    "ne": "≠",
    "approx": "≈",
    "in": "∈",
    "notin": "∉",
}
_SET_OPERATIONS = {"cup": "union", "cap": "intersection", "setminus": "minus"}
_CONNECTORS = {"and": "and", ", and": "and", "and,": "and", "or": "or", ", or": "or", "or,": "or", "lor": "or", "land": "and",
               "和": "and", "与": "and", "或": "or", "或者": "or"}  # fmt: skip
_DOTS = Node("sym", "…")
MAX_TERMS = 400


def parse(text: str) -> Node:
    """The answer a cleaned text states; raises UnreadableError where the grammar does not reach."""
    cursor = Cursor(tokenize(text))
    grammar = Grammar(cursor)
    node = grammar.atoms.brackets.infix(grammar.answer())
    if cursor.peek.kind != "end":
        raise UnreadableError(f"cannot read on at {cursor.peek.text!r}")
    return node


class Grammar:
    """The levels above a factor; `mixed_at` is the numerator of "1 1/2" while its fraction is being read."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.atoms = Atoms(cursor, self)
        self.units = Units(cursor)
        self.congruences = Congruences(cursor, self.atoms)
        self.mixed_at: Node | None = None

    def answer(self, *closers: str) -> Node:
        """Values joined by commas, semicolons and connecting words; one value alone is itself."""
        values = [self.relation()]
        joints: set[str] = set()
        while (joint := self._separator(closers)) is not None:
            joints.add(joint)
            values.append(self.relation())
            if len(values) > MAX_TERMS:
                raise UnreadableError(f"more than {MAX_TERMS} values")
        values = share_modulus(values)
        if len(values) == 1:
            return values[0]
        word = "or" if "or" in joints else "and" if "and" in joints else ","
        return Node("list", word, tuple(values))

    def _separator(self, closers: tuple[str, ...]) -> str | None:
        found = None
        while self.cursor.at_sign(",") or self.cursor.at_sign(";") or self._at_connector():
            found = _CONNECTORS.get(self.cursor.take().text.strip().lower(), found or ",")
        # A separator with nothing behind it ("3, 4,") is punctuation.
        if self.cursor.peek.kind == "end" or (self.cursor.peek.kind == "close" and self.cursor.peek.text in closers):
            return None
        return found

    def _at_connector(self) -> bool:
        token = self.cursor.peek
        if token.kind == "command":
            return token.text in ("lor", "land")
        return token.kind in ("letters", "text") and token.text.strip().lower() in _CONNECTORS

    def relation(self) -> Node:
        """One value, or values chained by relation signs, perhaps modulo a number."""
        parts, operators = [self.union()], []
        while (operator := self._relation_sign()) is not None:
            operators.append(operator)
            parts.append(self.union())
        node = parts[0] if not operators else Node("rel", tuple(operators), tuple(parts))
        modulus = self.congruences.modulus()
        return node if modulus is None else Node("congruence", None, (node, modulus))

    def _relation_sign(self) -> str | None:
        token = self.cursor.peek
        if token.kind not in ("sign", "command") or token.text not in _RELATIONS:
            return None
        if token.kind == "sign" and token.text.isalpha():
            return None
        self.cursor.take()
        operator = _RELATIONS[token.text]
        if operator in "<>" and self.cursor.at_sign("="):  # "< =" and "\leq" spelled apart
            self.cursor.take()
            operator = "≤" if operator == "<" else "≥"
        return operator

    def union(self) -> Node:
        """Sets joined by ∪, ∩ and \\."""
        left = self.quantity()
        while self.cursor.peek.kind == "command" and self.cursor.peek.text in _SET_OPERATIONS:
            kind = _SET_OPERATIONS[self.cursor.take().text]
            right = self.quantity()
            if kind == "union" and left.kind == "union":
                left = Node("union", None, (*left.args, right))
            else:
                left = Node(kind, None, (left, right))
        return left

    def quantity(self) -> Node:
        """A sum, with the currency before it or the unit behind it."""
        cursor = self.cursor
        while cursor.at_command("approx"):  # "≈ 8.24": the sign says nothing new
            cursor.take()
        if cursor.at_command("dots") and cursor.ahead().text in (",", ";", ""):  # 1, 2, …, n
            cursor.take()
            return Node("sym", "…")
        negative = cursor.at_sign("-") and cursor.ahead().kind == "text"
        if negative:
            cursor.take()
        prefix = self.units.currency()
        node = self.sum()
        if negative:
            node = Node("neg", None, (node,))
        if is_scalar(node) and self._at_ratio():
            parts = [node]
            while self._at_ratio():
                cursor.take()
                parts.append(self.sum())
            node = Node("ratio", None, tuple(parts))
        node, unit = self.units.behind(node)
        if prefix and unit:
            if not agree(prefix, unit) and not unit.startswith("label "):
                raise UnreadableError(f"two units, {prefix} and {unit}")
            unit = prefix
        unit = prefix or unit
        if node.kind == "percent" and not unit:
            return Node("quantity", "%", node.args)
        return Node("quantity", unit, (node,)) if unit else node

    def _at_ratio(self) -> bool:
        return self.cursor.at_sign(":") or self.cursor.at_word("to", "is to")

    def sum(self) -> Node:
        """Terms joined by + - ± ∓."""
        self.cursor.enter()
        terms = [self._term(self._leading_sign())]
        while True:
            token = self.cursor.peek
            if (token.kind == "sign" and token.text in "+-") or (
                token.kind == "command" and token.text in ("pm", "mp")
            ):
                self.cursor.take()
                if self.cursor.at_command("dots") and self.cursor.ahead().text == "+":
                    terms.append(self._dots())
                else:
                    terms.append(self._term(token.text, self._leading_sign()))
            else:
                break
            if len(terms) > MAX_TERMS:
                raise UnreadableError(f"more than {MAX_TERMS} terms")
        self.cursor.leave()
        terms = _with_named_dots(terms)
        return terms[0] if len(terms) == 1 else Node("add", None, tuple(terms))

    def _dots(self) -> Node:
        """What dots between two terms or factors leave out."""
        self.cursor.take()
        return _DOTS

    def _leading_sign(self) -> str:
        """The sign before a term, several of them (`--3`) multiplied out."""
        result = ""
        while True:
            token = self.cursor.peek
            if token.kind == "sign" and token.text in "+-":
                result = result if token.text == "+" else ("" if result == "-" else "-")
            elif token.kind == "command" and token.text in ("pm", "mp"):
                result = token.text
            else:
                return result
            self.cursor.take()

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
        result = self.atoms.factor()
        pending = [result]
        divisions = 0
        while True:
            token = self.cursor.peek
            if (token.kind == "sign" and token.text == "*") or self._at_times():
                self.cursor.take()
                dots = self.cursor.at_command("dots") and self.cursor.ahead().text == "*"
                pending.append(self._dots() if dots else self._signed_factor())
            elif token.kind == "command" and token.text == "dots" and self._starts_factor(self.cursor.ahead()):
                pending.append(self._dots())
            elif token.kind == "sign" and token.text == "/":
                self.cursor.take()
                divisor = self._signed_factor()
                pending = [self._divide(pending, divisor)]
                divisions += 1
                if divisions > 40:
                    raise UnreadableError("too many divisions in a row")
            elif self._starts_factor(token) and not (pending[-1].kind == "degree" and token.text in ("C", "F")):
                pending.append(self._juxtaposed(pending))
            else:
                break
            if len(pending) > MAX_TERMS:
                raise UnreadableError(f"more than {MAX_TERMS} factors")
        pending = _with_named_dots(pending)
        return pending[0] if len(pending) == 1 else Node("mul", None, tuple(pending))

    def _at_times(self) -> bool:
        """Whether the word "times" stands before a factor: "7 times x", but not "7 times a day"."""
        following, behind = self.cursor.ahead(), self.cursor.ahead(2)
        if not self.cursor.at_word("times") or not self._starts_factor(following):
            return False
        if following.kind != "letters":
            return True
        article = following.text in ("a", "an") and behind.kind in ("letters", "text")
        return not article and (len(following.text) == 1 or is_named(following.text))

    def _signed_factor(self) -> Node:
        negative = self._leading_sign()
        node = self.atoms.factor()
        if negative in ("pm", "mp"):
            return Node("pm", 1 if negative == "pm" else -1, (node,))
        return Node("neg", None, (node,)) if negative else node

    def _divide(self, factors: list[Node], divisor: Node) -> Node:
        """`a b / c`; in "1 1/2" the last two numbers are a mixed number's fraction."""
        if self.mixed_at is not None:
            self.mixed_at = None
            bare, outer = _unwrapped(divisor)
            if len(factors) == 2 and bare.kind == "num" and factors[1].value < bare.value:
                return outer(Node("add", None, (factors[0], Node("div", None, (factors[1], bare)))))
            raise UnreadableError("two numbers side by side")
        dividend = factors[0] if len(factors) == 1 else Node("mul", None, tuple(factors))
        return Node("div", None, (dividend, divisor))

    def _starts_factor(self, token: Token) -> bool:
        if token.kind == "open" and self.congruences.at_bracket():
            return False
        if token.kind in ("num", "begin") or (token.kind == "open" and token.text != "\\{"):
            return True
        if token.kind == "letters":
            return not is_word(token.text, after_value=True)
        if token.kind == "command":
            return starts_value(token.text) and not self.units.at_quotient()
        return token.kind == "sign" and token.text == "|" and not self.cursor.in_bars

    def _juxtaposed(self, factors: list[Node]) -> Node:
        """A factor written behind another: numbers side by side are only read as mixed numbers or grouped digits."""
        previous, token = factors[-1], self.cursor.peek
        if token.kind == "num" and previous.kind == "num" and len(factors) == 1:
            return self._second_number(factors)
        literal = self.cursor.literal
        node = self.atoms.factor()
        if node.kind in ("rel", "list", "congruence"):
            raise UnreadableError("a statement beside a value")
        bare, outer = _unwrapped(node)
        if literal and len(factors) == 1 and self.cursor.literal_fraction is bare and previous.kind == "num":
            top, bottom = bare.args
            if top.value >= bottom.value:
                raise UnreadableError("a number beside an improper fraction")
            factors.pop()
            return outer(Node("add", None, (previous, bare)))
        if token.kind == "num" and previous.kind == "num":
            raise UnreadableError("two numbers side by side")
        return node

    def _second_number(self, factors: list[Node]) -> Node:
        """The number after a number and a space: thousands (`10 000`) or the numerator of a mixed number (`1 1/2`)."""
        token = self.cursor.take()
        following = self.cursor.peek
        if _is_thousands(token) and factors[0].value < 1000:
            whole = token.text
            while _is_thousands(self.cursor.peek):
                whole += self.cursor.take().text
            first = factors.pop()
            if first.value.denominator == 1 and not (self.cursor.at_sign("/")):
                return Node("num", first.value * 10 ** len(whole) + int(whole))
            raise UnreadableError("two numbers side by side")
        if token.spaced and following.kind == "sign" and following.text == "/" and token.text.isdigit():
            self.mixed_at = decimal(token.text)
            return self.mixed_at
        raise UnreadableError("two numbers side by side")


def _unwrapped(node: Node) -> tuple[Node, Callable[[Node], Node]]:
    """A value without the % or ° behind it, and what puts that back: `37\\frac12\\%` is a mixed number with its sign."""
    if node.kind in ("percent", "degree"):
        return node.args[0], lambda inner: Node(node.kind, None, (inner,))
    return node, lambda inner: inner


def _with_named_dots(parts: list[Node]) -> list[Node]:
    """Dots as a letter that is named after its neighbours, so that only the same gap is the same letter."""
    if _DOTS not in parts:
        return parts
    return [
        Node("sym", f"… between {parts[at - 1]} and {parts[at + 1]}") if part is _DOTS else part
        for at, part in enumerate(parts)
    ]


def _is_thousands(token: Token) -> bool:
    """Whether a token is three digits behind a space: `10 000`."""
    return token.kind == "num" and token.spaced and len(token.text) == 3 and token.text.isdigit()
