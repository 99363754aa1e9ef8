"""Temporary folders that a killed process does not leave behind for good: whoever makes the next one removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "lco-scratch-"
LOCK = ".owner"

DAY = 24 * 3600.0
"""Seconds that a folder may be without its lock file: far more than it takes to make or to remove one."""


@contextmanager
def scratch_folder(where: str | Path | None = None) -> Iterator[Path]:
    """A new empty folder, gone at the end; those of dead processes in the same place are removed first.

    Its owner holds a lock on a file in it, which ends with the process however that ends, in any container that shares
    the place.

    Args:
        where: the folder to make it in; None takes that of temporary files.
    """
    place = Path(where or tempfile.gettempdir())
    remove_abandoned(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        with (folder / f"{LOCK}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / f"{LOCK}.new").rename(folder / LOCK)  # under this name it is locked from the first moment
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path) -> None:
    """Removes this user's folders whose lock nobody holds. One without a lock file is being made or being removed, unless it
    has been so for a day: then whoever was at it was killed."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or in use, or removed by another process at the same moment
            found = folder.lstat()
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                continue
            if not (folder / LOCK).exists():
                if time.time() - found.st_mtime > DAY:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
