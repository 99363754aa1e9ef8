"""What set-up needs from a machine: each lack is one sentence that says what to do."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

NEEDED_BYTES = 8 * 10**9  # 4.3 GB of packages, their downloads while they are unpacked, and room to work
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
PROBE = '#include <Python.h>\n#include <vector>\nextern "C" int probe() { return (int)std::vector<int>(3).size(); }\n'


class SetupError(Exception):
    """A lack that a person can mend; the message is a sentence with the remedy."""


def check_machine(root: Path) -> None:
    """Everything that can be known before the first download."""
    check_platform(platform.system(), platform.machine())
    check_venv_module()
    check_disk(root)
    check_compiler()


def check_platform(system: str, machine: str) -> None:
    if system != "Linux":
        raise SetupError(
            f"the training stack installs on Linux x86-64 only, this is {system}; "
            "`pip install .[verifier]` gives `lco verify` here too"
        )
    if machine != "x86_64":
        print(f"set-up: {machine} is untested, Linux x86-64 is what the suite is tested on; trying", file=sys.stderr)


def check_venv_module() -> None:
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"this Python lacks its venv module; install it (Debian, Ubuntu: apt-get install python{VERSION}-venv)"
        )


def check_disk(folder: Path, needed: int = NEEDED_BYTES) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"{needed / 1e9:.0f} GB of free disk are needed, {free / 1e9:.1f} GB are left where the project lies; "
            "free some space"
        )


def check_compiler() -> None:
    """DeepSpeed and vLLM compile small operations when they first run: with a C++ compiler and Python's headers."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if not compiler or shutil.which(compiler[0]) is None:
        raise SetupError(
            f"no C++ compiler ({compiler[0] if compiler else 'CXX'} is not on PATH), and DeepSpeed and vLLM compile "
            "with one; install it (Debian, Ubuntu: apt-get install g++) or name one in CXX"
        )
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        raise SetupError(
            "Python's headers are missing, and DeepSpeed compiles against them; "
            f"install them (Debian, Ubuntu: apt-get install python{VERSION}-dev)"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [*compiler, "-shared", "-fPIC", f"-I{include}", "-x", "c++", "-", "-o", f"{folder}/probe.so"]
        compiled = subprocess.run(command, input=PROBE, capture_output=True, text=True)
    if compiled.returncode:
        reason = (compiled.stderr.strip().splitlines() or ["no message"])[0]
        raise SetupError(f"the C++ compiler {compiler[0]} does not work ({reason}); repair it or name another in CXX")


def accelerator() -> str:
    """`cuda` where nvidia-smi lists a device, else `cpu`; LCO_ACCELERATOR=cpu|cuda overrules what is found."""
    chosen = os.environ.get("LCO_ACCELERATOR", "")
    if chosen in ("cpu", "cuda"):
        return chosen
    if chosen:
        raise SetupError(f"LCO_ACCELERATOR={chosen} is not known; use cpu or cuda, or leave it out")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if listed.returncode == 0 and "GPU" in listed.stdout else "cpu"
