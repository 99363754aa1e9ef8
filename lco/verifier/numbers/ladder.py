"""Are two expressions equal? The ladder from the cheapest certain answer to the dearest.

    1. exact rational arithmetic                       decides
    2. arithmetic modulo primes (modular.py)           decides for algebraic expressions
    3. values to 60 digits at random points            rejects; agreement alone does not accept
    4. a proof (proof.py, in a worker process)         accepts what survived step 3

Where step 4 is not at hand, or the work becomes too much for the caller's process, `compare` raises NeedsWorkerError, and the
caller hands the case to a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from lco.verifier.numbers.effort import Effort, NeedsWorkerError
from lco.verifier.numbers.modular import equal_modulo
from lco.verifier.numbers.points import points
from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, RefusedError, UndefinedError, has_i, number, symbols, walk

if TYPE_CHECKING:
    from lco.verifier.numbers.numeric import Value

Prover = Callable[[Node, Node, frozenset[str]], bool]

PRECISION = 230  # bits, some 69 digits
AGREEMENT = 200  # bits that have to agree
_ROUGH = 80  # bits of the values by which unequal constants are told apart cheaply
_NOTHING = -(10**8)  # the magnitude of zero is below that
_LEAST_POINTS = 3


def infinite(node: Node) -> int:
    """+1 or -1 for infinity with its sign, 0 for anything else."""
    if node.kind == "const" and node.value == "inf":
        return 1
    return -infinite(node.args[0]) if node.kind == "neg" else 0


def _with_base(node: Node, base: Node | None) -> Node:
    """The expression with `log` read as the logarithm to this base, None for the natural one."""
    if not node.args:
        return node
    parts = tuple(_with_base(part, base) for part in node.args)
    if node.kind == "fn" and node.value == "log":
        return Node("fn", "ln", parts) if base is None else Node("fn", "logb", (base, *parts))
    return Node(node.kind, node.value, parts)


class Ladder:
    """Compares expressions under one tolerance; `prover` is None where no proof may be attempted.

    Values are kept for as long as the ladder lives, so that each of many list elements is evaluated once.
    """

    def __init__(
        self, tolerance: float, prover: Prover | None, note: Callable[[str], None], effort: Effort | None = None
    ) -> None:
        self.tolerance = tolerance
        self.prover = prover
        self.note = note
        self.effort = effort or Effort(None)
        self.proved = False
        self._rough: dict[int, tuple[Node, Value | None, int]] = {}

    def compare(self, gold: Node, answer: Node) -> bool:
        """Whether the expressions are equal, or close enough where the task allows a tolerance."""
        self.effort.step()
        signs = infinite(gold), infinite(answer)
        if any(signs):
            return signs[0] == signs[1]
        one, other = rational(gold), rational(answer)
        if one is not None and other is not None:
            return self._rationals(one, other)
        self.effort.check()
        if gold == answer:
            if not self.has_value(answer):
                raise UndefinedError("the expression has no value")
            return True
        if any(part.kind == "fn" and part.value == "log" for top in (gold, answer) for part in walk(top)):
            # `log` without a base is common or natural, whichever makes the two agree, but the same for both.
            return any(self._decide(_with_base(gold, base), _with_base(answer, base)) for base in (number(10), None))
        return self._decide(gold, answer)

    def apart(self, gold: Node, answer: Node) -> bool:
        """Whether two constants certainly differ, by values that are worked out once for each: for lists of many values."""
        from lco.verifier.numbers.numeric import distance, magnitude  # mpmath: only where it is needed

        self.effort.step()
        if self.tolerance or infinite(gold) or infinite(answer):
            return False
        (one, scale), (other, other_scale) = self._roughly(gold), self._roughly(answer)
        if one is None or other is None:
            return False
        gap = distance(one, other, _ROUGH)
        scale = max(scale, other_scale, magnitude(one), magnitude(other))
        return gap > _NOTHING and gap > scale - _ROUGH + 30

    def _roughly(self, node: Node) -> tuple[Value | None, int]:
        """The value of a constant to a few digits and the largest magnitude on the way; None for other expressions."""
        from lco.verifier.numbers.numeric import Evaluator  # mpmath: only where it is needed

        if id(node) not in self._rough:
            value, scale = None, 0
            if not any(part.kind in ("sym", "call") or (part.kind, part.value) == ("fn", "log") for part in walk(node)):
                evaluator = Evaluator(_ROUGH, {}, False, self.effort)
                try:
                    value, scale = evaluator.value(node), evaluator.scale
                except (UndefinedError, RefusedError, KeyError):
                    value = None
            self._rough[id(node)] = node, value, scale  # with the node, whose id is its own as long as it lives
        return self._rough[id(node)][1:]

    def has_value(self, node: Node) -> bool:
        """Whether the expression has a value somewhere: false for 0/0 and its kin."""
        if node.kind in ("num", "sym") or infinite(node):
            return True
        try:
            if rational(node) is not None:
                return True
            if not any(part.kind in ("div", "fn", "pow", "const") for part in walk(node)):
                return True
            return self._defined_somewhere(node)
        except UndefinedError:
            return False

    def _defined_somewhere(self, node: Node) -> bool:
        from lco.verifier.numbers.numeric import Evaluator  # mpmath: only where it is needed

        names = symbols(node)
        for point in points(names):
            try:
                Evaluator(_ROUGH, point, bool(names) and not has_i(node), self.effort).value(_with_base(node, None))
                return True
            except UndefinedError:
                continue
        return False

    def _rationals(self, gold: Fraction, answer: Fraction) -> bool:
        if gold == answer:
            return True
        if self.tolerance and gold and abs(answer - gold) <= abs(gold) * Fraction(self.tolerance) * Fraction(1 + 1e-9):
            self.note(f"within the relative tolerance of {self.tolerance:g}")
            return True
        return False

    def _decide(self, gold: Node, answer: Node) -> bool:
        decided = equal_modulo(gold, answer, self.effort)
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
            raise NeedsWorkerError
        self.proved = self.prover(gold, answer, names)
        self.note("proved equal" if self.proved else "no proof of equality was found")
        return self.proved

    def _numeric(self, gold: Node, answer: Node, names: frozenset[str]) -> bool | None:
        """False if the values differ somewhere, True if they are within the tolerance, None if a proof is wanted."""
        from lco.verifier.numbers.numeric import (  # mpmath: only where it is needed
            Evaluator,
            distance,
            magnitude,
            within,
        )

        real = bool(names) and not has_i(gold) and not has_i(answer)
        seen = 0
        undefined: UndefinedError | None = None
        for point in points(names):
            left, right = (Evaluator(PRECISION, point, real, self.effort) for _ in range(2))
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
    return " at " + ", ".join(f"{name} = {float(value):.6g}" for name, value in sorted(point.items())) if point else ""
