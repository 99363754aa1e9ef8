"""Which GPUs a worker has: as many as its scale wants, each held by a lock that ends with the worker.

So runs side by side never share one, whichever call of this suite began them; what others run on the machine is not seen.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lco.errors import UserError
from lco.models.device import shown_gpus

HELD: list[ExitStack] = []
"""The locks of this process's GPUs."""
PAUSE = 5.0
"""Seconds between two looks for GPUs that are free."""


def visible_gpus() -> dict[str, str]:
    """{what CUDA_VISIBLE_DEVICES calls it: its UUID} of the GPUs that this process may use."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    found = dict(line.split(", ", 1) for line in text.strip().splitlines())
    shown = shown_gpus()
    return found if shown is None else {name: found.get(name, name) for name in shown}  # a UUID is its own name


def runs_at_a_time(each: int, visible: Mapping[str, str]) -> int:
    """How many runs of `each` GPUs this machine holds.

    Raises:
        UserError: not one.
    """
    if len(visible) < each:
        raise UserError(
            f"a run of this scale takes {each} GPUs, and {len(visible)} can be seen here; run it on a larger machine, or choose "
            "a smaller scale"
        )
    return len(visible) // each


def with_gpus(each: int, work: Callable[..., Any], *given: Any) -> Any:
    """Does the work with so many GPUs of this process's own, for which it waits; with 0 as it is."""
    if each and not HELD:
        hold_gpus(each)
    return work(*given)


def hold_gpus(each: int) -> None:
    """Takes so many of the visible GPUs until this process ends, and shows it no other. All or none are taken, so that two
    processes never wait for each other."""
    place = Path(tempfile.gettempdir()) / f"lco-gpus-{os.getuid()}"
    place.mkdir(exist_ok=True)
    while True:
        with ExitStack() as taken:
            names = []
            for name, uuid in visible_gpus().items():
                try:
                    taken.enter_context(FileLock(place / f"{uuid}.lock", fallback_to_soft=False).acquire(timeout=0))
                except Timeout:
                    continue
                names.append(name)
                if len(names) == each:
                    HELD.append(taken.pop_all())
                    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
                    return
        print(f"waiting for {each} free GPU(s)", flush=True)
        time.sleep(PAUSE)
