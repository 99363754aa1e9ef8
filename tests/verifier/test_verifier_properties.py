"""Properties that hold for every answer: reflexive, symmetric, blind to notation, awake to every changed digit."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verifier_helpers import all_cases, near_misses, rewritten

from lco.verifier import Pool, Rules, verify
from lco.verifier.read.readings import read

WITHOUT_SHORTCUT = Rules(string_shortcut=False)
# Where the rule itself is not symmetric: a missing percent sign, a missing name, and what only one side may leave out.
ONE_SIDED = frozenset(
    (
        "percent_currency extraction equations words tricks bases ratios_times choices changed_values congruences "
        "free_letters"
    ).split()
)

whole = st.integers(-(10**12), 10**12)
fractions = st.fractions(max_denominator=10_000)


def golds() -> list[str]:
    """The references of the tables, each once."""
    return sorted({case.gold for case in all_cases()})


def boxed(text: str) -> str:
    return f"\\boxed{{{text}}}"


def test_every_reference_equals_itself(pool: Pool) -> None:
    references = golds()
    verdicts = pool.verify_many([(boxed(gold), gold) for gold in references], WITHOUT_SHORTCUT)
    assert [gold for gold, verdict in zip(references, verdicts, strict=True) if not verdict.correct] == []


def test_equality_is_symmetric(pool: Pool) -> None:
    cases = [case for case in all_cases() if case.file not in ONE_SIDED and case.answer.strip()]
    forth = pool.verify_many([(boxed(case.answer), case.gold) for case in cases])
    back = pool.verify_many([(boxed(case.gold), case.answer) for case in cases])
    differing = [
        f"{case.file}:{case.line} {case.gold} | {case.answer}"
        for case, one, other in zip(cases, forth, back, strict=True)
        if one.correct != other.correct
    ]
    assert differing == []


@pytest.mark.parametrize("seed", range(3))
def test_rewriting_a_reference_keeps_it_equal(seed: int, pool: Pool) -> None:
    rng = random.Random(seed)
    references = golds()
    texts = [rewritten(gold, rng) for gold in references]
    verdicts = pool.verify_many([(boxed(text), gold) for text, gold in zip(texts, references, strict=True)])
    changed = [
        (gold, text) for gold, text, verdict in zip(references, texts, verdicts, strict=True) if not verdict.correct
    ]
    assert changed == []


@pytest.mark.parametrize("seed", range(3))
def test_one_changed_digit_sign_bracket_or_element_is_noticed(seed: int, pool: Pool) -> None:
    rng = random.Random(100 + seed)
    pairs = [(gold, miss) for gold in golds() for miss in near_misses(gold, rng)]
    verdicts = pool.verify_many([(boxed(miss), gold) for gold, miss in pairs])
    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct] == []


@settings(max_examples=200, deadline=None)
@given(value=whole)
def test_whole_numbers_in_many_notations(value: int) -> None:
    for text in (f"{value:,}", f"{value}.0", f"\\frac{{{value * 3}}}{{3}}", f"x = {value}", f"${value}$", f"({value})"):
        assert verify(boxed(text), str(value)).correct, text
    assert not verify(boxed(str(value + 1)), str(value)).correct
    assert not verify(boxed(str(-value)), str(value)).correct or value == 0


@settings(max_examples=200, deadline=None)
@given(one=fractions, other=fractions)
def test_fractions_are_equal_exactly_if_their_values_are(one: Fraction, other: Fraction) -> None:
    text = f"\\frac{{{one.numerator}}}{{{one.denominator}}}"
    assert verify(boxed(f"{other.numerator}/{other.denominator}"), text).correct == (one == other)
    assert verify(boxed(f"{one.numerator * 5}/{one.denominator * 5}"), text).correct


@settings(max_examples=100, deadline=None)
@given(roots=st.lists(st.integers(-20, 20), min_size=1, max_size=5), leading=st.integers(1, 9))
def test_a_product_equals_its_expansion_and_no_other(roots: list[int], leading: int) -> None:
    coefficients = [leading]
    for root in roots:
        shifted = [*coefficients, 0]
        coefficients = [high - root * low for high, low in zip(shifted, [0, *coefficients], strict=True)]
    degree = len(roots)
    expansion = "+".join(f"({value})x^{{{degree - at}}}" for at, value in enumerate(coefficients))
    factors = "".join(f"(x-({root}))" for root in roots)
    assert verify(boxed(f"{leading}{factors}"), expansion).correct
    assert not verify(boxed(f"{leading}{factors}+1"), expansion).correct


@settings(max_examples=100, deadline=None)
@given(values=st.lists(whole, min_size=2, max_size=6))
def test_order_is_free_in_sets_and_binding_in_tuples(values: list[int]) -> None:
    backwards = values[::-1]
    assert verify(
        boxed("\\{" + ", ".join(map(str, backwards)) + "\\}"), "\\{" + ", ".join(map(str, values)) + "\\}"
    ).correct
    tuples_equal = verify(
        boxed("(" + ", ".join(map(str, backwards)) + ")"), "(" + ", ".join(map(str, values)) + ")"
    ).correct
    assert tuples_equal == (values == backwards)


@settings(max_examples=100, deadline=None)
@given(low=st.integers(-100, 100), width=st.integers(1, 50), closed=st.tuples(st.booleans(), st.booleans()))
def test_an_interval_is_its_inequality_and_nothing_else(low: int, width: int, closed: tuple[bool, bool]) -> None:
    left, right = ("[" if closed[0] else "("), ("]" if closed[1] else ")")
    gold = f"{left}{low}, {low + width}{right}"
    signs = tuple("\\le" if end else "<" for end in closed)
    assert verify(boxed(f"{low} {signs[0]} x {signs[1]} {low + width}"), gold).correct
    other = "<" if closed[0] else "\\le"
    assert not verify(boxed(f"{low} {other} x {signs[1]} {low + width}"), gold).correct


def test_a_reading_depends_on_the_text_alone() -> None:
    references = golds()
    first = [read(gold) for gold in references if "arbitrary" not in gold]
    for gold in reversed(references):
        read(gold)
    assert [read(gold) for gold in references if "arbitrary" not in gold] == first
