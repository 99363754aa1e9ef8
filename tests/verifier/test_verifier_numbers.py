"""Arithmetic modulo drawn primes, values at drawn points, and what agreement to many digits may prove."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import sympy

from lco.verifier import Pool, Rules
from lco.verifier.judge import judge
from lco.verifier.numbers.effort import Effort, NeedsWorkerError
from lco.verifier.numbers.modular import Field, equal_modulo
from lco.verifier.numbers.primes import coprime_basis, drawn_primes, exponents, is_prime
from lco.verifier.read.readings import read

ROOT = Path(__file__).parents[2]
FREE = Effort(None)


def equal(one: str, other: str) -> bool | None:
    return equal_modulo(read(one)[0], read(other)[0], FREE)


def test_primality_is_sympys() -> None:
    rng = random.Random(0)
    numbers = [*range(3_000), *(rng.getrandbits(61) for _ in range(300)), 561, 3215031751, 3825123056546413051]
    assert [n for n in numbers if is_prime(n) != sympy.isprime(n)] == []


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6, 8, 12, 15, 30, 48, 4096, 5000])
def test_drawn_primes_have_the_roots_that_are_asked_for(degree: int) -> None:
    twos = degree & -degree
    for prime in drawn_primes(degree):
        assert sympy.isprime(prime)
        assert prime.bit_length() >= 60
        assert (prime + 1) % max(twos, 4) == 0
        assert math.gcd(prime - 1, degree // twos) == 1
        field = Field(prime, degree, (), FREE)
        for number in (2, 3, 5, 6, 7, 10):
            assert field.raised(field._basis_root(number), degree) == (number, 0)


def test_primes_and_points_are_drawn_in_every_process_anew() -> None:
    program = (
        "from lco.verifier.numbers.primes import drawn_primes\n"
        "from lco.verifier.numbers.points import points\n"
        "print(drawn_primes(2), points(frozenset('x'))[0])\n"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(outputs) == 3


def test_a_multiple_of_other_primes_is_seen() -> None:
    product = sympy.randprime(2**60, 2**61) * sympy.randprime(2**60, 2**61)
    assert equal(f"x+{product}", "x") is False
    assert equal(f"{product + 1}x", "x") is False


def test_coprime_numbers_make_up_all_that_were_given() -> None:
    rng = random.Random(1)
    for _ in range(50):
        numbers = [
            rng.choice((2, 3, 5, 7, 30, 49, 64, 72, 1001)) ** rng.randint(1, 4) * rng.randint(1, 50) for _ in range(5)
        ]
        degree = rng.choice((2, 3, 6))
        basis = coprime_basis(numbers, degree, FREE)
        assert all(math.gcd(one, other) == 1 for one in basis for other in basis if one != other)
        for number in numbers:
            assert math.prod(factor**count for factor, count in exponents(number, basis)) == number
        for factor in basis:
            powers = sympy.perfect_power(factor)
            assert not powers or all(powers[1] % prime for prime in (2, 3) if degree % prime == 0)


@pytest.mark.parametrize("degree", [2, 3, 4, 6, 12])
def test_roots_multiply_as_numbers_do(degree: int) -> None:
    rng = random.Random(degree)
    for _ in range(20):
        a, b = rng.randint(2, 10**15), rng.randint(2, 60)
        assert equal(f"\\sqrt[{degree}]{{{a}}}\\sqrt[{degree}]{{{b}}}", f"\\sqrt[{degree}]{{{a * b}}}") is True
        assert equal(f"\\sqrt[{degree}]{{{a * b**degree}}}", f"{b}\\sqrt[{degree}]{{{a}}}") is True
        assert equal(f"\\sqrt[{degree}]{{{a}}}+\\sqrt{{{b}}}", f"\\sqrt[{degree}]{{{a}}}-\\sqrt{{{b}}}") is False
        assert equal(f"\\sqrt[{degree}]{{{a + 1}}}", f"\\sqrt[{degree}]{{{a}}}") is False


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("\\ln 12", "2\\ln 2+\\ln 3", True),
        ("\\ln 1000000007000000049", "\\ln 1000000007+\\ln 1000000007", None),
        ("\\ln 1000000014000000049", "2\\ln 1000000007", True),
        ("\\log_4 8", "\\log_{16} 64", True),
        ("\\sqrt{-12}", "2i\\sqrt{3}", True),
        ("\\sqrt{-12}", "-2i\\sqrt{3}", False),
        ("\\sqrt[3]{-16}", "-2\\sqrt[3]{2}", True),
        ("\\sqrt{2^{2001}}", "2^{1000}\\sqrt{2}", True),
        ("1400!", "1400 \\cdot 1399!", True),
        ("2^{10^{9}}", "4^{5 \\cdot 10^{8}}", True),
        ("2^{10^{9}}", "4^{5 \\cdot 10^{8}}+1", False),
        ("x^{720720}", "1", False),
    ],
)
def test_decided_cases(one: str, other: str, expected: bool | None) -> None:
    assert equal(one, other) is expected


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\cos(10^{-140})", "1"),
        ("\\cosh(10^{-120})", "1"),
        ("7^{1+10^{-290}}", "7"),
        ("\\tanh(900)", "1"),
        ("\\coth(800)", "1"),
        ("1+e^{-2000}", "1"),
        ("\\frac{\\sin(10^{-160})}{10^{-160}}", "1"),
        ("5+\\sin(10^{-301})", "5"),
        ("\\lfloor 3-\\pi \\cdot 10^{-60} \\rfloor", "3"),
        (
            "\\sin x+(x-\\frac{31}{17})(x+\\frac{41}{29})(x-\\frac{11}{37})(x-\\frac{113}{19})(x+\\frac{61}{37})(x-7)(x-4)",
            "\\sin x",
        ),
    ],
)
def test_agreement_to_many_digits_is_no_proof(answer: str, gold: str, pool: Pool) -> None:
    assert not pool.verify(f"\\boxed{{{answer}}}", gold).correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\sqrt{1-v^2}", "\\cos(\\arcsin v)"),
        ("\\frac{\\pi}{2}-\\arcsin(s)", "\\arccos(s)"),
        ("\\arccos(2p^2-1)", "2\\arccos|p|"),
        ("\\arcsin(2q-1)", "2\\arcsin(\\sqrt{q})-\\frac{\\pi}{2}"),
        ("\\lfloor \\sqrt2 \\cdot \\sqrt8 \\rfloor", "4"),
    ],
)
def test_equal_where_both_are_real(answer: str, gold: str, pool: Pool) -> None:
    assert pool.verify(f"\\boxed{{{answer}}}", gold).correct


def test_work_that_grows_is_handed_to_a_worker() -> None:
    effort = Effort(0.0)

    def work() -> None:
        for _ in range(1_000):
            effort.step()

    with pytest.raises(NeedsWorkerError):
        work()


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("+".join(f"\\sqrt{{{10**11 + at}}}" for at in range(40)) + "+y", "y"),
        ("+".join(f"\\ln {10**12 + at}" for at in range(40)), "31"),
        ("\\{" + ",".join(f"\\sqrt{{{10**12 + at}}}" for at in range(30)) + "\\}", "\\{5,6\\}"),
        (
            "\\{" + ",".join(f"\\sqrt{{{10**8 + at}}}" for at in range(50)) + "\\}",
            "\\{" + ",".join(f"\\sqrt{{{10**8 + at + 1}}}" for at in range(20)) + "\\}",
        ),
        ("+".join(f"\\frac{{1}}{{{at}^{{999}}}}" for at in range(3, 60)), "7"),
        ("+".join(f"{at}!" for at in range(1400, 1490)), "7"),
        (",".join(f"\\sin {at}" for at in range(90)), ",".join(f"\\sin {at}" for at in range(89, -1, -1))),
        ("+".join(f"\\sin(x^{{{at}}})" for at in range(60)), "x"),
        ("|" * 300 + "x", "x"),
        ("\\pm 1" * 60, "x"),
        ("x\\pm " * 100 + "1", "x"),
        ("\\sqrt[99]{2}+\\sqrt[98]{3}+\\sqrt[97]{5}", "2"),
        ("\\cup".join(f"({at},{at}+\\sqrt{{{at}}})" for at in range(2, 60)), "(1,2)"),
    ],
)
def test_no_case_takes_long_in_the_callers_process(answer: str, gold: str) -> None:
    """Measured in CPU time of this thread, which a busy machine does not change: a quarter of a second, and reading."""
    judge("\\boxed{1+\\sqrt2}", "3", Rules())  # what is loaded late is loaded
    start = time.thread_time()
    with suppress(NeedsWorkerError):
        assert not judge(f"\\boxed{{{answer}}}", gold, Rules()).correct or "sin" in answer
    assert time.thread_time() - start < 1.5
