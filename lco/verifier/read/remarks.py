"""Words behind a number that are no unit: what was counted ("8 apples"), or what is said of the number ("8 extraneous").

Whatever is counted by another number than one stands in the plural. A label without any plural says something of the
number: it is a remark, and only a reference with the same remark means the same. Words of some classes are remarks in
any case, because they say that the number is not the value claimed.
"""

from __future__ import annotations

# The value is of the opposite sign, or counted the other way.
_OPPOSITE = """deficit deficits loss decrease reduction decline shortfall drop fall dip debt overdraft withdrawal ago behind
backward backwards downward downwards bc bce overdue arrears"""
# Something else than the number is meant: what belongs to it, or a number made of it.
_RELATED = """complement supplement conjugate radical radicand reciprocal antilog logarithm exponent
exponential modulus residue derivative antiderivative integral factorials complementary supplementary successor predecessor
binary ternary octal hexadecimal hex mistake error typo"""
# The number is refused, or its end is left out.
_REJECTED = """extraneous contradiction contradictory exclusive invalid inadmissible spurious unacceptable impermissible
erroneous absurd absurdity nonsense bogus fake counterexample discarded rejected inconsistent infeasible unattainable
unreachable unfeasible untrue inapplicable disallowed superfluous tentative
unlikely doubtful dubious questionable"""
REJECTIONS = frozenset(_REJECTED.split())
# The number is a bound, or it is too much of something.
_BOUND = "too upper bound threshold ceiling floor"
_REMARKS = frozenset(" ".join((_OPPOSITE, _RELATED, _REJECTED, _BOUND)).split())
# Words for sets of two and for digits, where no other word says what they count: "7 pairs", "7 zeros".
PAIRS = frozenset("pair pairs couple couples duo duos trio trios triplet triplets brace".split())
_ALONE = frozenset("zero zeros zeroes ones".split())
_FILLERS = frozenset("in total all of the a an altogether exactly overall".split())
# Words before which a description ends: what is behind them is not counted ("8 decrease in students").
_JOINTS = frozenset("in of on from over per".split())

_PLURALS = frozenset(
    (
        "people men women children feet teeth geese mice lice oxen dice sheep fish deer salmon trout moose shrimp cattle "
        "livestock poultry aircraft spacecraft series species data criteria phenomena bacteria media strata maxima minima "
        "extrema optima vertices polyhedra tetrahedra octahedra genera spectra quanta loci foci radii cacti fungi nuclei "
        "stimuli alumni formulae vertebrae personnel staff police crew them us these those you o'clock fold increase gain profit "
        "growth surplus raise rise interest increments percent folk fowl offspring swine bison squid cod tuna"
    ).split()
)
# Endings in -s that are no plurals: loss, extraneous, basis.
_NO_PLURALS = ("ss", "us", "is", "'s", "’s")
_NO_NOUNS = frozenset(
    (
        "always sometimes perhaps besides towards backwards downwards afterwards overseas sideways yes thus its his hers this "
        "was does works loses violates breaks repeats disagrees vanishes overshoots undershoots lies alas whereas arrears"
    ).split()
)


def remark(words: list[str], single: bool, counted: bool) -> str:
    """What the words of a label (small letters) say of the number before them, "" if they name what was counted.

    `single`: the number counts no more than one, so that what is counted need not stand in the plural. `counted`: a unit
    or a word such as "solutions" stands among the words, and the others describe it.

    >>> remark(["red", "balls"], False, False), remark(["contradiction"], False, False), remark(["loss"], True, True)
    ('', 'contradiction', 'loss')
    >>> remark(["extraneous", "roots"], False, False), remark(["roots", "extraneous"], False, False)
    ('', 'extraneous')
    """
    said = [word for at, word in enumerate(words) if word in _REMARKS and not _describes(words[at + 1 :])]
    if said:
        return " ".join(said)
    kept = [word for word in words if word not in _FILLERS]
    if len(kept) == 1 and kept[0] in _ALONE:
        return kept[0]
    return "" if single or counted or any(map(is_plural, kept)) else " ".join(kept)


def are_pairs(words: list[str]) -> bool:
    """Whether the words name sets of two and nothing that makes them up."""
    return all(word in PAIRS or word in _FILLERS for word in words) and any(word in PAIRS for word in words)


def _describes(following: list[str]) -> bool:
    """Whether a word with these behind it describes what is counted: a plural stands there before the next joint."""
    for word in following:
        if word in _JOINTS:
            return False
        if is_plural(word):
            return True
    return False


def is_plural(word: str) -> bool:
    """Whether a word (small letters) is a plural, or names a mass or a gain that may be counted like one."""
    if word in _PLURALS:
        return True
    return word.endswith("s") and len(word) > 2 and not word.endswith(_NO_PLURALS) and word not in _NO_NOUNS
