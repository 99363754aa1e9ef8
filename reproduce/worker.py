"""Runs side by side: what every process of a reproduction script is, and how a script hands out its runs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from lco.config import Experiment
from lco.training.launch import die_with_parent


def become_worker() -> None:
    """One thread for torch, since processes run side by side; and an end when the parent ends, even by `kill -9`."""
    os.environ["OMP_NUM_THREADS"] = "1"
    die_with_parent()
    import torch

    torch.set_num_threads(1)


def trained(run: Experiment) -> list[dict[str, Any]]:
    """Trains to the end, or on from where an earlier call stopped; the lines of its metrics."""
    from lco.disk import read_lines
    from lco.training.resolve import resolve
    from lco.training.run import train

    if not (run.folder / "checkpoints" / "final").exists():
        train(resolve(run), resume=(run.folder / "config.json").exists(), on_step=lambda _: None)
    return read_lines(run.folder / "metrics.jsonl")


def side_by_side(function: Callable[[Any], str], tasks: Sequence[Any], processes: int, what: str) -> None:
    """Every task in a process of its own, so many at a time; a progress bar, and the line that each task returns."""
    from tqdm import tqdm

    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as workers:
        for line in tqdm(workers.imap_unordered(function, tasks), total=len(tasks), unit="run", desc=what):
            tqdm.write(line)
