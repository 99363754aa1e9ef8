"""The engine of all sweeps, on cells that cost nothing and on a real run: what lands, what is skipped, refused, named."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from lco.disk import write_json
from lco.errors import UserError
from lco.stopping import Stopped
from reproduce.common.entry import add_processes, command_parser
from reproduce.common.study import Cell, Study, make_missing, refuse_others
from tests.conftest import lines, small, train
from tests.reproduce.counting import cell, lines_of, study

NAMES = {"first": 2, "second": 3, "third": 1}


@pytest.fixture
def cells(tmp_path):
    return [cell(tmp_path, name, steps) for name, steps in NAMES.items()]


def recorded(cells):
    return {c.name: json.loads(c.record.read_text())["counted"] for c in cells if c.record.exists()}


def test_every_cell_is_recorded_and_a_second_call_runs_nothing(cells, capsys):
    assert make_missing(study(cells), 2).failed == ()
    assert recorded(cells) == NAMES
    assert "second: counted 3" in capsys.readouterr().out
    before = {path: path.read_bytes() for c in cells for path in (c.record, c.folder / "steps.jsonl")}
    make_missing(study(cells), 2).require_all()
    assert {path: path.read_bytes() for path in before} == before
    assert "counted" not in capsys.readouterr().out


def test_a_new_cell_is_made_beside_the_recorded_ones(tmp_path, cells):
    make_missing(study(cells[:2]), 1)
    kept = [c.record.read_bytes() for c in cells[:2]]
    make_missing(study(cells), 1)
    assert recorded(cells) == NAMES
    assert [c.record.read_bytes() for c in cells[:2]] == kept


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "RuntimeError: a wheel came off"),
        ("mistaken", "mistaken failed: lr is 7; give a smaller one"),
        ("killed", "its process was killed by SIGKILL before the task was done"),
    ],
)
def test_a_cell_that_fails_is_named_with_its_reason_and_the_others_go_on(tmp_path, cells, capsys, name, reason):
    bad = cell(tmp_path, name, 1)
    made = make_missing(study([cells[0], bad, *cells[1:]]), 1)
    assert recorded([bad, *cells]) == NAMES
    assert made.failed == (name,)
    with pytest.raises(UserError, match=rf"1 of 4 cells failed: {name}; .* tries these again"):
        made.require_all()
    screen = capsys.readouterr().out
    assert reason in screen
    assert str(bad.log) in screen
    assert ("step 0 of" in screen, "Traceback" in screen) == (False, name == "broken")
    if name != "killed":  # nobody flushes what a killed process was about to print
        assert f"step 0 of {name}" in bad.log.read_text()


def test_a_record_or_run_folder_of_another_definition_is_refused_before_anything_runs(tmp_path, cells):
    other = cell(tmp_path, "third", 1, lr=0.5)
    write_json(other.record, dict(other.defined))
    with pytest.raises(UserError, match=r"third\.json was made with lr 0\.5, and this call asks for 0\.001; remove it"):
        make_missing(study(cells), 2)
    other.record.unlink()
    make_missing(study([other]), 1)
    other.record.unlink()
    with pytest.raises(
        UserError, match=r"runs/third was made with lr 0\.5, .*; give another --out, or remove this folder"
    ):
        make_missing(study(cells), 2)
    assert not any(c.folder.exists() for c in cells[:2])
    refuse_others(cells[:2], "")


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_a_number_of_processes_that_is_none_is_named(capsys, text):
    parser = command_parser("study", "")
    add_processes(parser)
    assert parser.parse_args(["--processes", "3"]).processes == 3
    with pytest.raises(SystemExit):
        parser.parse_args([f"--processes={text}"])
    assert f"'{text}' is no whole number above zero; give 1 or more" in capsys.readouterr().err


def command(out, pause, cells):
    texts = [f"{name}={steps}" for name, steps in cells.items()]
    return [sys.executable, "-m", "tests.reproduce.counting", str(out), "--pause", str(pause), "--cells", *texts]


def wait_until(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_killed_call_leaves_no_process_and_the_same_call_continues(tmp_path):
    plan = {"quick": 1, "sleeper": 3, "last": 2}
    cells = [cell(tmp_path, name, steps) for name, steps in plan.items()]
    with subprocess.Popen(command(tmp_path, 0.3, plan), stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: cells[2].record.exists() and len(lines_of(cells[1])) == 2, process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) >= 2
    assert not alive
    assert recorded(cells) == {"quick": 1, "last": 2}
    begun, first = lines_of(cells[1]), cells[0].record.read_bytes()
    subprocess.run(command(tmp_path, 0, plan), check=True, capture_output=True)
    assert recorded(cells) == plan
    assert cells[0].record.read_bytes() == first
    assert lines_of(cells[1])[: len(begun)] == begun


@pytest.mark.parametrize("background", [False, True], ids=["terminal", "background"])
def test_ctrl_c_is_one_sentence_and_the_same_command_continues(tmp_path, background):
    """From a terminal all processes get it; a shell starts a background job with the signal ignored, and `kill` counts."""
    plan = {"slow": 300, "slower": 301, "never": 1}  # a minute and a half, of which the test waits for the beginning
    cells = [cell(tmp_path, name, steps) for name, steps in plan.items()]
    start = {"start_new_session": True, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    at_start = signal.SIG_IGN if background else signal.SIG_DFL
    start["preexec_fn"] = lambda: signal.signal(signal.SIGINT, at_start)
    with subprocess.Popen(command(tmp_path, 0.3, plan), **start) as process:
        wait_until(lambda: lines_of(cells[0]) and lines_of(cells[1]), process)
        (os.kill if background else os.killpg)(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.rstrip().endswith("counting: interrupted; the same command continues where it stopped")
    assert recorded(cells) == {}
    assert not cells[2].folder.exists()
    assert not any((c.folder / "interrupted-twice").exists() for c in cells)
    assert not any("Traceback" in c.log.read_text() for c in cells[:2])
    subprocess.run(command(tmp_path, 0, plan), check=True, capture_output=True)
    assert recorded(cells) == plan


def test_of_two_calls_at_once_each_cell_is_made_by_one(tmp_path):
    plan = {f"cell-{i}": 4 for i in range(6)}
    start = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    calls = [subprocess.Popen(command(tmp_path, 0.1, plan), **start) for _ in range(2)]
    said = [call.communicate(timeout=120) for call in calls]
    assert [call.returncode for call in calls] == [0, 0], said
    cells = [cell(tmp_path, name, steps) for name, steps in plan.items()]
    assert recorded(cells) == plan
    for c in cells:
        assert [line["step"] for line in lines_of(c)] == [0, 1, 2, 3]
        assert len({line["pid"] for line in lines_of(c)}) == 1


def test_a_cell_in_other_hands_is_said_and_left_to_them(tmp_path):
    plan = {"sleeper": 2, "other": 1}
    cells = [cell(tmp_path, name, steps) for name, steps in plan.items()]
    with subprocess.Popen(command(tmp_path, 0.1, plan), stderr=subprocess.PIPE, text=True) as first:
        wait_until(lambda: lines_of(cells[0]), first)
        second = subprocess.run(command(tmp_path, 0, plan), capture_output=True, text=True)
        first.kill()
    assert second.returncode == 0, second.stderr
    assert "being made by another call, so left to it: sleeper" in second.stdout
    assert recorded(cells) == {"other": 1}
    assert len(lines_of(cells[0])) == 1
    subprocess.run(command(tmp_path, 0, plan), check=True, capture_output=True)
    assert recorded(cells) == plan


def metrics_of(cell):
    """The lines of a finished run without their seconds."""
    return {"metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines(cell.folder)]}


def describe_metrics(record):
    return f"{len(record['metrics'])} lines"


def test_a_cell_trains_as_the_trainer_does_and_goes_on_from_its_checkpoint(tmp_path):
    by_hand = small(tmp_path / "by_hand", steps=2, eval_every=0)
    train(by_hand)
    run = dataclasses.replace(by_hand, out=str(tmp_path / "runs" / "cell"))
    with pytest.raises(Stopped):
        train(run, on_step=lambda metrics: os.kill(os.getpid(), signal.SIGINT))  # Ctrl-C in the first rollout
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-000001"]
    found = Cell("real", run, tmp_path / "records" / "real.json", {}, run.steps)
    threads = torch.get_num_threads()  # sums depend on it
    make_missing(Study("real", [found], metrics_of, describe_metrics, threads=threads), 1).require_all()
    wanted = metrics_of(Cell("by hand", by_hand, tmp_path / "none.json", {}, by_hand.steps))
    assert json.loads(found.record.read_text()) == json.loads(json.dumps(wanted))
