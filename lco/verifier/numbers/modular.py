"""Equality of algebraic expressions by arithmetic modulo large primes.

A polynomial identity that holds at a random point modulo a random prime of 61 bits fails to hold in general with a
probability of about 2**-55 (Schwartz and Zippel); two points make that 2**-110. So rational functions are compared
without expanding them, and `2^{10^9}` without writing it out. Roots of whole numbers take part: the prime factors of
the
radicands are given roots of their own, consistently, which is possible in a field of P elements where P = 2q + 1 with q
prime and the factors are squares. `i` lives in the field of P² elements, which exists because P = 3 mod 4.
π, e and the logarithms of primes stand for themselves as letters: equal as letters is equal, unequal as letters is
only a
hint, because nobody knows all relations between them.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce
from hashlib import blake2b

from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, UndefinedError, walk

_OFFSETS = (
    2373, 3153, 7245, 8133, 8613, 9189, 9729, 9849, 15609, 22209, 25353, 28749, 32373, 35649, 35865, 37569, 37953,
    37989,
    39009, 39585, 43545, 49005, 49833, 54369, 58149, 60333, 60753, 62109, 62145, 66345, 74529, 77565, 80349, 80889,
)  # fmt: skip
PRIMES = tuple(2**61 - offset for offset in _OFFSETS)  # each P with (P - 1)/2 prime
_MAX_DEGREE = 5_000
_RADICAND_LIMIT = 10**12

Element = tuple[int, int]  # a + b·i


class UnsupportedError(Exception):
    """The expression is no algebraic one."""


def equal_modulo(one: Node, other: Node) -> bool | None:
    """Whether two expressions are equal; None if modular arithmetic cannot tell."""
    try:
        degree, radicands, hint_only = _survey(one, other)
        points = [Field(prime, degree) for prime in _suitable(radicands, degree)]
        same = [point.value(one) == point.value(other) for point in points]
    except UnsupportedError:
        return None
    if all(same):
        return True
    return None if hint_only or any(same) else False


def _survey(*nodes: Node) -> tuple[int, set[int], bool]:
    """The common degree of all roots, the primes under them, and whether letters stand for transcendental numbers."""
    degrees, radicands, hint_only = [1], set(), False
    for top in nodes:
        for node in walk(top):
            if (node.kind == "const" and node.value in ("pi", "e")) or node.kind == "degree" or node.kind == "fn":
                hint_only = True
            elif node.kind == "root":
                degrees.append(node.value)
                radicands |= _radicand_primes(node.args[0])
            elif node.kind == "pow":
                exponent = rational(node.args[1])
                if exponent is None:
                    raise UnsupportedError
                if exponent.denominator != 1:
                    degrees.append(exponent.denominator)
                    radicands |= _radicand_primes(node.args[0])
    degree = reduce(math.lcm, degrees)
    if degree > _MAX_DEGREE:
        raise UnsupportedError
    return degree, radicands, hint_only


def _radicand_primes(node: Node) -> set[int]:
    if node.kind == "const" and node.value in ("e", "pi"):
        return set()
    value = rational(node)
    if value is None or value == 0:
        raise UnsupportedError
    return set(factors(abs(value.numerator))) | set(factors(value.denominator))


def factors(number: int) -> dict[int, int]:
    """The prime factorisation of a number below 10^12; beyond, only if trial division to 1,000 leaves nothing."""
    if number.bit_length() > 4_000:
        raise UnsupportedError
    found: dict[int, int] = {}
    divisor = 2
    while divisor * divisor <= number:
        if divisor > (1_000 if number > _RADICAND_LIMIT else 10**6):
            raise UnsupportedError
        while number % divisor == 0:
            found[divisor] = found.get(divisor, 0) + 1
            number //= divisor
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        found[number] = found.get(number, 0) + 1
    return found


def _suitable(radicands: set[int], degree: int) -> list[int]:
    """Two primes in whose field every radicand has the roots that are asked for."""
    if degree % 2:
        return list(PRIMES[:2])
    found = []
    for prime in PRIMES:
        if all(pow(radicand, (prime - 1) // 2, prime) == 1 for radicand in radicands):
            found.append(prime)
            if len(found) == 2:
                return found
    raise UnsupportedError


class Field:
    """Evaluates expressions in the field of P² elements at a point fixed by the names of the letters."""

    def __init__(self, prime: int, degree: int) -> None:
        self.prime = prime
        self.degree = degree
        order = (prime - 1) // 2 if degree % 2 == 0 else prime - 1
        self.inverse_degree = pow(degree, -1, order)

    def letter(self, name: str) -> int:
        """The image of a letter: any fixed number that has nothing to do with the expression."""
        return int.from_bytes(blake2b(f"{name}|{self.prime}".encode(), digest_size=16).digest(), "big") % self.prime

    def value(self, node: Node) -> Element:
        """The image of the expression."""
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

    def _fraction(self, value: Fraction) -> Element:
        if value.denominator == 1:
            return value.numerator % self.prime, 0
        return value.numerator * pow(value.denominator, -1, self.prime) % self.prime, 0

    def _constant(self, name: str) -> Element:
        if name == "i":
            return 0, 1
        if name in ("pi", "e"):
            return pow(self.letter(f"constant {name}"), self.degree * 2, self.prime), 0
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
        if value[1] == 0:
            return pow(value[0], exponent.numerator % (self.prime - 1), self.prime), 0
        result: Element = (1, 0)
        power = exponent.numerator % (self.prime * self.prime - 1)
        while power:
            if power & 1:
                result = self.times(result, value)
            value = self.times(value, value)
            power >>= 1
        return result

    def _root(self, base: Node, exponent: Fraction) -> Element:
        """base**exponent for a rational base, or for π and e."""
        steps = exponent.numerator * (self.degree // exponent.denominator)
        if base.kind == "const":
            letter = pow(self.letter(f"constant {base.value}"), 2, self.prime)
            return pow(letter, steps % (self.prime - 1), self.prime), 0
        value = rational(base)
        if value is None or value == 0:
            raise UnsupportedError
        result = 1
        for number, sign in ((abs(value.numerator), 1), (value.denominator, -1)):
            for factor, count in factors(number).items():
                root = pow(factor, self.inverse_degree, self.prime)
                result = result * pow(root, sign * count * steps % (self.prime - 1), self.prime) % self.prime
        if value > 0:
            return result, 0
        if exponent.denominator % 2:
            return (result, 0) if exponent.numerator % 2 == 0 else (-result % self.prime, 0)
        if exponent.denominator == 2:
            return self.times(
                (result, 0), [(1, 0), (0, 1), (self.prime - 1, 0), (0, self.prime - 1)][exponent.numerator % 4]
            )
        raise UnsupportedError

    def _function(self, node: Node) -> Element:
        value = rational(node)
        if value is not None:
            return self._fraction(value)
        if node.value not in ("ln", "logb"):
            raise UnsupportedError
        logarithms = [self._logarithm(part) for part in node.args]
        if node.value == "ln":
            return logarithms[0]
        return self.times(logarithms[1], self.inverse(logarithms[0]))

    def _logarithm(self, node: Node) -> Element:
        """The logarithm of a positive rational number is a sum of logarithms of primes."""
        if node == Node("const", "e"):
            return 1, 0
        value = rational(node)
        if value is None or value <= 0:
            raise UnsupportedError
        total = sum(count * self.letter(f"ln {factor}") for factor, count in factors(value.numerator).items())
        total -= sum(count * self.letter(f"ln {factor}") for factor, count in factors(value.denominator).items())
        return total % self.prime, 0
