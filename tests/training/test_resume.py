"""Resumes: to the uninterrupted run bit for bit, or refused by name; what a run leaves that never began, and a full disk."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from lco.cli import main
from lco.errors import UserError
from lco.methods import METHODS
from lco.stopping import Stopped
from lco.training.checkpoint import newest_checkpoint
from tests.conftest import START, lines, small, train, weights, without_time


@pytest.mark.parametrize("name", ["lco_kld", "ppo", "dpo", "cppo"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, name):
    """Bit for bit: weights, and every metric line once. Stopped exactly where a checkpoint was saved."""
    every = 0 if name == "dpo" else 2
    whole = train(small(tmp_path / "whole", method=name, steps=4, save_every=2, eval_every=every))
    part = small(tmp_path / "part", method=name, steps=2, eval_every=every)
    train(part)
    resumed = train(dataclasses.replace(part, steps=4), resume=True)
    # The shorter run validated after its last rollout too.
    assert [without_time(x) for x in lines(resumed)] == [without_time(x) for x in lines(whole)]
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key


def test_a_learning_rate_that_goes_down_goes_on_where_it_was_and_over_as_many_rollouts(tmp_path):
    def interrupt(metrics):
        if metrics["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    whole = train(small(tmp_path / "whole", method="grpo", lr_schedule="cosine", steps=4, eval_every=0))
    part = small(tmp_path / "part", method="grpo", lr_schedule="cosine", steps=4, eval_every=0)
    with pytest.raises(Stopped):
        train(part, on_step=interrupt)
    with pytest.raises(
        UserError, match=r"steps was 4 and is now 5, but lr_schedule is 'cosine', so the learning rate goes down"
    ):
        train(dataclasses.replace(part, steps=5), resume=True)
    resumed = train(part, resume=True)
    rates = [line["lr"] for line in lines(resumed)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]
    assert [without_time(x) for x in lines(resumed)] == [without_time(x) for x in lines(whole)]
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key


def test_existing_absent_and_changed_runs_are_refused(tmp_path):
    run = small(tmp_path / "run", steps=1, eval_every=0)
    with pytest.raises(UserError, match="no run to resume"):
        train(run, resume=True)
    train(run)
    with pytest.raises(UserError, match="holds a run already; give --resume"):
        train(run)
    with pytest.raises(UserError, match=r"lr was 0\.001 and is now 0\.5"):
        train(dataclasses.replace(run, lr=0.5), resume=True)
    with pytest.raises(UserError, match="limit was 50 and is now 40"):
        train(dataclasses.replace(run, limit=40), resume=True)


def test_other_data_under_the_same_name_is_refused(tmp_path):
    data = tmp_path / "mine.jsonl"

    def write(answer):
        rows = [{"id": str(i), "problem": f"Ann has {i} pens . finds 2 ?", "answer": answer} for i in range(1, 9)]
        data.write_text("\n".join(map(json.dumps, rows)))

    write(3)
    run = small(tmp_path / "run", problems=str(data), steps=1, eval_every=0, limit=0)
    train(run)
    write(4)
    with pytest.raises(UserError, match="problems_sha256 was"):
        train(dataclasses.replace(run, steps=2), resume=True)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"method": "dpo"}, "reference_model", "fixed_models was .* and is now"),
        ({"method": "ppo", "critic": "separate"}, "critic_model", "critic_model was .* and is now"),
    ],
)
def test_other_weights_under_the_same_name_are_refused(tmp_path, changes, key, words):
    """Of a model beside the trained one: its path is the one that the run had, its weights are not."""
    from transformers import AutoModelForCausalLM

    other = tmp_path / "other"
    shutil.copytree(START / "llama", other)
    run = small(tmp_path / "run", steps=1, eval_every=0, **{key: str(other)}, **changes)
    train(run)
    model = AutoModelForCausalLM.from_pretrained(other)
    model.get_input_embeddings().weight.data[0] += 1
    model.save_pretrained(other)
    with pytest.raises(UserError, match=words):
        train(dataclasses.replace(run, steps=2), resume=True)


def command(run, *more):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(run).items()
             if not isinstance(value, bool | dict) and value != ""]  # fmt: skip
    return [sys.executable, "-m", "lco.cli", "train", *flags, *more]


def heard():
    """In a child: a closed terminal is heard, also where `nohup` started the tests."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for_rollouts(folder, count, process):
    wait_until(lambda: (folder / "metrics.jsonl").exists() and len(lines_whole(folder)) >= count, process)


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.stderr.read())


def lines_whole(folder):
    return [x for x in (folder / "metrics.jsonl").read_text().split("\n")[:-1] if x]


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_interrupted_and_killed_runs_resume_to_the_uninterrupted_result(tmp_path, how):
    """Ctrl-C, and what a scheduler or a closed terminal sends, stops after the rollout and saves; a kill loses what came
    after the newest checkpoint."""
    run = small(tmp_path / "run", steps=6, save_every=1, eval_every=0)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        command(run), env=environment, preexec_fn=heard, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_rollouts(tmp_path / "run", 2, process)
        process.send_signal(how)
        process.wait(timeout=60)
    # As a shell reports it; a scheduler that sees 0 would take the job for done.
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert newest_checkpoint(tmp_path / "run", None, print) is not None
    done = subprocess.run(command(run, "--resume"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole = train(dataclasses.replace(run, out=str(tmp_path / "whole")))
    assert [without_time(x) for x in lines(tmp_path / "run")] == [without_time(x) for x in lines(whole)]
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(tmp_path / "run")[key])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_rollout_leaves_nothing(tmp_path, how):
    run = small(tmp_path / "runs" / "run", steps=6, eval_every=0)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        command(run), env=environment, preexec_fn=heard, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until((tmp_path / "runs" / "run" / ".owner").exists, process)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()[-1]) == (128 + how, f"lco: ended by {how.name}")
    assert not (tmp_path / "runs").exists()


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path):
    run = small(tmp_path / "run", steps=3, eval_every=0)
    start = {"env": {**os.environ, "PYTHONPATH": os.getcwd()}, "stderr": subprocess.PIPE, "text": True}
    ignore = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    with subprocess.Popen(command(run), preexec_fn=ignore, **start) as process:
        wait_for_rollouts(tmp_path / "run", 1, process)
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(lines(tmp_path / "run")) == 3


def test_a_resume_that_would_start_over_is_refused_and_touches_nothing(tmp_path):
    """The only checkpoint is cut in half: the log stays as it is, and an explicit flag begins again."""
    run = small(tmp_path / "run", steps=2, eval_every=0)
    folder = train(run)
    shutil.rmtree(folder / "checkpoints" / "final")
    state = folder / "checkpoints" / "step-000002" / "model.safetensors"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(
        UserError, match=r"2 rollouts are logged, but no whole checkpoint .* nothing was changed, give --start"
    ):
        train(run, resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before
    again = train(run, start_over=True)
    assert [without_time(line) for line in lines(again)] == [
        without_time(json.loads(x)) for x in before.split(b"\n") if x
    ]


def test_a_run_without_a_finished_rollout_begins_where_it_is(tmp_path):
    run = small(tmp_path / "run", steps=1, eval_every=0)
    folder = train(run)
    whole = lines(folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.jsonl").unlink()
    assert [without_time(line) for line in lines(train(run, resume=True))] == [without_time(line) for line in whole]


def test_a_finished_run_is_left_as_it_is_and_an_earlier_model_is_not_taken_for_a_later_one(tmp_path, capsys):
    run = small(tmp_path / "run", steps=2, eval_every=0)
    folder = train(run)
    config = (folder / "config.json").read_bytes()
    assert train(run, resume=True) == folder
    assert "has its 2 rollouts behind it; give more --steps" in capsys.readouterr().err
    with pytest.raises(UserError, match="has 2 rollouts behind it, and steps is 1; give --steps above 2"):
        train(dataclasses.replace(run, steps=1), resume=True)
    assert (folder / "config.json").read_bytes() == config

    def stop(metrics):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match=r"stopped after 3 of 9 rollouts; the run is in .*, continue with --resume"):
        train(dataclasses.replace(run, steps=9), resume=True, on_step=stop)
    assert not (folder / "checkpoints" / "final").exists()
    assert (folder / "checkpoints" / "final-000002" / "model.safetensors").exists()


def test_a_run_that_nothing_moves_says_so_and_ends(tmp_path, monkeypatch, capsys):
    """A gradient that is no number is never applied; a model that stays what it was is no result."""

    def loss(hyper):
        return lambda s, x: s["logprob"] * float("nan")

    monkeypatch.setitem(METHODS, "broken", METHODS["reinforce"].variant("broken", "Broken", "", loss=loss))
    with pytest.raises(
        UserError,
        match="rollout 4: the gradient of every one of its 2 updates was no finite number, so none was applied; so it",
    ):
        train(small(tmp_path / "run", method="broken", steps=9, eval_every=0))
    assert "rollout 1: the gradient of every one of its 2 updates was no finite number" in capsys.readouterr().err


def test_a_loss_that_is_no_number_is_said_and_ends_the_run(tmp_path, capsys):
    """Kimi's gradient stays finite where its loss, A² / 2τ, does not."""
    with pytest.raises(UserError, match="rollout 4: its loss is no finite number, though gradients are"):
        train(small(tmp_path / "run", method="kimi", hyper={"tau": 1e-30}, steps=9, eval_every=0))
    assert "rollout 1: its loss is no finite number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("samples.jsonl", lambda text: text[:-40], "was changed or cut"),
        ("samples.jsonl", lambda text: "".join(text.splitlines(keepends=True)[1:]), "was changed or cut"),
        ("samples.jsonl", None, "is missing"),
        ("samples.jsonl", lambda text: text.replace('"reason"', '"reasom"', 1), "was changed or cut"),
        ("metrics.jsonl", lambda text: text.replace('"accuracy": 0', '"accuracy": 1', 1), "was changed or cut"),
        ("metrics.jsonl", None, r"line 1 \(rollout 1\) is missing"),
    ],
)
def test_lines_that_are_not_those_of_the_checkpoint_are_refused(tmp_path, name, change, words):
    run = small(tmp_path / "run", steps=2, eval_every=0)
    file = train(run) / name
    before = file.read_text()
    if change is None:
        file.unlink()
    else:
        assert change(before) != before
        file.write_text(change(before))
    with pytest.raises(UserError, match=rf"cannot resume from .*{name}.* {words}.*--start-over"):
        train(dataclasses.replace(run, steps=3), resume=True)
    file.write_text(before + '{"step": 3, "half of a line that a kill has cu')
    train(dataclasses.replace(run, steps=3), resume=True)
    assert len(lines(tmp_path / "run")) == 3


def test_a_short_run_that_nothing_moved_has_no_last_model(tmp_path):
    run = small(tmp_path / "run", method="kimi", hyper={"tau": 1e-30}, steps=2, eval_every=0)
    with pytest.raises(UserError, match="none of 2 rollouts had an update that could be applied"):
        train(run)
    assert not (tmp_path / "run" / "checkpoints" / "final").exists()


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


def test_a_refusal_or_a_signal_leaves_the_run_that_was_to_start_over(tmp_path, capsys):
    from lco.cli import main

    folder = train(small(tmp_path / "run", steps=1, eval_every=0))
    before = content(folder)
    assert main(["train", "--start-over", "--out", str(folder), "--model", "./absent"]) == 2
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    again = [sys.executable, "-m", "lco.cli", "train", "--start-over", "--out", str(folder)]
    with subprocess.Popen(again, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: (folder / ".owner").read_text() == str(process.pid), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert content(folder) == before
    # The run's own configuration is read, before anything of it goes.
    assert main(["train", "--start-over", "--out", str(folder), "--seed", "5"]) == 0
    assert json.loads((folder / "config.json").read_text())["seed"] == 5


@pytest.mark.parametrize("flag", ["--resume", "--start-over"])
def test_a_folder_without_a_run_is_named_before_the_model_that_is_not_given(tmp_path, flag, capsys):
    from lco.cli import main

    assert main(["train", flag, "--out", str(tmp_path / "typo")]) == 2
    assert f"there is no run in {tmp_path / 'typo'}; leave {flag} out" in capsys.readouterr().err


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="there is no model folder"):
        train(small(tmp_path / "runs" / "a" / "b", model="./absent"))
    assert not (tmp_path / "runs").exists()


def test_a_disk_without_room_is_named_before_the_first_rollout(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(
        UserError,
        match=r"no room for the 2 checkpoints that this run keeps: about .* are wanted in .*, but only 1 MiB are free",
    ):
        train(small(tmp_path / "run", steps=1, eval_every=0))


def test_a_resume_needs_no_more_than_the_runs_folder(tmp_path):
    from lco.cli import main

    folder = train(small(tmp_path / "run", steps=1, eval_every=0))
    assert main(["train", "--resume", "--out", str(folder), "--steps", "2"]) == 0
    assert [line["step"] for line in lines(folder)] == [1, 2]
    assert main(["train", "--resume", "--start-over", "--out", str(folder)]) == 2


def test_a_run_that_ended_before_its_last_model_was_written_gets_it_on_resume(tmp_path):
    """And what an export left half-written is no part of it."""
    folder = train(small(tmp_path / "run", eval_every=0))
    expected = weights(folder)
    final = folder / "checkpoints" / "final"
    final.rename(final.with_name(".final.partial"))
    (final.with_name(".final.partial") / "stray.bin").write_text("x")
    train(small(tmp_path / "run", eval_every=0), resume=True)
    found = weights(folder)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not (final / "stray.bin").exists()
    assert not final.with_name(".final.partial").exists()


def test_a_run_whose_configuration_is_damaged_is_made_again_from_what_is_typed(tmp_path, capsys):
    folder = train(small(tmp_path / "run", steps=1, eval_every=0))
    (folder / "config.json").write_text("")
    flags = ["--out", str(folder)]
    for flag in ("--resume", "--start-over"):
        assert main(["train", flag, *flags]) == 2
        assert "config.json says what the run is, and is damaged; restore it, or make the run again with" in (
            capsys.readouterr().err
        )
    small_flags = (
        "--extraction hash --max-prompt-tokens 32 --prompts-per-step 2 --samples 2 --steps 1 --limit 50 --device cpu "
        f"--method grpo --model {START / 'llama'}"
    )
    assert main(["train", "--start-over", *flags, *small_flags.split()]) == 0
    assert len(lines(folder)) == 1
