"""Memory that a vLLM engine will need against memory that is free, compared before anything is loaded."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import psutil
import torch

from lco.errors import UserError
from lco.models.weights import checkpoint_shapes

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
SHARED_MEMORY = Path("/dev/shm")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def check_memory(model: str, dtype: str, cache_gib: float, separate_process: bool) -> None:
    """Refuses an engine that does not fit (on CPU; on CUDA vLLM compares with the card's memory itself).

    A process of its own receives weights through shared memory, so they count twice there.

    Raises:
        UserError: needed and free memory, and what to change.
    """
    if not torch.cuda.is_available():
        compare(weight_bytes(model, dtype) * (2 if separate_process else 1), cache_gib, free_bytes())


def compare(weights: int, cache_gib: float, free: float) -> None:
    needed = weights + cache_gib * GIB
    if needed > free:
        raise UserError(
            f"vLLM needs {needed / GIB:.1f} GiB (weights {weights / GIB:.1f}, cache {cache_gib:g}) and "
            f"{free / GIB:.1f} GiB are free; lower --vllm-cache-gib, use a smaller model, or --rollouts transformers"
        )


def weight_bytes(model: str, dtype: str) -> int:
    """Bytes of a model's weights at `dtype`; 0 for a hub id whose files are not here yet."""
    return sum(math.prod(shape) for shape in checkpoint_shapes(model).values()) * BYTES[dtype]


def free_bytes(root: Path = CONTROL_GROUPS, membership: Path = MEMBERSHIP) -> float:
    """What the machine has available, or what the limits of this process's control groups leave, if that is less.

    Args:
        root: where control groups are mounted, version 1 or 2.
        membership: the file that names this process's groups.
    """
    return min([psutil.virtual_memory().available, *map(left_in, groups(root, membership))])


def groups(root: Path, membership: Path) -> list[Path]:
    """The memory group of this process and all that it is nested in. A container sees its own group at the root."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    found = [root, root / "memory"]
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        for top in {"": (root, root / "unified"), "memory": (root / "memory",)}.get(controllers, ()):
            below = Path(path.lstrip("/"))
            found += [top / part for part in (below, *below.parents)]
    return list(dict.fromkeys(found))


FILES = (("memory.max", "memory.current", "inactive_file"),
         ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))  # fmt: skip
"""Limit, use, and the key in memory.stat of what is only a copy of files, in versions 2 and 1."""


def left_in(group: Path) -> float:
    """Bytes below a group's limit; infinite where it has none. Copies of files count as free: they give way."""
    for limit, used, copies in FILES:
        try:
            most, now = float((group / limit).read_text()), int((group / used).read_text())
        except (OSError, ValueError):
            continue  # the other version's group, or "max"
        return most - now + reclaimable(group, copies)
    return math.inf


def reclaimable(group: Path, key: str) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [key]), 0)


def folder_for(size: int) -> str:
    """Shared memory where `size` bytes fit, else the folder of temporary files (containers often get 64 MiB)."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > size
    return str(SHARED_MEMORY) if roomy else tempfile.gettempdir()
