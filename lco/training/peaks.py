"""The most memory that each process of a run held at once, so that a plan's figure has a measured one beside it."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import torch

from lco import disk
from lco.training.engine import Engine

PEAKS = "memory.json"
"""In a run folder: {"host": [bytes of every rank], "device": [bytes of every rank; 0 without a GPU]}."""


def keep_peaks(engine: Engine, folder: Path) -> None:
    """Writes the peaks up to now, with those of an earlier part of the run where they were higher. Every rank calls it."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    found = engine.gather((host, device))
    if engine.rank:
        return
    before = read_peaks(folder)
    now = {"host": [rank[0] for rank in found], "device": [rank[1] for rank in found]}
    disk.write_json(folder / PEAKS, {key: highest(now[key], before.get(key, [])) for key in now})


def highest(now: list[int], before: list[int]) -> list[int]:
    """Rank by rank; another number of ranks makes another run's figures."""
    return [max(pair) for pair in zip(now, before, strict=True)] if len(before) == len(now) else now


def read_peaks(folder: Path) -> dict[str, Any]:
    """What stands there, {} where nothing does, or nothing that can be read."""
    try:
        found = json.loads((folder / PEAKS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
