"""What DeepSpeed compiles on its first start on a machine, and the locks that a start killed while compiling leaves.

PyTorch compiles extensions in a cache folder, one folder each, and whoever compiles holds a file named `lock` there. Its
being there is the lock: nothing removes it when its owner is killed, and every later start waits for it for ever without
a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

OPERATOR = "deepspeed_shm_comm"
"""What DeepSpeed compiles for ranks on a CPU: reductions through shared memory."""

PROCESSES = Path("/proc")


def ready_extensions(say: Callable[[str], None], cpu: bool) -> None:
    """Clears the locks of dead processes, and says so where ranks are about to compile. To be called before they start."""
    for lock in stale_locks(cache_folder()):
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
    """Locks of this user that no running process holds open, in folders where none is compiling."""
    found = [lock for lock in sorted(cache.glob("**/lock")) if lock.is_file() and lock.stat().st_uid == os.getuid()]
    if not found:
        return []
    used = set(files_in_use())
    return [lock for lock in found if not used & {os.path.realpath(lock), os.path.realpath(lock.parent)}]


def files_in_use() -> Iterator[str]:
    """Files that running processes hold open, and the folders that they work in (a compiler outlives its starter)."""
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # somebody else's, or just gone
            for link in (process / "cwd", *(process / "fd").iterdir()):
                with suppress(OSError):
                    yield str(link.readlink())
