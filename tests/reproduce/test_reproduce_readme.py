"""Every command of reproduce/ that a page names exists with the flags it is given, and every module is on the page."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "reproduce" / "README.md"
PAGES = [
    PAGE,
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "results").rglob("README.md")),
]


def commands_of(page):
    """Without the shell's comments, and without the placeholder that stands for further words."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"python -m (reproduce\.[^`#\n|…]+)", text)
    return [" ".join(command.split()) for command in found]


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_reproduce_that_a_page_names_takes_its_flags(command):
    """The flags are read up to --help, which stands last: a wrong one ends with an error before it."""
    words = [sys.executable, "-X", "importtime", "-m", *shlex.split(command), "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith("usage: ")
    flags = [word for word in words[5:-1] if word.startswith("--")]
    assert [
        flag for flag in flags if flag not in done.stdout
    ] == []  # argparse would have passed over these until the end
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.split("\n") if line.startswith("import time:")}
    assert "lco.config" in imported
    assert not imported & {"torch", "transformers", "matplotlib"}  # help is there at once


def test_every_command_of_reproduce_is_on_its_page():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "reproduce").rglob("*.py")
        if any(
            isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
            for node in ast.parse(path.read_text()).body
        )
    }
    assert len(modules) >= 8
    assert modules == {command.split()[0] for command in commands_of(PAGE)}


def test_what_the_page_links_to_is_there():
    targets = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(targets) > 8
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
