"""Random primes whose fields have the roots that are asked for, and coprime factors of whole numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from functools import lru_cache

from lco.verifier.numbers.effort import Effort
from lco.verifier.numbers.rational import integer_root

_BITS = 61
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)  # enough for every number below 3·10^24
_SMALL = tuple(n for n in range(3, 1_000) if all(n % d for d in range(2, math.isqrt(n) + 1)))


def is_prime(number: int) -> bool:
    """Whether a number below 3·10^24 is prime (Miller and Rabin, with witnesses that leave no doubt at that size)."""
    if number < 2 or any(number % prime == 0 for prime in (2, *_SMALL)):
        return number == 2 or number in _SMALL
    odd = number - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    for witness in _WITNESSES:
        power = pow(witness, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


@lru_cache(maxsize=256)
def drawn_primes(degree: int) -> tuple[int, int]:
    """Two primes of 61 bits, drawn once in this process, in whose fields whole numbers have roots of this degree.

    With degree = 2^a·m, m odd: P + 1 is a multiple of 2^a and of 4, so P = 3 mod 4; P - 1 is prime to m. (P - 1)/2 has a prime
    factor of 40 bits or more, so that no exponent that anyone would write is a multiple of P - 1. Drawn at random, so that
    no text can be made to vanish modulo the two.
    """
    twos = (degree & -degree).bit_length() - 1
    modulus = 1 << max(twos, 2)
    odd = degree >> twos
    found: list[int] = []
    while len(found) < 2:
        large = _random_bits(40) | 1 << 40 | 1
        if not is_prime(large):
            continue
        # P = 2·k·large + 1 with k·large = -1 mod 2^(a - 1), so that P = -1 mod 2^a.
        start = -pow(large, -1, modulus) % modulus if modulus > 2 else 1
        steps = (1 << _BITS - 1) // (2 * large * modulus)
        if steps < 1:
            raise ValueError(f"no field of {_BITS} bits has roots of degree {degree}")
        for _ in range(400):
            prime = 2 * (start + modulus * (_random_bits(64) % (2 * steps))) * large + 1
            if (
                prime.bit_length() >= _BITS - 1
                and math.gcd(prime - 1, odd) == 1
                and prime not in found
                and is_prime(prime)
            ):
                found.append(prime)
                break
    return found[0], found[1]


def _random_bits(count: int) -> int:
    """A number of that many bits that nobody can know beforehand."""
    return int.from_bytes(os.urandom(-(-count // 8)), "big") >> -count % 8


def coprime_basis(numbers: Iterable[int], degree: int, effort: Effort) -> tuple[int, ...]:
    """Pairwise coprime numbers > 1, none of them a k-th power for a prime k that divides `degree`, of which every one of
    `numbers` is a product.

    Roots of degree `degree` of such numbers have no relations but the obvious ones, and neither have their logarithms. Only
    greatest common divisors are needed for it, no factoring.
    """
    kinds = [prime for prime in (2, *_SMALL, *range(1_009, degree + 1, 2)) if degree % prime == 0]
    basis: list[int] = []
    pending = list(dict.fromkeys(numbers))
    while pending:
        number = pending.pop()
        effort.step()
        if number == 1:
            continue
        for at, other in enumerate(basis):
            common = math.gcd(number, other)
            if common > 1:
                del basis[at]
                pending += [common, number // common, other // common]
                break
        else:
            basis.append(number)
    return tuple(_reduced(number, kinds) for number in basis)


def _reduced(number: int, kinds: list[int]) -> int:
    """The number, or the smaller one of which it is a power."""
    for kind in kinds:
        while kind < number.bit_length() and (root := integer_root(number, kind)) is not None:
            number = root
    return number


def exponents(number: int, basis: tuple[int, ...]) -> list[tuple[int, int]]:
    """A product of basis numbers as (basis number, exponent)."""
    found = []
    for factor in basis:
        count = 0
        while number % factor == 0:
            number //= factor
            count += 1
        if count:
            found.append((factor, count))
    return found
