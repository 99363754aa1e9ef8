"""What a response is rewarded for: terms by name, or functions of the user's own, added up by weight.

    --reward verifier                                the default: 1 where the answer is right, 0 where it is wrong
    --reward verifier=1 format=0.1                   and a tenth for an answer that could be found at all
    --reward verifier=1 path/to/file.py:brevity=0.2  and a function of a file: (responses, problems) → numbers
    --reward random                                  the verifier's rewards, dealt out by chance (random_reward.py)

A response for which a term gives no number has no reward: it is counted and nothing is learnt from it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lco import outside
from lco.errors import UserError, nearest
from lco.problems.records import Problem
from lco.verifier.rules import Verdict


@dataclass(frozen=True)
class Judged:
    """Responses of a part of a rollout, as they are rewarded: texts, problems and verdicts, one of each a response."""

    responses: Sequence[str]
    problems: Sequence[Problem]
    verdicts: Sequence[Verdict]


Reward = Callable[[Judged], Any]
"""(responses with their problems and verdicts) → one number for each, in order"""


def by_verdict(judged: Judged) -> list[float]:
    """1 for a right answer, 0 for a wrong one, no number where the verifier could not say."""
    return [verdict.reward for verdict in judged.verdicts]


def by_form(judged: Judged) -> list[float]:
    """1 where the verifier finds an answer, right or wrong, as --extraction says where it looks."""
    return [float(verdict.extracted is not None) for verdict in judged.verdicts]


REWARDS: dict[str, Reward] = {"verifier": by_verdict, "format": by_form}
"""name, as typed on the command line → what it gives"""

ALONE = {"verifier": 1.0}
"""The default: nothing but the verdict."""
RANDOM = {"random": 1.0}
"""The control: verdicts too, dealt out by chance once they are known of a part of a rollout."""


@dataclass(frozen=True)
class Term:
    """One part of the reward.

    Attributes:
        name: as logged; of a file's function its name.
        weight: what its numbers are multiplied by.
        function: what gives them.
        sha256: of the file it is from; "" for the suite's own.
    """

    name: str
    weight: float
    function: Reward
    sha256: str = ""


def parse_terms(texts: Sequence[str]) -> dict[str, float]:
    """["verifier=1", "format=0.1"] → {"verifier": 1.0, "format": 0.1}; without a number the weight is 1.

    Raises:
        UserError: a name stands there twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, weight = text.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            name, value = text, 1.0
        if not name:
            raise UserError(f"--reward {text!r} is a weight without a name; write NAME=WEIGHT")
        if name in found:
            raise UserError(f"--reward names {name} twice; leave one of them out")
        found[name] = value
    return found


def terms_of(reward: Mapping[str, Any]) -> tuple[Term, ...]:
    """The terms that a configuration names; a function's file is run. None where the verdict is the reward, dealt out or not.

    Raises:
        UserError: no term, an unknown one (the nearest is named), a weight that is none, a file without such a function, or
            random beside others.
    """
    if reward in (ALONE, RANDOM):
        return ()
    if any(outside.label(name) == "random" for name in reward):
        raise UserError(
            f"reward is {public_terms(reward)}, but random deals out the verifier's rewards and stands alone: give --reward "
            "random, or leave it out (a function of that name needs another)"
        )
    if not reward:
        raise UserError("reward is empty; name at least one term, as in --reward verifier=1")
    found: list[Term] = []
    for name, weight in reward.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or not weight:
            raise UserError(f"reward: the weight of {name} is {weight!r}; give a finite number that is not 0")
        term = Term(outside.label(name), float(weight), *source_of(name))
        if term.name in {other.name for other in found}:
            raise UserError(f"reward: two terms are called {term.name}; give one of the functions another name")
        found.append(term)
    return tuple(found)


def source_of(name: str) -> tuple[Reward, str]:
    """(a term's function, the hash of its file)"""
    if not outside.is_place(name):
        if name not in REWARDS:
            raise UserError(
                f"there is no reward {name!r}{nearest(name, [*REWARDS, *RANDOM])}; or give path/to/file.py:FUNCTION"
            )
        return REWARDS[name], ""
    found = outside.load(name, "reward")
    function = found.value
    if not callable(function):
        raise UserError(
            f"{name} is no function but of type {type(function).__name__}; give one of (responses, problems) → numbers"
        )
    return lambda judged: function(list(judged.responses), list(judged.problems)), found.sha256


def code_of(terms: Sequence[Term]) -> dict[str, str]:
    """Hashes of the terms that are not the suite's own, for manifests."""
    return {f"reward/{term.name}": term.sha256 for term in terms if term.sha256}


def public_terms(reward: Mapping[str, float]) -> dict[str, float]:
    """The terms without the places of their files, which are somebody's paths."""
    return {outside.label(name): weight for name, weight in reward.items()}


@dataclass(frozen=True)
class Given:
    """What the terms gave.

    Attributes:
        parts: for each response {term: weight · number}; NaN where there was no number.
        faults: {term: why it gave none for some of them}.
    """

    parts: list[dict[str, float]]
    faults: dict[str, str]


def reward_all(terms: Sequence[Term], judged: Judged) -> Given:
    """Every term of every response. A function that raises, or gives no numbers, costs these responses their reward."""
    parts: list[dict[str, float]] = [{} for _ in judged.responses]
    faults: dict[str, str] = {}
    for term in terms:
        found, fault = numbers_of(term, judged)
        if fault:
            faults[term.name] = fault
        for part, value in zip(parts, found, strict=True):
            part[term.name] = term.weight * value
    return Given(parts, faults)


def numbers_of(term: Term, judged: Judged) -> tuple[list[float], str]:
    """(a term's numbers, NaN where there is none; what is wrong with them)"""
    count = len(judged.responses)
    nothing = [math.nan] * count
    try:
        found = list(term.function(judged))
    except Exception as error:  # the user's own code, whatever it does
        return nothing, f"it raised {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if len(found) != count:
        return nothing, f"it gave {len(found)} values for {count} responses"
    values = [number(value) for value in found]
    bad = next((value for value, read in zip(found, values, strict=True) if not math.isfinite(read)), None)
    if term.sha256 and not all(map(math.isfinite, values)):
        return values, f"it gave {str(bad)[:40]!r}, which is no finite number"
    return values, ""


def number(value: Any) -> float:
    """A value as a float; NaN where it is none. Text is none, whatever it spells."""
    if not isinstance(value, numbers.Real) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # a scalar of numpy or torch
    return float(value) if isinstance(value, numbers.Real) else math.nan
