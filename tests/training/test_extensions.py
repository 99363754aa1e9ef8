"""Locks of compiled extensions: those of killed starts go, those of running ones stay."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lco.training.extensions import OPERATOR, cache_folder, ready_extensions, stale_locks
from lco.training.launch import run_ranks

ROOT = Path(__file__).parents[2]
HOLD = "import sys, time; held = open(sys.argv[1], 'x'); print('held', flush=True); time.sleep(600)"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    (tmp_path / "extensions" / OPERATOR).mkdir(parents=True)
    return tmp_path / "extensions"


def holder(lock):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_goes_with_its_owner_and_not_before(cache):
    lock = cache / OPERATOR / "lock"
    said = []
    with holder(lock) as owner:
        ready_extensions(said.append, cpu=True)
        assert lock.exists()
        assert "removed" not in "".join(said)
        owner.kill()
        owner.wait()
        ready_extensions(said.append, cpu=True)
    assert not lock.exists()
    assert any(text.startswith(f"removed {lock}: its owner was ended") for text in said)


def test_a_compiler_that_works_on_behind_its_killed_owner_is_waited_for(cache):
    """Its lock stays until then: a second compiler would write the same files."""
    lock = cache / OPERATOR / "lock"
    lock.touch()
    said = []

    def hear(text):
        said.append((text, lock.exists(), compiler.poll()))
        if text.startswith("waiting"):
            compiler.stdin.close()  # which ends it

    command = [sys.executable, "-c", "import sys, time; sys.stdin.read(); time.sleep(1)"]
    with subprocess.Popen(command, cwd=lock.parent, stdin=subprocess.PIPE) as compiler:
        ready_extensions(hear, cpu=False)
        assert compiler.wait() == 0
    assert [(text.split()[0], there) for text, there, _ in said] == [("waiting", True), ("removed", False)]
    assert not lock.exists()


def test_what_works_in_the_folder_and_does_not_end_is_no_compiler_for_ever(cache, monkeypatch):
    """A shell, for one."""
    monkeypatch.setattr("lco.training.extensions.LONGEST", 0.2)
    lock = cache / OPERATOR / "lock"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=lock.parent, stdin=subprocess.PIPE) as shell:
        ready_extensions(lambda text: None, cpu=False)
        assert not lock.exists()
        shell.kill()


def test_compiling_is_said_once(cache, monkeypatch):
    said = []
    ready_extensions(said.append, cpu=False)
    assert said == []
    ready_extensions(said.append, cpu=True)
    assert said == ["DeepSpeed compiles an operator for this machine, once: a minute or two"]
    (cache / OPERATOR / f"{OPERATOR}.so").touch()
    ready_extensions(said.append, cpu=True)
    assert len(said) == 1


def test_the_cache_is_pytorchs_own(monkeypatch, tmp_path):
    from torch.utils.cpp_extension import _get_build_directory

    for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
        monkeypatch.setenv(name, str(tmp_path / name))
        assert cache_folder() in Path(_get_build_directory("probe", verbose=False)).parents


@pytest.mark.long
def test_a_start_killed_while_compiling_does_not_stop_the_next_one(tmp_path, cache, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = [
        "--module",
        "tests.training.deepspeed_worker",
        str(tmp_path / "found.json"),
        str(tmp_path),
        "2-tied-token",
    ]
    start = f"from lco.training.launch import run_ranks; run_ranks({arguments!r}, 1, cpu=True)"
    lock = cache / OPERATOR / "lock"
    with subprocess.Popen([sys.executable, "-c", start], cwd=ROOT) as first:
        while not lock.exists():
            assert first.poll() is None
        everyone = [*psutil.Process(first.pid).children(recursive=True), first]
        for process in everyone:
            process.kill()
        psutil.wait_procs([p for p in everyone if isinstance(p, psutil.Process)], timeout=30)
    assert lock.exists()
    assert run_ranks(arguments, 1, cpu=True).code == 0
    said = capfd.readouterr().err
    assert f"removed {lock}: its owner was ended while it compiled" in said
    assert "once: a minute or two" in said
    assert os.path.exists(tmp_path / "found.json")
    assert stale_locks(cache) == []
