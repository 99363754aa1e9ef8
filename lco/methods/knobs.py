"""A method's knobs: what they may be and which of them are read. Known without torch, so that a value that no method could mean
is answered at once: knobs.json has what the methods' own files say (`lco methods --knobs > lco/methods/knobs.json`)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lco.errors import UserError, nearest

Hyper = Mapping[str, Any]

TABLE = Path(__file__).with_name("knobs.json")


@dataclass(frozen=True)
class When:
    """A knob is read only where another one has one of these values; without values, any but 0.

    Attributes:
        knob: the other one's name.
        values: the values at which this one is read.
    """

    knob: str
    values: tuple[Any, ...] = ()

    def holds(self, hyper: Hyper) -> bool:
        return hyper[self.knob] in self.values if self.values else bool(hyper[self.knob])

    def __str__(self) -> str:
        if not self.values:
            return f"{self.knob} above 0"
        return f"{self.knob}={' or '.join(str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)}"


@dataclass(frozen=True)
class Hyperparameter:
    """One knob of a method.

    Attributes:
        default: the suite's common setting.
        help: what it means.
        source: where the default comes from.
        choices: the values that it may have; () where any of its type.
        when: it is read only where all of these hold.
        least, above, most: its range, least ≤ value, above < value, value ≤ most; None where there is no bound. A number
            with neither `least` nor `above` may be any (a test holds that every other number has one of them).
    """

    default: Any
    help: str
    source: str = "suite"
    choices: tuple[Any, ...] = ()
    when: tuple[When, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None

    def refuse_outside(self, name: str, value: Any) -> None:
        """
        Raises:
            UserError: the value is not in the range; the message names both.
        """
        low = self.least is None or value >= self.least
        strict = self.above is None or value > self.above
        if not (low and strict and (self.most is None or value <= self.most)):
            raise UserError(f"{name} is {value!r}; give a value {self.range}")

    @property
    def range(self) -> str:
        """As in "above 0 and at most 1"; "" where there is no bound."""
        bounds = (("at least", self.least), ("above", self.above), ("at most", self.most))
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


def read_values(
    method: str, knobs: Mapping[str, Hyperparameter], overrides: Hyper
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(every knob with its value, those of them that are read).

    Raises:
        UserError: an unknown name, a value outside choices or range (the message names the nearest valid one), or one that
            nothing reads.
    """
    values = {name: knob.default for name, knob in knobs.items()}
    for name, value in overrides.items():
        if name not in values:
            raise UserError(f"{method} has no hyper-parameter {name!r}{nearest(name, values)}")
        knob = knobs[name]
        if knob.choices and value not in knob.choices:
            raise UserError(f"{method}: {name} is {value!r}{nearest(value, knob.choices)}")
        values[name] = coerce(f"{method}: {name}", value, knob.default)
        if isinstance(values[name], int | float):
            knob.refuse_outside(f"{method}: {name}", values[name])
    unread = {
        name: " and ".join(map(str, knob.when))
        for name, knob in knobs.items()
        if not all(when.holds(values) for when in knob.when)
    }
    for name, readers in unread.items():
        default = knobs[name].default
        if values[name] != default:
            raise UserError(
                f"{method}: {name} is {values[name]!r}, which only {readers} reads; give that or leave {name} at its "
                f"default {default!r}"
            )
    return values, {name: value for name, value in values.items() if name not in unread}


def coerce(name: str, value: Any, default: Any) -> Any:
    """A value of the default's type; command lines and JSON deliver 2 where 2.0 is meant.

    Raises:
        UserError: the value cannot mean what the default means.
    """
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() in {"true", "false"}:
            return str(value).lower() == "true"
        raise UserError(f"{name} is {value!r}: give true or false")
    if isinstance(default, int | float):
        kind = "whole number" if isinstance(default, int) else "number"
        try:
            number = type(default)(value)
            if isinstance(value, bool) or (isinstance(default, int) and number != float(value)):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{name} is {value!r}: give a {kind} such as {default}") from None
        if not math.isfinite(number):
            raise UserError(f"{name} is {number}; give a finite number such as {default}")
        return number
    return value


def check_known(method: str, overrides: Hyper) -> None:
    """Refuses, before a method's file and torch are imported, what its knobs will refuse; a method that the table does not have
    is left to its own file.

    Raises:
        UserError: as `read_values` says.
    """
    known = from_table(TABLE.read_text(encoding="utf-8")) if overrides else {}
    if method in known:
        read_values(method, known[method], overrides)


def to_table(methods: Mapping[str, Mapping[str, Hyperparameter]]) -> str:
    """JSON of {method: its knobs}: what `read_values` asks of every knob, a line each; without what says nothing."""
    entries = []
    for method, knobs in methods.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(described(knob))}" for name, knob in knobs.items()]
        entries.append(f" {json.dumps(method)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def described(knob: Hyperparameter) -> dict[str, Any]:
    said = {field.name: getattr(knob, field.name) for field in fields(knob) if field.name not in ("help", "source")}
    said["when"] = [[when.knob, when.values] for when in knob.when]
    return {name: value for name, value in said.items() if name == "default" or value not in (None, (), [])}


def from_table(text: str) -> dict[str, dict[str, Hyperparameter]]:
    """{method: its knobs}, as far as `to_table` keeps them."""
    return {
        method: {name: from_description(said) for name, said in knobs.items()}
        for method, knobs in json.loads(text).items()
    }


def from_description(said: Mapping[str, Any]) -> Hyperparameter:
    when = tuple(When(knob, tuple(values)) for knob, values in said.get("when", ()))
    return Hyperparameter(help="", **{**said, "choices": tuple(said.get("choices", ())), "when": when})
