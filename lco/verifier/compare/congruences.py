"""Whole numbers by their remainders: `n ≡ 5 (mod 11)`, `n ≡ 16 (mod 11)` and `n = 11k + 5, k ∈ ℤ` are one class."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from lco.verifier.compare.several import expand_signs
from lco.verifier.numbers.rational import rational
from lco.verifier.tree import Node, substituted, symbols

_LARGEST = 100_000  # remainders that are listed
_PARAMETERS = frozenset("kmntjl")


class Classes(NamedTuple):
    """Remainders modulo a number, and the letter they are of ("" if none is named)."""

    letter: str
    remainders: frozenset[int]
    modulus: int


def is_congruence(node: Node) -> bool:
    """Whether a modulus stands somewhere on the top of the node."""
    return node.kind == "congruence" or (node.kind == "list" and any(map(is_congruence, node.args)))


def same_classes(gold: Node, answer: Node) -> bool:
    """Whether both describe the same whole numbers. A plain reference is met by a plain value modulo a number."""
    if not is_congruence(gold) and classes(gold) is None:
        found = classes(answer)  # 10 mod 7 is 3; n ≡ 3 (mod 7) is true of other numbers as well
        named = answer.kind != "congruence" or answer.args[0].kind == "rel"
        return not named and found is not None and found.remainders == {rational(gold)}
    one, other = classes(gold), classes(answer)
    if one is None or other is None or (one.letter and other.letter and one.letter != other.letter):
        return False
    modulus = math.lcm(one.modulus, other.modulus)
    return modulus <= _LARGEST and _lifted(one, modulus) == _lifted(other, modulus)


def classes(node: Node) -> Classes | None:
    """The classes of remainders that a node describes, None if it describes none."""
    if node.kind == "for" and node.value[1] in ("integers", ""):
        return _family(node.args[0], node.value[0])
    if node.kind == "builder":
        return _built(node)
    if node.kind == "congruence":
        return _single(node)
    if node.kind == "list":
        return _several(node)
    if node.kind == "rel" and len(node.args) == 2:
        return _family(node, tuple(symbols(node.args[1]) & _PARAMETERS))
    return _family(node, tuple(symbols(node) & _PARAMETERS)) if node.kind == "add" else None


def _single(node: Node) -> Classes | None:
    """`n ≡ 5 (mod 11)`, `5 (mod 11)`."""
    inner, divisor = node.args
    modulus = rational(divisor)
    letter = ""
    if inner.kind == "rel":
        if len(inner.args) != 2 or inner.value[0] not in "≡=" or inner.args[0].kind != "sym":
            return None
        letter, inner = inner.args[0].value, inner.args[1]
    signed = expand_signs(inner, independent=True)
    values = [rational(part) for part in (signed.args if signed.kind == "list" else (signed,))]
    if modulus is None or modulus.denominator != 1 or modulus < 2:
        return None
    size = int(modulus)
    if any(value is None or math.gcd(value.denominator, size) != 1 for value in values):
        return None
    remainders = (value.numerator * pow(value.denominator, -1, size) % size for value in values if value is not None)
    return Classes(letter, frozenset(remainders), size)


def _several(node: Node) -> Classes | None:
    """Alternatives; conditions modulo different numbers that are joined by "and" hold together."""
    found = [classes(part) for part in node.args]
    known = [part for part in found if part is not None]
    letters = {part.letter for part in known} - {""}
    modulus = math.lcm(*(part.modulus for part in known)) if known else 0
    if len(known) < len(found) or len(letters) > 1 or not 0 < modulus <= _LARGEST:
        return None
    lifted = [_lifted(part, modulus) for part in known]
    together = node.value == "and" and len({part.modulus for part in known}) > 1
    remainders = frozenset.intersection(*lifted) if together else frozenset.union(*lifted)
    return Classes(next(iter(letters), ""), remainders, modulus)


def _family(node: Node, parameters: tuple[str, ...]) -> Classes | None:
    """`n = 11k + 5` for all whole k."""
    letter = ""
    if node.kind == "rel" and node.value == ("=",) and node.args[0].kind == "sym":
        letter, node = node.args[0].value, node.args[1]
    if len(parameters) != 1 or symbols(node) != {parameters[0]} or letter == parameters[0]:
        return None
    values = [rational(substituted(node, {parameters[0]: Fraction(at)})) for at in range(3)]
    if any(value is None or value.denominator != 1 for value in values):
        return None
    zero, one, two = (int(value) for value in values if value is not None)
    step = one - zero
    if two - one != step or abs(step) < 2:
        return None
    return Classes(letter, frozenset((zero % abs(step),)), abs(step))


def _built(node: Node) -> Classes | None:
    """`{11k + 5 | k ∈ ℤ}`."""
    value, condition = node.args
    whole = condition.kind == "rel" and condition.value == ("∈",) and condition.args[1].kind == "integers"
    return _family(value, (condition.args[0].value,)) if whole and condition.args[0].kind == "sym" else None


def _lifted(found: Classes, modulus: int) -> frozenset[int]:
    """The remainders modulo a multiple of the modulus."""
    return frozenset(value + found.modulus * at for value in found.remainders for at in range(modulus // found.modulus))
