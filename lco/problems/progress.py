"""A bar for what takes long only where problems come by the million."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

QUIET = 3.0
"""Seconds before a bar shows; most sets are done by then."""


def counted(items: Iterable[T], doing: str, total: int | None = None) -> Iterable[T]:
    """The items, with a bar on standard error where they take longer than `QUIET` seconds."""
    return tqdm(
        items, desc=doing, total=total, unit=" problems", unit_scale=True, delay=QUIET, mininterval=1, leave=False
    )
