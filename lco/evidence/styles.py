"""How a method's line looks, by its place in the table: eight colours, then the same ones dashed.

Twenty hues cannot be told apart by everybody; eight can, and a dash works without colour. The colours are Okabe and Ito's
with brown in place of yellow, which white paper swallows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#663300", "#000000")
DASHES = ((), (5.0, 1.6), (1.2, 1.2), (6.0, 1.4, 1.2, 1.4), (2.6, 1.2))
"""Lengths of strokes and gaps in widths of the line; none is a whole line."""


@dataclass(frozen=True)
class Style:
    colour: str
    dashes: tuple[float, ...]

    @property
    def linestyle(self) -> str | tuple[float, tuple[float, ...]]:
        """As matplotlib reads it."""
        return (0.0, self.dashes) if self.dashes else "-"


def styles(names: Iterable[str]) -> dict[str, Style]:
    """{name: its style}, distinct for the first forty names."""
    return {
        name: Style(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)])
        for i, name in enumerate(dict.fromkeys(names))
    }
