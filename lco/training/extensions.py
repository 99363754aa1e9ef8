"""What DeepSpeed compiles on its first start on a machine, and the locks that a start killed while compiling leaves.

PyTorch compiles extensions in a cache folder, one folder each, and whoever compiles holds a file named `lock` there. Its
being there is the lock: nothing removes it when its owner is killed, and every later start waits for it for ever without
a word. The compilers that the owner had started go on without it for a while, and are waited for, because two of them would
write the same files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

OPERATOR = "deepspeed_shm_comm"
"""What DeepSpeed compiles for ranks on a CPU: reductions through shared memory."""

PROCESSES = Path("/proc")

LOOK_EVERY, LONGEST = 0.5, 600.0
"""Seconds between two looks at compilers that are waited for, and until what works there is taken for something else."""


def ready_extensions(say: Callable[[str], None], cpu: bool) -> None:
    """Clears the locks of dead processes, and says so where ranks are about to compile. To be called before they start."""
    for lock in stale_locks(cache_folder()):
        if is_compiled_in(lock.parent):
            say(f"waiting for the compilers that a start which was ended has left in {lock.parent}")
        end = time.monotonic() + LONGEST
        while is_compiled_in(lock.parent) and time.monotonic() < end:
            time.sleep(LOOK_EVERY)
        if lock in stale_locks(cache_folder()):  # nobody has taken it meanwhile
            lock.unlink(missing_ok=True)
            say(f"removed {lock}: its owner was ended while it compiled, and every start would wait for it")
    if cpu and not any(cache_folder().glob(f"**/{OPERATOR}.so")):
        say("DeepSpeed compiles an operator for this machine, once: a minute or two")


def cache_folder() -> Path:
    """Where PyTorch keeps compiled extensions."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    return (
        Path(chosen)
        if chosen
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions"
    )


def stale_locks(cache: Path) -> list[Path]:
    """Locks of this user that no running process holds open."""
    found = [lock for lock in sorted(cache.glob("**/lock")) if lock.is_file() and lock.stat().st_uid == os.getuid()]
    if not found:
        return []
    used = set(files_in_use())
    return [lock for lock in found if os.path.realpath(lock) not in used]


def is_compiled_in(folder: Path) -> bool:
    """Whether a running process works in the folder."""
    return os.path.realpath(folder) in set(files_in_use())


def files_in_use() -> Iterator[str]:
    """Files that running processes hold open, and the folders that they work in (a compiler outlives its starter)."""
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # somebody else's, or just gone
            for link in (process / "cwd", *(process / "fd").iterdir()):
                with suppress(OSError):
                    yield str(link.readlink())
