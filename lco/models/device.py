"""Which device a run computes on; that there is no CUDA is seen without torch where anything else can tell."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from pathlib import Path

from lco.errors import UserError


def check_device(device: str) -> None:
    """Says in a moment what `resolve_device` would say after torch is imported; it lets pass what only torch can tell.

    Raises:
        UserError: CUDA is asked for, and this torch or this machine has none.
    """
    if device == "cuda" and not (torch_has_cuda() and driver_is_there()):
        raise absent()


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one.

    Raises:
        UserError: CUDA is asked for and absent.
    """
    check_device(device)
    import torch  # seconds, which check_device does without

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise absent()
    return device


def absent() -> UserError:
    return UserError("device is 'cuda' but PyTorch sees no CUDA device; use --device cpu")


def torch_has_cuda() -> bool:
    """False where the installed torch is a build for the CPU alone."""
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


def driver_is_there() -> bool:
    """False where no driver could be asked for a device, or every device is hidden."""
    if Path("/dev/kfd").exists():  # AMD's, which PyTorch calls CUDA too
        return True
    if shown_gpus() == ():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def shown_gpus() -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES names (numbers or UUIDs), () where it hides every GPU, None where it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    return tuple(name for name in (word.strip() for word in value.split(",")) if name not in ("", "-1"))
