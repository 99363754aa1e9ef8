"""Word lists written as one string, which reads better than a column of quotes."""

from __future__ import annotations


def listed(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The words of a text, or its parts between separators."""
    return tuple(text.split(separator))
