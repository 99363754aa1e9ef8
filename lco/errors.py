"""Errors that a user can mend: one sentence with the offending value and the remedy, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake in a configuration, a data file or a folder. The command line prints its message and exits with 2."""


def nearest(value: Any, valid: Iterable[Any]) -> str:
    """`; did you mean 'x'? valid are 'x', 'y'`, to be appended to a message about an unknown name."""
    names = [str(name) for name in valid]
    # Swapped letters first: difflib counts them like letters that are wrong.
    swapped = [name for name in names if sorted(name) == sorted(str(value))]
    close = swapped or difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid are {', '.join(map(repr, names))}" if names else "; there are none"
