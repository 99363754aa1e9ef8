"""Regular expressions that are compiled when they are first used: a hundred of them, of which one answer meets a few."""

from __future__ import annotations

import re
from typing import Any, cast


class _Pattern:
    """What the pattern's methods and fields are asked of until it is compiled; each is kept here from its first use on."""

    def __init__(self, source: str, flags: int) -> None:
        self._source, self._flags = source, flags

    def __getattr__(self, name: str) -> Any:
        value = getattr(re.compile(self._source, self._flags), name)
        setattr(self, name, value)
        return value


def regex(source: str, flags: int = 0) -> re.Pattern[str]:
    """`re.compile`, put off until somebody asks whether something matches.

    Raises:
        re.error: then, if the source is not a regular expression.
    """
    return cast("re.Pattern[str]", _Pattern(source, int(flags)))
