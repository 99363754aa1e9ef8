"""Where letters are tried when two expressions are compared by their values.

The points lie where real functions of letters are usually defined: positive and negative numbers, numbers between 0 and 1
(roots, inverse sines), numbers above 1, whole numbers (factorials and (-1)^n have values only there). They are shifted a
little at random in every process, so that no text can be written whose difference from an answer vanishes at all of them.
"""

from __future__ import annotations

import os
from fractions import Fraction
from functools import cache, lru_cache

_F = Fraction
_ROWS = (
    (_F(31, 17), _F(-53, 23), _F(67, 41), _F(-29, 13), _F(71, 59), _F(-37, 19)),
    (_F(-41, 29), _F(73, 31), _F(-19, 43), _F(83, 61), _F(-47, 37), _F(59, 53)),
    (_F(11, 37), _F(17, 29), _F(23, 31), _F(5, 43), _F(13, 47), _F(19, 53)),
    (_F(113, 19), _F(97, 23), _F(61, 11), _F(151, 31), _F(83, 13), _F(47, 7)),
    (_F(-61, 37), _F(-43, 29), _F(-89, 53), _F(-31, 47), _F(-71, 61), _F(-23, 41)),
    (_F(29, 41), _F(31, 67), _F(11, 61), _F(43, 53), _F(7, 31), _F(37, 43)),
    (_F(7, 59), _F(47, 53), _F(17, 37), _F(19, 71), _F(41, 73), _F(13, 61)),
    (_F(-13, 41), _F(-29, 37), _F(-5, 23), _F(-43, 71), _F(-11, 53), _F(-31, 59)),
)
_WHOLE_ROWS = (
    (7, 3, 11, 5, 2, 13),
    (4, 9, 6, 10, 12, 8),
    (11, 4, 7, 2, 9, 3),
    (6, 2, 3, 12, 5, 4),
    (15, 8, 12, 9, 4, 1),
)
_SHIFTS = 997  # steps of a shift
_SHIFT = Fraction(1, 40_009)  # the length of one


@cache
def _shifted_rows() -> tuple[tuple[Fraction, ...], ...]:
    """The rows as this process has them."""
    shifted = tuple(
        tuple(value + int.from_bytes(os.urandom(4), "big") % _SHIFTS * _SHIFT for value in row) for row in _ROWS
    )
    return (*shifted, *(tuple(map(Fraction, row)) for row in _WHOLE_ROWS))


@lru_cache(maxsize=512)
def points(names: frozenset[str]) -> tuple[dict[str, Fraction], ...]:
    """The points at which expressions over these letters are compared."""
    if not names:
        return ({},)
    order = sorted(names)
    return tuple(
        {name: row[index % 6] + (index // 6) * (row[5 - index % 6] + 1) for index, name in enumerate(order)}
        for row in _shifted_rows()
    )
