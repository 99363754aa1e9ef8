"""A pool of pairs in a whole run: DPO's batches where nothing is left out, resumed exactly, and asked by any method."""

import dataclasses
import json

import pytest
import torch

from lco.methods import METHODS
from lco.methods.objective import Choice, Refresh
from tests.conftest import lines, small, train, weights, without_time

PAIRS = {"eval_every": 0, "minibatches": 2, "samples": 8, "lr": 3e-4}
EVERYTHING = {"bins": 0, "boundary": 0.0, "noise_share": 0.0, "drop_changed": False, "fraction": 1.0}


def test_without_filters_it_is_dpo_bit_for_bit(tmp_path):
    knobs = {"refresh_every": 2, **EVERYTHING}
    sage = train(small(tmp_path / "sage", method="sage", steps=3, hyper=knobs, **PAIRS))
    dpo = train(small(tmp_path / "dpo", method="dpo", steps=3, **PAIRS))
    for name, value in weights(dpo).items():
        assert torch.equal(weights(sage)[name], value)
    for ours, theirs in zip(lines(sage), lines(dpo), strict=True):
        assert ours["pairs_left_out"] == 0
        assert {name: ours[name] for name in without_time(theirs)} == without_time(theirs)
    assert lines(sage)[2]["pool_pairs"] == lines(sage)[2]["pool_chosen"] > 0
    assert "pool_pairs" not in lines(sage)[0]


def test_a_pool_that_is_chosen_from_learns_from_fewer_pairs_and_goes_on_exactly_after_a_stop(tmp_path):
    run = {"method": "sage", "hyper": {"refresh_every": 2, "bins": 2, "fraction": 0.5}, **PAIRS}
    whole = train(small(tmp_path / "whole", steps=6, save_every=1, **run))
    assert sum(line["pairs_left_out"] for line in lines(whole)[:2]) == 0
    assert sum(line["pairs_left_out"] for line in lines(whole)[2:]) > 0
    for first in (2, 4):
        found = lines(whole)[first]
        assert 0 < found["pool_chosen"] < found["pool_pairs"]
    stopped = tmp_path / "stopped"
    plan = small(stopped, steps=6, save_every=1, **run)
    seen = []

    def stop(metrics):
        seen.append(metrics["step"])
        if metrics["step"] == 5:
            raise RuntimeError("pulled out")

    with pytest.raises(RuntimeError, match="pulled out"):
        train(plan, on_step=stop)
    state = json.loads((stopped / "checkpoints" / "step-000004" / "pool.json").read_text())
    assert state["earlier"].keys() == {"4", "5"}
    train(plan, resume=True)
    for name, value in weights(whole).items():
        assert torch.equal(weights(stopped)[name], value)
    assert [without_time(line) for line in lines(stopped)] == [without_time(line) for line in lines(whole)]


def test_any_method_of_pairs_may_ask_for_a_pool_and_hears_of_an_empty_choice(tmp_path, monkeypatch, capsys):
    """A declared hook: here DPO by another name, which leaves out every pair once it may choose."""
    asked = []

    def nothing(candidates):
        asked.append(candidates)
        return Choice(torch.zeros(len(candidates.gain), dtype=torch.bool), {"pool_idle": 1.0}, ("none of them",))

    mine = dataclasses.replace(METHODS["dpo"], name="mine", refresh=lambda hyper: Refresh(1, False, nothing))
    monkeypatch.setitem(METHODS, "mine", mine)
    found = lines(train(small(tmp_path / "run", method="mine", steps=2, **PAIRS)))
    assert [line["updates"] for line in found] == [2, 0]
    assert found[1]["skipped"] == "no row left to learn from"
    assert found[1]["pool_chosen"] == 0
    assert "none of them" in capsys.readouterr().err
    assert len(asked) == 1
    assert asked[0].earlier is None
    assert ((asked[0].success > 0) & (asked[0].success < 1)).all()  # a problem with a pair has answers of both kinds
    assert not torch.equal(asked[0].gain, torch.zeros_like(asked[0].gain))


def test_only_methods_that_choose_have_a_pool():
    assert [name for name, method in METHODS.items() if method.bind().refresh] == ["sage"]
    assert all(METHODS[name].source == "pairs" for name in METHODS if METHODS[name].bind().refresh)
