"""The README's commands exist: every `lco …` line parses, the quick ones run, the tasks and make targets are there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lco.cli import parse
from lco.config import Experiment
from lco.methods import METHODS
from lco.training.command import from_arguments

TEXT = Path("README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [line.split("#")[0].replace("…", "").strip() for line in BLOCKS.split("\n") if line.startswith("lco ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_lco_commands_parse(command):
    for part in command.split(";"):
        words = shlex.split(part)[1:]
        if not words or words[0].isupper():
            continue
        _, arguments = parse(words)
        if words[0] == "train":
            assert from_arguments(arguments, Experiment()) != Experiment() or arguments.resume
        if words[:1] == ["methods"] and arguments.name:
            assert arguments.name in METHODS


RECORDS = [f"results/miniature/llama/{name}.json" for name in ("start", "grpo/seed-0", "lco_kld/seed-0")]
QUICK = [
    pytest.param(r"^printf .*\| lco verify", r'"correct": true', id="verify"),
    pytest.param(r"^lco methods(?= *#)", r"^lco_kld +\S", id="methods"),
    pytest.param(r"\blco methods dapo\b", r"clip_high", id="one-method"),
    pytest.param(r"^lco table .*", r"^\| LCO-KLD \|", id="table"),
]


@pytest.mark.parametrize(("pattern", "line"), QUICK)
def test_quick_commands_run_as_a_reader_would_type_them(tmp_path, pattern, line):
    """In a folder with a few of the committed records: all of them take a minute, and the committed report stays."""
    found = re.search(pattern, BLOCKS, re.MULTILINE)
    assert found, f"the README has no command like {pattern}"
    for name in RECORDS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, tmp_path / name)
    typed = f'lco() {{ {shlex.quote(sys.executable)} -m lco.cli "$@"; }}\n{found[0]}'
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    shell = ["bash", "-o", "pipefail", "-c", typed]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(line, done.stdout, re.MULTILINE), done.stdout
    assert not done.stderr


def test_tasks_and_targets_that_the_readme_names_exist():
    tasks = set(re.findall(r"\blco_(?:gsm8k|math500|aime\w*|miniature\w*)\b", BLOCKS))
    assert tasks
    assert all(Path(f"evals/{task}.yaml").exists() for task in tasks)
    makefile = Path("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake (\w+)", TEXT))
    assert {"reproduce", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets if target != "tables")


def test_every_guard_that_the_documentation_names_is_a_test():
    named = set(re.findall(r"`(test_\w+)`", Path("docs/guards.md").read_text(encoding="utf-8")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in Path("tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", code))
    assert len(named) > 50
    assert named <= defined, sorted(named - defined)
