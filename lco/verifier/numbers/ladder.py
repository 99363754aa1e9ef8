"""Are two expressions equal? The ladder from the cheapest certain answer to the dearest.

    1. exact rational arithmetic                       decides
    2. arithmetic modulo primes (modular.py)           decides for algebraic expressions
    3. values to 60 digits at fixed random points      rejects; agreement alone does not accept
    4. a proof (proof.py, in a worker process)         accepts what survived step 3

Without step 4 at hand, `compare` raises NeedsProofError, and the caller hands the case to a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from lco.verifier.numbers.modular import equal_modulo
from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, RefusedError, UndefinedError, number, symbols, walk

Prover = Callable[[Node, Node, frozenset[str]], bool]

PRECISION = 230  # bits, some 69 digits
AGREEMENT = 200  # bits that have to agree
_LEAST_POINTS = 3

# Where letters are tried. Whole numbers come too, because factorials, binomials and (-1)^n have values only there.
_VALUES = (
    (Fraction(31, 17), Fraction(-53, 23), Fraction(67, 41), Fraction(-29, 13), Fraction(71, 59), Fraction(-37, 19)),
    (Fraction(-41, 29), Fraction(73, 31), Fraction(-19, 43), Fraction(83, 61), Fraction(-47, 37), Fraction(59, 53)),
    (Fraction(11, 37), Fraction(17, 29), Fraction(23, 31), Fraction(5, 43), Fraction(13, 47), Fraction(19, 53)),
    (Fraction(113, 19), Fraction(97, 23), Fraction(61, 11), Fraction(151, 31), Fraction(83, 13), Fraction(47, 7)),
    (Fraction(-61, 37), Fraction(-43, 29), Fraction(-89, 53), Fraction(-31, 47), Fraction(-71, 61), Fraction(-23, 41)),
    (Fraction(7), Fraction(3), Fraction(11), Fraction(5), Fraction(2), Fraction(13)),
    (Fraction(4), Fraction(9), Fraction(6), Fraction(10), Fraction(12), Fraction(8)),
    (Fraction(11), Fraction(4), Fraction(7), Fraction(2), Fraction(9), Fraction(3)),
    (Fraction(6), Fraction(2), Fraction(3), Fraction(12), Fraction(5), Fraction(4)),
    (Fraction(15), Fraction(8), Fraction(12), Fraction(9), Fraction(4), Fraction(1)),
)


class NeedsProofError(Exception):
    """Numbers agree and a proof is wanted that only a worker may look for."""


def points(names: frozenset[str]) -> list[dict[str, Fraction]]:
    """The points at which expressions over these letters are compared."""
    if not names:
        return [{}]
    order = sorted(names)
    return [
        {name: row[index % 6] + (index // 6) * (row[5 - index % 6] + 1) for index, name in enumerate(order)}
        for row in _VALUES
    ]


def infinite(node: Node) -> int:
    """+1 or -1 for infinity with its sign, 0 for anything else."""
    if node.kind == "const" and node.value == "inf":
        return 1
    return -infinite(node.args[0]) if node.kind == "neg" else 0


def has_value(node: Node) -> bool:
    """Whether the expression has a value somewhere: false for 0/0 and its kin."""
    if node.kind in ("num", "sym") or infinite(node):
        return True
    try:
        if rational(node) is not None:
            return True
        if not any(part.kind in ("div", "fn", "pow", "const") for part in walk(node)):
            return True
        return _defined_somewhere(node)
    except UndefinedError:
        return False


def _defined_somewhere(node: Node) -> bool:
    from lco.verifier.numbers.numeric import Evaluator

    names = symbols(node)
    for point in points(names):
        try:
            Evaluator(80, point, bool(names) and not has_i(node)).value(_with_base(node, None))
            return True
        except UndefinedError:
            continue
    return False


def _with_base(node: Node, base: Node | None) -> Node:
    """The expression with `log` read as the logarithm to this base, None for the natural one."""
    if not node.args:
        return node
    parts = tuple(_with_base(part, base) for part in node.args)
    if node.kind == "fn" and node.value == "log":
        return Node("fn", "ln", parts) if base is None else Node("fn", "logb", (base, *parts))
    return Node(node.kind, node.value, parts)


def has_i(node: Node) -> bool:
    """Whether the imaginary unit occurs."""
    return any(part.kind == "const" and part.value == "i" for part in walk(node))


class Ladder:
    """Compares expressions under one tolerance; `prover` is None where no proof may be attempted."""

    def __init__(self, tolerance: float, prover: Prover | None, note: Callable[[str], None]) -> None:
        self.tolerance = tolerance
        self.prover = prover
        self.note = note
        self.proved = False

    def compare(self, gold: Node, answer: Node) -> bool:
        """Whether the expressions are equal, or close enough where the task allows a tolerance."""
        signs = infinite(gold), infinite(answer)
        if any(signs):
            return signs[0] == signs[1]
        one, other = rational(gold), rational(answer)
        if one is not None and other is not None:
            return self._rationals(one, other)
        if gold == answer:
            if not has_value(answer):
                raise UndefinedError("the expression has no value")
            return True
        if any(part.kind == "fn" and part.value == "log" for top in (gold, answer) for part in walk(top)):
            # `log` without a base is common or natural, whichever makes the two agree, but the same for both.
            return any(self._decide(_with_base(gold, base), _with_base(answer, base)) for base in (number(10), None))
        return self._decide(gold, answer)

    def _rationals(self, gold: Fraction, answer: Fraction) -> bool:
        if gold == answer:
            return True
        if self.tolerance and gold and abs(answer - gold) <= abs(gold) * Fraction(self.tolerance) * Fraction(1 + 1e-9):
            self.note(f"within the relative tolerance of {self.tolerance:g}")
            return True
        return False

    def _decide(self, gold: Node, answer: Node) -> bool:
        decided = equal_modulo(gold, answer)
        if decided:
            self.note("equal by arithmetic modulo two large primes")
            return True
        names = symbols(gold) | symbols(answer)
        if decided is False and (names or not self.tolerance):
            self.note("unequal by arithmetic modulo two large primes")
            return False
        agree = self._numeric(gold, answer, names)
        if agree is not None:
            return agree
        if self.prover is None:
            raise NeedsProofError
        self.proved = self.prover(gold, answer, names)
        self.note("proved equal" if self.proved else "no proof of equality was found")
        return self.proved

    def _numeric(self, gold: Node, answer: Node, names: frozenset[str]) -> bool | None:
        """False if the values differ somewhere, True if they are within the tolerance, None if a proof is wanted."""
        from lco.verifier.numbers.numeric import Evaluator, distance, magnitude, within

        real = bool(names) and not has_i(gold) and not has_i(answer)
        seen = 0
        undefined: UndefinedError | None = None
        for point in points(names):
            left, right = (Evaluator(PRECISION, point, real) for _ in range(2))
            try:
                one, other = left.value(gold), right.value(answer)
            except UndefinedError as error:
                undefined = error
                continue
            if self.tolerance and not names:
                close = within(other, one, self.tolerance)
                self.note(f"{'within' if close else 'outside'} the relative tolerance of {self.tolerance:g}")
                return close
            scale = max(left.scale, right.scale, magnitude(one), magnitude(other))
            if distance(one, other, PRECISION) > scale - AGREEMENT:
                self.note(f"the values differ{_where(point)}")
                return False
            seen += 1
        if not names and undefined is not None:
            raise undefined
        if names and seen < _LEAST_POINTS:
            raise RefusedError("undecided", "the expressions have values at too few points to be compared")
        self.note(f"the values agree to {AGREEMENT} bits at {seen} points")
        return None


def _where(point: dict[str, Fraction]) -> str:
    return " at " + ", ".join(f"{name} = {value}" for name, value in sorted(point.items())) if point else ""
