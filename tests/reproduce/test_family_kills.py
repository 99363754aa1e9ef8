"""A family's study that is killed at ten instants, then continued by two calls at once, is the study that nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
KILLS = 10
OF_THE_MOMENT = ("seconds", "cost", "provenance", "source_sha256", "sha256")
"""What of a record tells when, how long and by which process it was made."""


def command(out):
    return [
        *(sys.executable, "-m", "reproduce.llama", "1b", "--smoke", "--methods", "grpo", "lco_mse", "--seeds", "1"),
        *("--out", str(out), "--processes", "1"),
    ]


def content(out):
    """{record: what it says of the run}."""
    found = {file.name: json.loads(file.read_text()) for file in sorted((out / "records").rglob("*.json"))}
    for record in found.values():
        for key in OF_THE_MOMENT:
            record.pop(key)
    return found


def start(out):
    return subprocess.Popen(
        command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill_whole(process):
    """kill −9 of the call and of all its processes, wherever they are."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


@pytest.mark.long
def test_a_study_killed_ten_times_and_continued_by_two_calls_is_the_undisturbed_one(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    begun = time.monotonic()
    assert start(undisturbed).wait() == 0
    whole = time.monotonic() - begun
    expected = content(undisturbed)
    assert {"start.json", "grpo-seed-0.json", "lco_mse-seed-0.json"} <= expected.keys()

    draws, killed = random.Random(0), 0
    for _ in range(KILLS):
        process = start(disturbed)
        try:
            process.wait(timeout=draws.uniform(0.05, 0.6) * whole)
        except subprocess.TimeoutExpired:
            kill_whole(process)
            killed += 1
    assert killed  # the first call at least cannot have come to its end
    both = [start(disturbed), start(disturbed)]
    codes = [process.wait() for process in both]
    if any(codes):  # one found the last cell in the other's hands and says so; alone it finds everything done
        assert start(disturbed).wait() == 0
    assert content(disturbed) == expected
    assert [file.read_bytes() for file in sorted((disturbed / "records").rglob("*.samples.jsonl"))] == [
        file.read_bytes() for file in sorted((undisturbed / "records").rglob("*.samples.jsonl"))
    ]
