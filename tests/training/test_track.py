"""Trackers: the numbers of every rollout, one series over all parts of a run, and nothing of the machine or its user."""

import dataclasses
import getpass
import importlib.util
import socket
from pathlib import Path

import pytest

from lco.config import Experiment
from lco.errors import UserError
from lco.training.rules import check_installed
from lco.training.track import numbers_of, tracking, without_paths
from tests.conftest import lines, small, train

ABSENT = "{0} is an optional extra and is not installed here"


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(ABSENT.format(package))


def series(folder):
    """{tag: [(step, value)]} as TensorBoard's own reader has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_numbers_are_those_of_a_rollout_by_name():
    metrics = {"step": 3, "accuracy": 0.5, "loss": float("nan"), "length_right": None, "refill_exhausted": True, "why": "no",
               "seconds": {"total": 2, "step": 1.0}, "validation": {"pass@1": 0.25}}  # fmt: skip
    assert numbers_of(metrics) == {
        "accuracy": 0.5, "refill_exhausted": 1.0, "seconds/total": 2.0, "seconds/step": 1.0, "validation/pass@1": 0.25,
    }  # fmt: skip


def test_a_tracker_is_told_no_path():
    run = Experiment(
        model="/secret/me/models/m",
        critic_model="org/critic",
        data_dir="/secret/me/data",
        out="/secret/me/runs",
        problems="/secret/p.jsonl",
    )
    told = without_paths(run)
    assert (told["model"], told["critic_model"], told["problems"], told["lr"]) == ("m", "critic", "p.jsonl", run.lr)
    assert "/secret" not in str(told)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tensorboard", "wandb"):
        with pytest.raises(
            UserError, match=rf"track is '{name}', but {name} is not installed; install it into the same"
        ):
            check_installed(Experiment(track=name))
    check_installed(Experiment())


def test_without_a_tracker_nothing_is_written(tmp_path):
    with tracking("none", tmp_path, 0, "r", {}) as track:
        assert track is None
    assert not list(tmp_path.iterdir())


def test_tensorboard_reads_one_series_over_all_parts_of_a_run(tmp_path):
    """A run is killed after rollout 4, goes on from its checkpoint after 2, and again: what is made anew stands once."""
    needs("tensorboard")
    for start, end, value in ((0, 4, 1.0), (2, 5, 2.0), (2, 3, 3.0), (3, 6, 4.0)):
        with tracking("tensorboard", tmp_path, start, "r", {}) as track:
            if not start:
                track(0, {"validation/pass@1": 0.5})
            for step in range(start + 1, end + 1):
                track(step, {"accuracy": value})
    found = series(tmp_path / "tensorboard")
    assert found["accuracy"] == [(1, 1.0), (2, 1.0), (3, 3.0), (4, 4.0), (5, 4.0), (6, 4.0)]
    assert found["validation/pass@1"] == [(0, 0.5)]


@pytest.fixture
def user(monkeypatch):
    """A name that stands nowhere by chance."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "user-name-of-nobody")


def test_event_files_name_no_user_machine_or_place(tmp_path, user):
    needs("tensorboard")
    with tracking("tensorboard", tmp_path, 0, "r", {}) as track:
        track(1, {"accuracy": 0.5})
    assert not traces(tmp_path / "tensorboard", tmp_path)


def test_wandb_offline_keeps_the_run_in_its_folder_and_names_nobody(tmp_path, monkeypatch, user):
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    config = without_paths(dataclasses.replace(Experiment(), model=str(tmp_path / "m"), out=str(tmp_path)))
    for start in (0, 2):
        with tracking("wandb", tmp_path, start, "0123456789abcdef", config) as track:
            for step in range(start + 1, start + 3):
                track(step, {"accuracy": 0.125 * step})
    parts = sorted(path for path in (tmp_path / "wandb").glob("offline-run-*") if path.is_dir())
    assert len(parts) == 2
    assert all(path.name.endswith("0123456789abcdef") for path in parts)  # one run for the server, in two parts
    assert not traces(tmp_path / "wandb", tmp_path, "k" * 40)


def test_a_resumed_run_goes_on_with_its_series(tmp_path):
    needs("tensorboard")
    folder = train(small(tmp_path / "run", steps=2, track="tensorboard"))
    train(small(tmp_path / "run", steps=3, track="tensorboard"), resume=True)
    found = series(folder / "tensorboard")
    logged = {line["step"]: line for line in lines(folder)}
    assert [step for step, _ in found["accuracy"]] == [1, 2, 3]
    assert [value for _, value in found["loss"]] == pytest.approx([logged[step]["loss"] for step in (1, 2, 3)])
    assert [step for step, _ in found["validation/greedy"]] == [0, 2, 3]
    assert not traces(folder / "tensorboard", tmp_path)
    train(small(tmp_path / "run", steps=1, track="tensorboard"), start_over=True)
    assert [step for step, _ in series(folder / "tensorboard")["accuracy"]] == [1]


def traces(folder: Path, *secrets):
    """Where a name of this user or machine, or a secret, stands in a name or in a byte of any file below the folder."""
    hidden = [getpass.getuser(), socket.gethostname(), *map(str, secrets)]
    found = []
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        name = str(path.relative_to(folder))
        found += [(name, text) for text in hidden if text in name or text.encode() in data]
    return found
