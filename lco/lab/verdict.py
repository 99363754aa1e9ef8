"""A claim as data, and what a computation finds of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar


@dataclass(frozen=True)
class Finding:
    """What the measurements say of one claim.

    Attributes:
        supported: whether every number agrees.
        number: the number that decides, in one line.
        cases: every loss that the claim is about with its numbers, exceptions first.
        apart: losses that the claim is not about and a reader would ask for: the suite's own variants, other methods.
    """

    supported: bool
    number: str
    cases: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A sentence that can be wrong, with what would show it.

    Attributes:
        experiment: the part of the laboratory that measures it.
        words: the claim.
        said: where.
        supports, refutes: what the measurements would have to show.
        test: `lco.lab.laboratory.Laboratory` → what they show.
    """

    experiment: Literal["convexity", "ray", "bandit", "negative only"]
    words: str
    said: str
    supports: str
    refutes: str
    test: Callable[[Any], Finding]


def signed(label: str, sign: float) -> str:
    return f"{label} (A {'>' if sign > 0 else '<'} 0)"


class Measured(Protocol):
    """One loss, measured."""

    @property
    def label(self) -> str: ...

    @property
    def kind(self) -> str: ...


M = TypeVar("M", bound=Measured)


def named(losses: Iterable[tuple[str, str, str]], names: Sequence[str], items: Iterable[M]) -> list[M]:
    """The measurements of these methods at their defaults, which stand first among a method's `losses` (label, method, kind)."""
    first: dict[str, str] = {}
    for label, method, _ in losses:
        first.setdefault(method, label)
    labels = {first[name] for name in names if name in first}
    return [item for item in items if item.label in labels]


def of_kind(items: Iterable[M], *kinds: str) -> list[M]:
    return [item for item in items if item.kind in kinds]


def besides(items: Iterable[M], chosen: Sequence[M], *kinds: str) -> list[M]:
    """Others of these kinds, which the claim is not about."""
    labels = {item.label for item in chosen}
    return [item for item in of_kind(items, *kinds) if item.label not in labels]


def finding(
    chosen: Sequence[M], holds: Callable[[M], bool], number: str, tell: Callable[[M], str], apart: Sequence[M] = ()
) -> Finding:
    """A claim about every one of the chosen measurements; without any it is not supported."""
    against = list(dict.fromkeys(item.label for item in chosen if not holds(item)))
    if against:
        number += f"; not so for {'; '.join(against[:NAMED])}{' and others' if len(against) > NAMED else ''}"
    said = number if chosen else "nothing measured"
    return Finding(bool(chosen) and not against, said, listed(chosen, holds, tell), listed(apart, holds, tell))


NAMED = 5
"""So many exceptions stand beside the number; all of them are among the cases."""
MANY = 12
"""Of more cases than these the ones that agree are named and not told one by one."""


def listed(items: Sequence[M], holds: Callable[[M], bool], tell: Callable[[M], str]) -> tuple[str, ...]:
    """One line a case: first those that contradict the claim, then those that agree."""
    against = [f"not so: {tell(item)}" for item in items if not holds(item)]
    agreeing = [item for item in items if holds(item)]
    if len(agreeing) > MANY:
        names = "; ".join(dict.fromkeys(item.label for item in agreeing))
        return (*dict.fromkeys(against), f"so in {len(agreeing)} cases: {names}")
    return (*dict.fromkeys(against), *dict.fromkeys(tell(item) for item in agreeing))


def counted(chosen: Sequence[M], holds: Callable[[M], bool], what: str) -> str:
    return f"{sum(map(holds, chosen))} of {len(chosen)} {what}"
