"""`lco runs`, `lco samples`, `lco watch`: what a folder says, also of a run that goes on, was stopped, or is damaged."""

import json
import subprocess
import sys

import pytest

from lco.cli import main
from lco.runs.folder import read_run
from lco.training.run_folder import lock_folder


@pytest.fixture
def folder(tmp_path):
    """A run of three rollouts, two of them done."""
    run = tmp_path / "runs" / "gsm8k" / "grpo" / "seed-0"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"method": "mine.py:MINE", "steps": 3}))
    (run / "manifest.json").write_text("{}")
    metrics = [
        {"step": 0, "validation": {"pass@1": 0.25, "greedy": 0.5}},
        {"step": 1, "accuracy": 0.375, "entropy": 0.5},
        {"step": 2, "accuracy": 0.5, "reward": 0.75},
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics)) + '\n{"step": 3, "accu')
    kept = {"problem": "p", "question": "1 + 1?", "answer": "2", "finish": "stop", "tokens": 3}
    samples = [
        {**kept, "step": 1, "response": "it is \x1b[31m3", "correct": False, "reason": "different"},
        {**kept, "step": 2, "response": "it is 2", "correct": True, "reason": "equal"},
    ]
    (run / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    return run


def test_runs_are_listed_with_state_and_last_score(folder, capsys):
    assert main(["runs", str(folder.parents[2])]) == 0
    assert "stopped         2/3  MINE  validation 25.0% (greedy 50.0%)" in capsys.readouterr().out
    with lock_folder(folder):
        assert read_run(folder).state == "running"
    assert read_run(folder).state == "stopped"
    (folder / "checkpoints" / "final").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"method": "grpo", "steps": 2}))
    assert main(["runs", str(folder.parents[2]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


def test_a_killed_run_is_not_taken_for_a_running_one(folder):
    code = "import sys, time; from pathlib import Path; from lco.training.run_folder import lock_folder\n"
    code += "held = lock_folder(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        assert read_run(folder).state == "running"
        owner.kill()
    assert read_run(folder).state == "stopped"


def test_samples_are_read_by_side_and_cannot_steer_the_terminal(folder, capsys):
    assert main(["samples", str(folder), "--wrong"]) == 0
    told = capsys.readouterr().out
    assert "rollout 1, p: wrong (different), 3 tokens" in told
    assert "it is \\x1b[31m3" in told
    assert "it is 2" not in told
    assert main(["samples", str(folder), "--right"]) == 0
    assert "it is 2" in capsys.readouterr().out
    assert main(["samples", str(folder), "--step", "7"]) == 0
    assert "has no such sample" in capsys.readouterr().out


def test_a_run_is_watched_until_it_ends(folder, capsys):
    assert main(["watch", str(folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "rollout 0: validation 25.0%"
    assert told[2] == "rollout 2: right 50.0%, reward 0.75"
    assert told[-1].startswith("stopped after 2 of 3 rollouts")


def test_a_folder_without_a_run_is_one_sentence(tmp_path, capsys):
    for command in (["samples", str(tmp_path)], ["watch", str(tmp_path)], ["runs", str(tmp_path / "absent")]):
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["runs", str(tmp_path)]) == 0
    assert "no run below" in capsys.readouterr().out


def test_the_shell_is_told_commands_flags_and_names():
    """By argcomplete's own protocol."""
    expected = {
        "lco tr": ["train"],
        "lco methods --ch": ["--check"],
        "lco methods dap": ["dapo", "dapo_refill"],
        "lco train --method grp": ["grpo"],
        "lco train --problems aime2": ["aime24", "aime25"],
        "lco train --lr-schedule lin": ["linear"],
        "lco evaluate --tasks lco_gs": ["lco_gsm8k"],
    }
    found = {}
    for line in expected:
        environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
        code = "import os, sys; os.dup2(1, 8); from lco.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        found[line] = sorted(done.stdout.split())
    assert found == expected
