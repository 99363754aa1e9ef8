"""Run folders: one writer, one run, each metric line once, nothing left where nothing began."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lco.config import Experiment, dump
from lco.disk import append_line
from lco.errors import UserError
from lco.training.run_folder import claim_folder, keep_metrics, keep_samples, lock_folder, remove_run, same_run


def test_a_folder_has_one_writer_and_the_lock_dies_with_it(tmp_path):
    hold = "import sys, time; from lco.training.run_folder import lock_folder; from pathlib import Path\n"
    hold += "held = lock_folder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(2):  # one that comes in vain takes nothing away, not even the owner's name
            with pytest.raises(UserError, match=f"in use by a running process .pid {other.pid}.; wait for it or give"):
                lock_folder(tmp_path)
        with pytest.raises(UserError, match="in use"):
            claim_folder(tmp_path, resume=False)
        assert (tmp_path / ".owner").exists()
        other.kill()
    # What the killed process left is not the folder of something else.
    with (
        claim_folder(tmp_path, resume=False),
        pytest.raises(UserError, match=f"in use by a running process .pid {os.getpid()}"),
    ):
        lock_folder(tmp_path)
    lock_folder(tmp_path).close()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/no/run")):
        with pytest.raises(UserError, match=r"cannot be the run folder .*give another --out"):
            lock_folder(folder)


def begun(run):
    """A folder as a run leaves it that was killed in its first rollout."""
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "manifest.json").write_text("{}")
    return run


def test_a_folder_is_claimed_for_the_run_that_belongs_there(tmp_path):
    with claim_folder(tmp_path / "new" / "run", resume=False):
        assert (tmp_path / "new" / "run").is_dir()
    run = tmp_path / "run"
    run.mkdir()
    with claim_folder(run, resume=False):  # an empty one
        pass
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt but no run; give an empty or a new folder"):
        claim_folder(run, resume=False)
    with pytest.raises(UserError, match="no run to resume"):
        claim_folder(run, resume=True)
    whole = begun(tmp_path / "whole")
    with pytest.raises(UserError, match="holds a run already; give --resume"):
        claim_folder(whole, resume=False)
    with claim_folder(whole, resume=True):
        pass


@pytest.mark.parametrize(
    "left",
    [{"config.json": ""}, {"manifest.json": "{}"}, {"config.json": "{}"}, {"config.json": "{", "manifest.json": "{}"}],
)
def test_what_a_kill_in_the_first_second_leaves_is_no_run(tmp_path, left):
    for name, text in left.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="no run to resume"):
        claim_folder(tmp_path, resume=True)
    with claim_folder(tmp_path, resume=False):
        pass


def test_a_folder_that_was_made_for_a_run_that_never_began_goes_again(tmp_path):
    (tmp_path / "kept").mkdir()
    claim_folder(tmp_path / "kept" / "a" / "b", resume=False).close()
    assert list((tmp_path / "kept").iterdir()) == []
    with claim_folder(tmp_path / "kept" / "a" / "b", resume=False):
        (tmp_path / "kept" / "a" / "b" / "config.json").write_text("{}")
    assert (tmp_path / "kept" / "a" / "b" / "config.json").exists()
    (tmp_path / "empty").mkdir()
    claim_folder(tmp_path / "empty", resume=False).close()
    assert (tmp_path / "empty").is_dir()  # it was the user's


def test_starting_over_removes_a_runs_own_files_and_no_others(tmp_path):
    run = begun(tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    (run / "checkpoints" / "step-000001").mkdir(parents=True)
    with claim_folder(run, resume=False, start_over=True):
        assert (run / "config.json").exists()  # until everything else is ready
        remove_run(run)
        assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {"notes.txt"}
    other = tmp_path / "model"
    other.mkdir()
    for name in ("config.json", "model.safetensors"):
        (other / name).write_text("{}")
    with pytest.raises(UserError, match=r"holds model\.safetensors but no run"):
        claim_folder(other, resume=False, start_over=True)
    remove_run(other)
    assert (other / "config.json").exists()


def log(file, *steps):
    for step in steps:
        append_line(file, {"step": step, "text": "a\u2028b"})
    return file


def steps_in(file):
    return [json.loads(line)["step"] for line in file.read_text().split("\n") if line]


def test_a_resumed_run_makes_each_line_once(tmp_path):
    file = log(tmp_path / "metrics.jsonl", 0, 1, 2, 3, 4)
    with file.open("a") as handle:
        handle.write('{"step": 5, "te')
    keep_metrics(file, 2)
    assert steps_in(file) == [0, 1, 2]
    keep_metrics(file, 0)
    assert steps_in(file) == []


@pytest.mark.parametrize(
    ("steps", "line", "words"),
    [
        ((1, 3, 4), 2, "rollout 2. is out of order"),
        ((1, 2, 2, 3), 3, "rollout 3. is out of order"),
        ((1, 2), 3, "rollout 3. is missing"),
        ((0, 1, None, 3), 3, "rollout 2. is damaged"),
        ((None, 2, 3), 1, "rollout 1. is damaged"),
    ],
)
def test_a_history_with_a_hole_is_refused_by_line_and_left_alone(tmp_path, steps, line, words):
    file = tmp_path / "metrics.jsonl"
    for step in steps:
        if step is None:
            with file.open("a") as handle:
                handle.write('{"step": 2, "accur\n')
        else:
            log(file, step)
    before = file.read_bytes()
    with pytest.raises(UserError, match=rf"cannot resume from rollout 3: .*metrics\.jsonl, line {line} .{words}"):
        keep_metrics(file, 3)
    assert file.read_bytes() == before


def test_samples_that_can_be_read_stay(tmp_path):
    file = log(tmp_path / "samples.jsonl", 1, 1, 2, 3)
    file.write_text("broken\n" + file.read_text())
    keep_samples(file, 2)
    assert steps_in(file) == [1, 1, 2]


def test_a_key_that_an_older_version_did_not_have_counts_as_its_default(tmp_path):
    run = Experiment(model="m")
    older = {key: value for key, value in json.loads(dump(run)).items() if key != "weight_decay"}
    (tmp_path / "config.json").write_text(json.dumps(older))
    (tmp_path / "manifest.json").write_text("{}")
    assert same_run(tmp_path, run, {}) is None
    assert same_run(tmp_path, dataclasses.replace(run, micro_batch=3, steps=90), {}) is None
    with pytest.raises(UserError, match=r"weight_decay was 0\.0 and is now 0\.1; give the old value"):
        same_run(tmp_path, dataclasses.replace(run, weight_decay=0.1), {})
    (tmp_path / "config.json").write_text("")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        same_run(tmp_path, run, {})
