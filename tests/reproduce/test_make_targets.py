"""`make qwen2.5-0.5b` and its like: thin fronts of the families' commands, for every scale that there is."""

import subprocess
from pathlib import Path

import pytest

from reproduce.llama import LLAMA
from reproduce.qwen import QWEN

ROOT = Path(__file__).parents[2]


def made(*words):
    """The last command of a target, which `make -n` prints and does not run."""
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.rstrip().split("\n")[-1] if done.returncode == 0 else ""


def targets():
    for scale in QWEN.scales:
        name = scale.name if scale.name.startswith("qwen") else f"qwen2.5-{scale.name}"
        yield name, "reproduce.qwen", scale.name
    for scale in LLAMA.scales:
        yield scale.name if scale.name[0].isalpha() else f"llama-{scale.name}", "reproduce.llama", scale.name


@pytest.mark.parametrize(("target", "module", "scale"), targets())
def test_every_scale_has_a_target_that_is_its_command(target, module, scale):
    assert made(target).endswith(f".venv/bin/python -m {module} {scale}")
    assert made(target, "ARGS=--dry-run --seeds 2").endswith(f"-m {module} {scale} --dry-run --seeds 2")


def test_help_has_one_line_for_all_scales_and_a_misspelt_target_is_none():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in said.split("\n") if "qwen" in line]
    assert len(lines) == 1
    for name in ("qwen2.5-0.5b", "qwen3-4b", "llama-1b", "smollm2-135m", "octothinker-3b", "ARGS=--dry-run"):
        assert name in lines[0]
    assert made("qwenn-0.5b") == ""
