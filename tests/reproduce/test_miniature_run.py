"""The script around the runs: what it takes over of an earlier call, what it refuses, and what Ctrl-C leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lco.config import dump
from lco.errors import UserError
from reproduce.common import reuse
from reproduce.common.study import add_start_weights, refuse_others
from reproduce.miniature import budget
from reproduce.miniature.run import REMEDY, plan_cells

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
MODULE = "reproduce.miniature.run"


def committed(folder):
    return sorted((RESULTS / folder).glob("*/*/seed-*.json"))


@pytest.mark.parametrize(
    ("folder", "file"),
    [("miniature", budget.PRESETS), ("lco_presets", budget.PRESETS), ("lco_wider", budget.WIDER_PRESETS)],
)
def test_the_committed_records_are_what_the_presets_make(folder, file):
    presets, paths = budget.read_presets(file), committed(folder)
    assert len(paths) >= 50
    for path in paths:
        family, method, seed = path.parts[-3], path.parts[-2], int(path.stem.removeprefix("seed-"))
        wanted = reuse.settings(budget.experiment(family, method, seed, presets[method], path))
        found = reuse.said_by_record(path)
        assert found.keys() >= {"method", "seed", "lr", "hyper", "steps", reuse.WEIGHTS}
        reuse.refuse_another(path, found, wanted, "")
        start = reuse.said_by_record(RESULTS / folder / family / "start.json")
        assert start[reuse.WEIGHTS] == found[reuse.WEIGHTS]


@pytest.fixture
def records(tmp_path):
    """The start model's record and one run's, committed ones, where a call would put its own."""
    folder = tmp_path / "records"
    for name in ("start.json", "grpo/seed-0.json"):
        (folder / "qwen" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RESULTS / "miniature" / "qwen" / name, folder / "qwen" / name)
    return folder


def check(tmp_path, records, knobs=None, with_weights=True):
    presets = {"grpo": {**budget.read_presets()["grpo"], **(knobs or {})}}
    cells = plan_cells(["qwen"], presets, 2, tmp_path, records)
    refuse_others(add_start_weights(cells) if with_weights else cells, REMEDY)


def edit(path, **changes):
    record = json.loads(path.read_text())
    for part, values in changes.items():
        record[part].update(values)
    path.write_text(json.dumps(record))


def test_records_of_the_same_runs_pass_and_of_another_learning_rate_are_refused(tmp_path, records):
    check(tmp_path, records)
    with pytest.raises(
        UserError, match=r"qwen/grpo/seed-0\.json was made with lr 0\.00025, .* 0\.02; give another --out"
    ):
        check(tmp_path, records, {"lr": 0.02})


@pytest.mark.parametrize("name", ["start.json", "grpo/seed-0.json"])
def test_records_from_other_start_weights_are_refused(tmp_path, records, name):
    edit(records / "qwen" / name, model={"sha256": "0" * 64})
    check(tmp_path, records, with_weights=False)
    with pytest.raises(UserError, match=rf"qwen/{name} was made with start weights '0{{64}}', .*; give another --out"):
        check(tmp_path, records)


def test_a_run_folder_without_a_record_is_compared_by_its_configuration(tmp_path, records):
    run = tmp_path / "qwen" / "grpo" / "seed-1"
    run.mkdir(parents=True)
    knobs = budget.read_presets()["grpo"]
    (run / "config.json").write_text(dump(budget.experiment("qwen", "grpo", 1, knobs, run)))
    check(tmp_path, records)
    (run / "config.json").write_text(dump(budget.experiment("qwen", "grpo", 1, {**knobs, "lr": 0.5}, run)))
    with pytest.raises(UserError, match=r"qwen/grpo/seed-1 was made with lr 0\.5, .* remove this folder"):
        check(tmp_path, records)
    (run / "manifest.json").write_text(json.dumps({"model": {"sha256": "abc"}}))
    (run / "config.json").write_text(dump(budget.experiment("qwen", "grpo", 1, knobs, run)))
    with pytest.raises(UserError, match=r"seed-1 was made with start weights 'abc'"):
        check(tmp_path, records)


def test_the_script_refuses_in_one_sentence_before_it_runs_anything(tmp_path, records):
    edit(records / "qwen" / "grpo" / "seed-0.json", experiment={"lr": 0.5})
    command = [sys.executable, "-m", MODULE, "--methods", "grpo", "--classes", "qwen", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    sentences = [line for line in done.stderr.split("\n") if "lr 0.5" in line]
    assert len(sentences) == 1
    assert sentences[0].startswith(f"{MODULE}: ")
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["records"]


def metrics(run):
    file = run / "metrics.jsonl"
    return file.read_text().split("\n")[:-1] if file.exists() else []


def interrupted(command, run, lines, hit, background):
    """Starts the script, waits until the run's metrics have so many lines, sends Ctrl-C; exit code and standard error.

    In the background it starts with SIGINT ignored, as a shell starts `make reproduce &`.
    """
    start = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True, "start_new_session": True}
    at_start = signal.SIG_IGN if background else signal.SIG_DFL
    start["preexec_fn"] = lambda: signal.signal(signal.SIGINT, at_start)
    with subprocess.Popen(command, **start) as process:
        try:
            end = time.monotonic() + 300
            while len(metrics(run)) < lines:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < end, "waited in vain"
                time.sleep(0.1)
            hit(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=150)
        finally:
            process.kill()
    return process.returncode, errors


@pytest.mark.long
def test_ctrl_c_leaves_a_run_that_the_same_command_continues(tmp_path, records):
    """From a terminal the whole process group gets it, from `kill -INT` the script alone."""
    (records / "qwen" / "grpo" / "seed-0.json").unlink()
    command = [sys.executable, "-m", MODULE, "--methods", "grpo", "--classes", "qwen", "--out", str(tmp_path)]
    run = tmp_path / "qwen" / "grpo" / "seed-0"
    code, errors = interrupted(command, run, 2, os.killpg, background=False)
    assert code == 130
    assert "Traceback" not in errors
    assert errors.rstrip().endswith(f"{MODULE}: interrupted; the same command continues where it stopped")
    made = metrics(run)
    assert [p.name for p in (run / "checkpoints").iterdir()] == [f"step-{len(made) - 1:06d}"]
    code, errors = interrupted(command, run, len(made) + 1, os.kill, background=True)
    assert (code, "Traceback" in errors) == (130, False)
    assert metrics(run)[: len(made)] == made  # with their seconds: no rollout was repeated
    assert "Traceback" not in run.with_name("seed-0.log").read_text()
