"""Errors that a user can mend: one sentence with the offending value and the remedy, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(ValueError):
    """A mistake in a configuration, a data file or a folder. The command line prints its message and exits with 2."""


def nearest(value: Any, valid: Iterable[Any]) -> str:
    """`; did you mean 'x'? valid are 'x', 'y'`, to be appended to a message about an unknown name."""
    names = [str(name) for name in valid]
    close = closest(str(value), names)
    hint = f"; did you mean {close!r}?" if close else ";"
    return f"{hint} valid are {', '.join(map(repr, names))}" if names else "; there are none"


def spelling(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def closest(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` that `name` was probably meant to be."""
    # As tables print it (LCO-KLD for lco_kld), then swapped letters: difflib counts these like letters that are wrong.
    alike = {other: spelling(other) for other in names}
    said = spelling(name)
    spelled = [other for other in names if alike[other] == said]
    swapped = spelled or [other for other in names if sorted(alike[other]) == sorted(said)]
    if swapped:
        return swapped[0]
    likeness = {other: difflib.SequenceMatcher(None, alike[other], said).ratio() for other in names}
    best = max(names, key=lambda other: likeness[other], default=None)
    return best if best is not None and likeness[best] >= (0.5 if len(said) > 3 else 0.8) else None
