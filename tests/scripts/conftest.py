"""A checkout that takes no time: a package `lco` of one file, whose `train` writes a run folder at once."""

import pytest

CLI = """
import json, os, struct, sys
from pathlib import Path


def main(arguments):
    flags = dict(zip(arguments[1::2], arguments[2::2]))
    with open("calls.txt", "a") as calls:  # in the checkout
        calls.write(flags["--method"] + "\\n")
    {first}
    final = Path(flags["--out"], "checkpoints", "final")
    final.mkdir(parents=True)
    common = {{"tokens": {tokens}, "updates": {updates}, "gradient_norm": 0.5, "loss": 0.1 + 0.2}}
    lines = [{{"step": n + 1, **common, "seconds": {{"total": 1.0 + n}}}} for n in range(4)]
    Path(flags["--out"], "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
    header = json.dumps({{"head.weight": {{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}}}).encode()
    weights = struct.pack("<Q", len(header)) + header + struct.pack("<2f", {weight}, 2.0)
    (final / "model.safetensors").write_bytes(weights)
    return 0
"""
# Importing the real ones takes seconds, and nothing is computed here.
STANDING_IN = {"torch": "def manual_seed(seed): pass", "numpy": "class random:\n    seed = print"}


@pytest.fixture
def make_checkout(tmp_path):
    """(name, …) → a checkout's folder. `first` is a statement that `lco train` begins with, the rest is what it writes."""

    def make(name, first="pass", weight="1.0", tokens="100", updates="4"):
        package, start = tmp_path / name / "lco", tmp_path / name / "reproduce" / "start" / "llama"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "cli.py").write_text(CLI.format(first=first, weight=weight, tokens=tokens, updates=updates))
        for module, text in STANDING_IN.items():
            (tmp_path / name / f"{module}.py").write_text(text + "\n")
        start.mkdir(parents=True)
        (start / "model.safetensors").write_bytes(b"weights")
        return tmp_path / name

    return make


@pytest.fixture
def calls():
    """checkout → the methods that its `lco train` was called with."""

    def read(checkout):
        file = checkout / "calls.txt"
        return file.read_text().split() if file.exists() else []

    return read
