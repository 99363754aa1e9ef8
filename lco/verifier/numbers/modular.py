"""Equality of algebraic expressions by arithmetic modulo large primes.

A polynomial identity that holds at a random point modulo a random prime of 61 bits fails to hold in general with a
probability of about 2**-55 (Schwartz and Zippel); two primes make that 2**-110. So rational functions are compared
without expanding them, and `2^{10^9}` without writing it out. The primes are drawn anew in every process, so that no text
can be written that vanishes modulo both.

Roots of rational numbers take part: they are written as products of coprime numbers (primes.coprime_basis), whose roots
are given images of their own in the field of P² elements. `i` lives there too, because P = 3 mod 4. π, e and the
logarithms of the coprime numbers stand for themselves as letters: equal as letters is equal, unequal as letters is only a
hint, because nobody knows all relations between them.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property, reduce
from hashlib import blake2b

from lco.verifier.numbers.effort import Effort
from lco.verifier.numbers.primes import coprime_basis, drawn_primes, exponents
from lco.verifier.numbers.rational import MAX_FACTORIAL, rational
from lco.verifier.tree import Node, UndefinedError, walk

_MAX_DEGREE = 5_000
_MAX_TWOS = 12  # of a degree: 4096 = 2^12
_MAX_RADICAND_BITS = 4_000
_MAX_RADICANDS = 400

Element = tuple[int, int]  # a + b·i


class UnsupportedError(Exception):
    """The expression is no algebraic one."""


def equal_modulo(one: Node, other: Node, effort: Effort) -> bool | None:
    """Whether two expressions are equal; None if modular arithmetic cannot tell."""
    try:
        degree, radicands, hint_only = _survey(one, other)
        basis = coprime_basis(radicands, degree, effort)
        fields = [Field(prime, degree, basis, effort) for prime in drawn_primes(degree)]
        same = [field.value(one) == field.value(other) for field in fields]
    except UnsupportedError:
        return None
    if all(same):
        return True
    return None if hint_only or any(same) else False


def _survey(*nodes: Node) -> tuple[int, list[int], bool]:
    """The common degree of all roots, the numbers under roots and logarithms, and whether letters stand for
    transcendental numbers."""
    degrees, radicands, hint_only = [1], [], False
    for top in nodes:
        for node in walk(top):
            if (node.kind == "const" and node.value in ("pi", "e")) or node.kind == "degree":
                hint_only = True
            elif node.kind == "fn":
                hint_only = True
                for part in node.args if node.value in ("ln", "logb") else ():
                    radicands += _whole_numbers(part)
            elif node.kind == "root":
                degrees.append(node.value)
                radicands += _whole_numbers(node.args[0])
            elif node.kind == "pow":
                exponent = rational(node.args[1])
                if exponent is None:
                    raise UnsupportedError
                if exponent.denominator != 1:
                    degrees.append(exponent.denominator)
                    radicands += _whole_numbers(node.args[0])
    degree = reduce(math.lcm, degrees)
    if degree > _MAX_DEGREE or degree % (2 << _MAX_TWOS) == 0 or len(radicands) > _MAX_RADICANDS:
        raise UnsupportedError
    return degree, radicands, hint_only


def _whole_numbers(node: Node) -> list[int]:
    """Numerator and denominator of what stands under a root or a logarithm."""
    if node.kind == "const" and node.value in ("e", "pi"):
        return []
    value = rational(node)
    if value is None or value == 0:
        raise UnsupportedError
    found = [abs(value.numerator), value.denominator]
    if max(found).bit_length() > _MAX_RADICAND_BITS:
        raise UnsupportedError
    return found


class Field:
    """Evaluates expressions in the field of P² elements at a point fixed by the names of the letters."""

    def __init__(self, prime: int, degree: int, basis: tuple[int, ...], effort: Effort) -> None:
        self.prime = prime
        self.degree = degree
        self.basis = basis
        self.effort = effort
        self._roots: dict[int, Element] = {}

    def letter(self, name: str) -> int:
        """The image of a letter: any fixed number that has nothing to do with the expression."""
        return int.from_bytes(blake2b(f"{name}|{self.prime}".encode(), digest_size=16).digest(), "big") % self.prime

    def value(self, node: Node) -> Element:
        """The image of the expression."""
        self.effort.step()
        kind = node.kind
        if kind == "num":
            return self._fraction(node.value)
        if kind == "sym":
            return self.letter(node.value), 0
        if kind == "const":
            return self._constant(node.value)
        if kind == "pow":
            return self._power(node)
        if kind == "root":
            return self._root(node.args[0], Fraction(1, node.value))
        if kind in ("fact", "binom", "fn"):
            return self._function(node)
        values = [self.value(part) for part in node.args]
        if kind == "add":
            return sum(value[0] for value in values) % self.prime, sum(value[1] for value in values) % self.prime
        if kind == "mul":
            return reduce(self.times, values)
        if kind == "neg":
            return -values[0][0] % self.prime, -values[0][1] % self.prime
        if kind == "div":
            return self.times(values[0], self.inverse(values[1]))
        if kind == "percent":
            return self.times(values[0], self._fraction(Fraction(1, 100)))
        if kind == "degree":
            return self.times(values[0], self.times(self._constant("pi"), self._fraction(Fraction(1, 180))))
        if kind == "call":
            return self.letter(f"{node.value}({values})"), 0
        raise UnsupportedError

    def times(self, one: Element, other: Element) -> Element:
        """A product."""
        (a, b), (c, d) = one, other
        if not b and not d:
            return a * c % self.prime, 0
        return (a * c - b * d) % self.prime, (a * d + b * c) % self.prime

    def inverse(self, value: Element) -> Element:
        """The reciprocal; zero has none, neither here nor (but for a chance of 2**-55) among the numbers."""
        a, b = value
        norm = (a * a + b * b) % self.prime
        if not norm:
            raise UndefinedError("division by zero")
        scale = pow(norm, -1, self.prime)
        return a * scale % self.prime, -b * scale % self.prime

    def raised(self, value: Element, exponent: int) -> Element:
        """A power of an element that is not zero."""
        if value[1] == 0:
            return pow(value[0], exponent % (self.prime - 1), self.prime), 0
        result: Element = (1, 0)
        exponent %= self.prime * self.prime - 1
        while exponent:
            if exponent & 1:
                result = self.times(result, value)
            value = self.times(value, value)
            exponent >>= 1
        return result

    def _fraction(self, value: Fraction) -> Element:
        if value.denominator == 1:
            return value.numerator % self.prime, 0
        return value.numerator * pow(value.denominator, -1, self.prime) % self.prime, 0

    def _constant(self, name: str) -> Element:
        if name == "i":
            return 0, 1
        if name in ("pi", "e"):
            return pow(self.letter(f"constant {name}"), self.degree, self.prime), 0
        raise UnsupportedError

    def _power(self, node: Node) -> Element:
        base, exponent = node.args[0], rational(node.args[1])
        if exponent is None:
            raise UnsupportedError
        if exponent.denominator != 1:
            return self._root(base, exponent)
        value = self.value(base)
        if value == (0, 0):
            if exponent > 0:
                return 0, 0
            raise UndefinedError("zero to a power that is not positive")
        return self.raised(value, exponent.numerator)

    def _root(self, base: Node, exponent: Fraction) -> Element:
        """base**exponent for a rational base, or for π and e."""
        steps = exponent.numerator * (self.degree // exponent.denominator)
        if base.kind == "const":
            return pow(self.letter(f"constant {base.value}"), steps % (self.prime - 1), self.prime), 0
        value = rational(base)
        if value is None or value == 0:
            raise UnsupportedError
        result: Element = (1, 0)
        for number, sign in ((abs(value.numerator), 1), (value.denominator, -1)):
            for factor, count in exponents(number, self.basis):
                result = self.times(result, self.raised(self._basis_root(factor), sign * count * steps))
        if value > 0:
            return result
        if exponent.denominator % 2:
            return self.times(result, (1 if exponent.numerator % 2 == 0 else self.prime - 1, 0))
        if exponent.denominator == 2:
            turns: list[Element] = [(1, 0), (0, 1), (self.prime - 1, 0), (0, self.prime - 1)]
            return self.times(result, turns[exponent.numerator % 4])
        raise UnsupportedError

    def _basis_root(self, factor: int) -> Element:
        """A number whose power to the common degree is the factor: any one will do, but always the same."""
        if factor not in self._roots:
            odd = self.degree // self._twos
            whole = pow(factor, pow(odd, -1, self.prime - 1), self.prime)
            half = (self.prime - 1) // 2
            square = pow(whole, half, self.prime) == 1
            root = pow(whole if square else -whole, pow(self._twos, -1, half), self.prime)
            self._roots[factor] = (
                (root, 0) if square or self._twos == 1 else self.times((root, 0), self._root_of_minus_one)
            )
            if self._twos == 1:
                self._roots[factor] = (whole, 0)
        return self._roots[factor]

    @property
    def _twos(self) -> int:
        """The power of two in the common degree."""
        return self.degree & -self.degree

    @cached_property
    def _root_of_minus_one(self) -> Element:
        """ζ with ζ^(2^a) = -1, where 2^a is the power of two in the common degree."""
        if self._twos == 2:
            return 0, 1
        order = self.prime * self.prime - 1
        candidate = 2
        while True:
            found = self.raised((candidate, 1), order // (2 * self._twos))
            if self.raised(found, self._twos) == (self.prime - 1, 0):
                return found
            candidate += 1

    def _function(self, node: Node) -> Element:
        value = rational(node)
        if value is not None:
            return self._fraction(value)
        if node.kind in ("fact", "binom"):
            return self._counted(node)
        if node.value not in ("ln", "logb"):
            raise UnsupportedError
        logarithms = [self._logarithm(part) for part in node.args]
        if node.value == "ln":
            return logarithms[0]
        return self.times(logarithms[1], self.inverse(logarithms[0]))

    def _counted(self, node: Node) -> Element:
        """Factorials and binomials of numbers whose value is too long to be written out."""
        numbers = [rational(part) for part in node.args]
        if any(number is None or number.denominator != 1 or not 0 <= number <= MAX_FACTORIAL for number in numbers):
            raise UnsupportedError
        whole = [int(number) for number in numbers if number is not None]
        result = math.factorial(whole[0]) if node.kind == "fact" else math.comb(*whole)
        return result % self.prime, 0

    def _logarithm(self, node: Node) -> Element:
        """The logarithm of a positive rational number is a sum of logarithms of coprime numbers."""
        if node == Node("const", "e"):
            return 1, 0
        value = rational(node)
        if value is None or value <= 0:
            raise UnsupportedError
        total = 0
        for number, sign in ((value.numerator, 1), (value.denominator, -1)):
            total += sign * sum(count * self.letter(f"ln {factor}") for factor, count in exponents(number, self.basis))
        return total % self.prime, 0
