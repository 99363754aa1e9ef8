"""Run folders: complete or absent checkpoints, one writer, each metric line once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lco.disk import append_line
from lco.errors import UserError
from lco.training import checkpoint as disk


def write(text):
    return lambda folder: (folder / "state.txt").write_text(text)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    disk.save_checkpoint(tmp_path, 1, write("one"))
    newest = disk.save_checkpoint(tmp_path, 2, write("two"))
    said = []
    assert disk.newest_checkpoint(tmp_path, said.append)[0] == 2
    (newest / "state.txt").write_text("tw")
    step, folder = disk.newest_checkpoint(tmp_path, said.append)
    assert (step, (folder / "state.txt").read_text()) == (1, "one")
    assert "step-000002 is incomplete" in said[0]


def test_old_checkpoints_are_pruned_and_partial_ones_never_seen(tmp_path):
    for step in range(1, 5):
        disk.save_checkpoint(tmp_path, step, write(str(step)))
    (tmp_path / "checkpoints" / ".step-000009.partial").mkdir()
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == ["step-000003", "step-000004"]


def test_a_resumed_run_makes_each_line_once(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for step in range(5):
        append_line(file, {"step": step, "text": "a\u2028b"})
    with file.open("a") as handle:
        handle.write('{"step": 5, "te')
    disk.keep_lines_before(file, 3)
    assert [json.loads(line)["step"] for line in file.read_text().split("\n") if line] == [0, 1, 2]


def test_a_folder_has_one_writer_and_the_lock_dies_with_it(tmp_path):
    hold = "import sys, time; from lco.training.checkpoint import lock_folder; from pathlib import Path\n"
    hold += "held = lock_folder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(2):  # one that comes in vain takes nothing away, not even the owner's name
            with pytest.raises(UserError, match=f"in use by a running process .pid {other.pid}.; wait for it or give"):
                disk.lock_folder(tmp_path)
        other.kill()
    # What the killed process left is not the folder of something else.
    with (
        disk.claim_folder(tmp_path, resume=False),
        pytest.raises(UserError, match=f"in use by a running process .pid {os.getpid()}"),
    ):
        disk.lock_folder(tmp_path)
    disk.lock_folder(tmp_path).close()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/no/run")):
        with pytest.raises(UserError, match=r"cannot be the run folder .*give another --out"):
            disk.lock_folder(folder)


def test_a_folder_is_claimed_for_the_run_that_belongs_there(tmp_path):
    with disk.claim_folder(tmp_path / "new" / "run", resume=False):
        assert (tmp_path / "new" / "run").is_dir()
    run = tmp_path / "run"
    run.mkdir()
    with disk.claim_folder(run, resume=False):  # an empty one
        pass
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt but no run; give an empty or a new folder"):
        disk.claim_folder(run, resume=False)
    with pytest.raises(UserError, match="no run to resume"):
        disk.claim_folder(run, resume=True)
    (run / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run already"):
        disk.claim_folder(run, resume=False)
    with disk.claim_folder(run, resume=True):
        pass
