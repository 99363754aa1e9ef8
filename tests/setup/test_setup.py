"""Set-up refuses what cannot work in one sentence, and does nothing where nothing is to do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from setup_machine import SetupError, check_disk, check_platform
from setup_venv import explain

ROOT = Path(__file__).resolve().parents[2]
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what set-up reads, without a .venv."""
    copy = tmp_path / "project"
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "Makefile"):
        shutil.copy(ROOT / file, copy)
    return copy


def make_tools(folder: Path, **scripts: str) -> Path:
    """A folder to put on PATH alone: the shell's own tools, and the given shell scripts under their names."""
    folder.mkdir()
    for tool in ("sh", "dirname", "false", "env"):
        (folder / tool).symlink_to(shutil.which(tool))
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def set_up(project: Path, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "LCO_ACCELERATOR": "cpu", **variables}
    command = ["sh", str(project / "scripts" / "setup.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"set-up: [^\n]+\n", result.stderr)
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("version", ["3.10.13", "3.13.0"])
def test_an_unsupported_python_is_named(project: Path, tmp_path: Path, version: str) -> None:
    old = f'[ "$1" = --version ] && echo "Python {version}" || exit 1'
    tools = make_tools(tmp_path / "bin", python3=old)
    assert_one_sentence(set_up(project, tools), f"python3 is Python {version}", "3.11 or 3.12", "PYTHON=")


def test_no_python_at_all(project: Path, tmp_path: Path) -> None:
    assert_one_sentence(set_up(project, make_tools(tmp_path / "bin")), "python3 does not run")


def test_the_python_that_is_asked_for_is_the_one_that_counts(project: Path, tmp_path: Path) -> None:
    tools = make_tools(tmp_path / "bin", python3=f'exec {BASE_PYTHON} "$@"')
    assert_one_sentence(set_up(project, tools, PYTHON="no-such-python"), "no-such-python does not run")


def test_a_missing_compiler(project: Path, tmp_path: Path) -> None:
    tools = make_tools(tmp_path / "bin", python3=f'exec {BASE_PYTHON} "$@"')
    assert_one_sentence(set_up(project, tools), "no C++ compiler", "DeepSpeed", "g++")
    assert not (project / ".venv").exists()


def test_a_broken_compiler(project: Path, tmp_path: Path) -> None:
    tools = make_tools(tmp_path / "bin", python3=f'exec {BASE_PYTHON} "$@"')
    assert_one_sentence(set_up(project, tools, CXX="false"), "the C++ compiler false does not work")


def test_a_python_without_venv(project: Path) -> None:
    code = "import sys; sys.modules['ensurepip'] = None; import setup_venv; sys.exit(setup_venv.main())"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(project / "scripts"), "LCO_ACCELERATOR": "cpu"}
    result = subprocess.run([BASE_PYTHON, "-c", code], env=environment, capture_output=True, text=True)
    assert_one_sentence(result, "venv module", "apt-get install python3.")


def test_an_unknown_accelerator(project: Path, tmp_path: Path) -> None:
    tools = make_tools(tmp_path / "bin", python3=f'exec {BASE_PYTHON} "$@"')
    assert_one_sentence(set_up(project, tools, LCO_ACCELERATOR="gpu"), "LCO_ACCELERATOR=gpu", "cpu or cuda")


@pytest.mark.parametrize(
    ("script", "kind"),
    [('echo "GPU 0: NVIDIA H100"', "cuda"), ("exit 9", "cpu"), ("echo No devices were found", "cpu"), (None, "cpu")],
)
def test_what_counts_as_cuda(project: Path, tmp_path: Path, script: str | None, kind: str) -> None:
    tools = make_tools(tmp_path / "bin", **({"nvidia-smi": script} if script else {}))
    command = [BASE_PYTHON, "-c", "import setup_machine; print(setup_machine.accelerator())"]
    environment = {"PATH": str(tools), "PYTHONPATH": str(project / "scripts")}
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == kind


def test_a_full_disk(tmp_path: Path) -> None:
    check_disk(tmp_path, needed=0)
    with pytest.raises(SetupError, match=r"^1000000000 GB of free disk are needed, [\d.]+ GB are left [^\n]+$"):
        check_disk(tmp_path, needed=10**18)


def test_a_disk_that_fills_up_on_the_way() -> None:
    log = "Installing collected packages\nERROR: [Errno 28] No space left on device\n"
    assert explain("torch could not be installed", log).startswith("the disk is full, so torch could not be installed;")
    assert explain("torch could not be installed", "another reason").startswith("torch could not be installed; the end")


def test_another_system() -> None:
    check_platform("Linux", "x86_64")
    with pytest.raises(SetupError, match=r"Linux x86-64 only, this is Darwin; .*\[verifier\]"):
        check_platform("Darwin", "arm64")


def test_a_finished_set_up_installs_nothing_and_a_changed_lock_is_noticed(project: Path, tmp_path: Path) -> None:
    tools = make_tools(tmp_path / "bin", python3=f'exec {BASE_PYTHON} "$@"')
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(tools / "python3")
    keys = (
        "import json, setup_venv as s;"
        "print(json.dumps({'packages': s.packages_key('cpu'), 'project': s.digest(s.PROJECT_FILES)}))"
    )
    environment = {"PATH": str(tools), "PYTHONPATH": str(project / "scripts")}
    done = subprocess.run([BASE_PYTHON, "-c", keys], env=environment, capture_output=True, text=True, check=True).stdout
    (project / ".venv" / "setup.json").write_text(done)
    assert set(json.loads(done)) == {"packages", "project"}

    again = set_up(project, tools)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    with (project / "requirements" / "cpu.lock").open("a") as lock:
        lock.write("# changed\n")
    assert_one_sentence(set_up(project, tools), "no C++ compiler")  # it went on to install


def test_a_folder_that_somebody_else_made_is_left_alone(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / "precious").touch()
    code = "import setup_venv; setup_venv.make_venv()"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(project / "scripts")}
    result = subprocess.run([BASE_PYTHON, "-c", code], env=environment, capture_output=True, text=True)
    assert ".venv was not made by this set-up: move it away" in result.stderr
    assert (project / ".venv" / "precious").exists()


def test_help_lists_every_target_and_is_the_default() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"long-inputs"}
    assert targets == {
        *(
            "help",
            "setup",
            "reproduce",
            "test",
            "test-long",
            "test-gpu",
            "peers",
            "site",
            "lint",
            "tables",
            "leaderboard",
        ),
        *("lock", "clean"),
    }
    targets.add("qwen2.5-%")  # one line for the scales of all families
    for command in (["make"], ["make", "help"]):
        text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {line.split()[1] for line in text.splitlines() if line.startswith("  make ")} == targets


@pytest.mark.parametrize("missing", ["LCO_DATA_DIR", "LCO_MODEL_DIR"])
def test_the_long_tests_ask_for_their_folders_before_anything_else(project: Path, missing: str) -> None:
    folders = {"LCO_DATA_DIR": str(project), "LCO_MODEL_DIR": str(project)}
    environment = {"PATH": os.environ["PATH"], **folders, missing: "no/such/folder"}
    result = subprocess.run(["make", "test-long"], cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert f"set {missing} to a folder of" in result.stderr
    assert not (project / ".venv").exists()
