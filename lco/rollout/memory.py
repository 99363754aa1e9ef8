"""Memory that a vLLM engine will need against memory that is free, compared before anything is loaded."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import psutil
import torch
from safetensors import safe_open

from lco.errors import UserError

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
SHARED_MEMORY = Path("/dev/shm")
CONTROL_GROUP = Path("/sys/fs/cgroup")


def check_memory(model: str, dtype: str, cache_gib: float, separate_process: bool) -> None:
    """Refuses an engine that does not fit (on CPU; on CUDA vLLM compares with the card's memory itself).

    A process of its own receives weights through shared memory, so they count twice there.

    Raises:
        UserError: needed and free memory, and what to change.
    """
    if not torch.cuda.is_available():
        compare(weight_bytes(model, dtype) * (2 if separate_process else 1), cache_gib, free_bytes())


def compare(weights: int, cache_gib: float, free: int) -> None:
    needed = weights + cache_gib * GIB
    if needed > free:
        raise UserError(
            f"vLLM needs {needed / GIB:.1f} GiB (weights {weights / GIB:.1f}, cache {cache_gib:g}) and "
            f"{free / GIB:.1f} GiB are free; lower --vllm-cache-gib, use a smaller model, or --rollouts transformers"
        )


def weight_bytes(model: str, dtype: str) -> int:
    """Bytes of a model folder's weights at `dtype`; 0 for a hub id, whose files are not here yet."""
    total = 0
    for file in Path(model).glob("*.safetensors") if Path(model).is_dir() else ():
        with safe_open(file, "pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total * BYTES[dtype]


def free_bytes(control_group: Path = CONTROL_GROUP) -> int:
    """What the machine has available, or what a container's limit leaves if that is less."""
    free = psutil.virtual_memory().available
    try:
        limit = (control_group / "memory.max").read_text().strip()
        used = int((control_group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def folder_for(size: int) -> str:
    """Shared memory where `size` bytes fit, else the folder of temporary files (containers often get 64 MiB)."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > size
    return str(SHARED_MEMORY) if roomy else tempfile.gettempdir()
