"""What the committed presets rest on: four tries each, equal for all, whatever else was tried later."""

import dataclasses
import json

import pytest

from lco.config import dump
from lco.errors import UserError
from reproduce.common.study import refuse_others
from reproduce.miniature import budget, tune

WITH_PRESETS = sorted(budget.read_presets())


@pytest.mark.parametrize("method", WITH_PRESETS)
def test_the_committed_presets_are_the_best_of_the_committed_tries(method):
    committed = json.loads(budget.PRESETS.read_text())[method]
    assert tune.best_tries([method])[method] == committed
    assert len(committed["tried"]) == 4
    assert committed["validation_pass@1"] == max(t["validation_pass@1"] for t in committed["tried"])


def test_the_wider_presets_are_the_best_of_all_committed_tries():
    committed = json.loads(budget.WIDER_PRESETS.read_text())
    assert tune.best_tries(budget.WIDER, wider=True) == committed
    assert {method: len(c["tried"]) for method, c in committed.items()} == {
        method: len(tune.tries(method)) for method in budget.WIDER
    }


def test_wider_tries_change_no_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "RECORDS", tmp_path)
    tries = tune.tries("grpo")
    assert len(tries) > 4
    for number, knobs in enumerate(tries):
        record = {"knobs": knobs, "end": {"pass@1": number / 10}}
        tune.record_file("grpo", number).write_text(json.dumps(record))
    assert tune.best_tries(["grpo"])["grpo"]["knobs"] == tries[3]
    row = next(line for line in tune.wider_table().split("\n") if line.startswith("| grpo"))
    assert row == f"| grpo | 30.0% | {tune.named(tries[3])} | 50.0% | {tune.named(tries[5])} | 6 |"


def test_wider_tries_are_new_and_keep_to_the_common_setting():
    for method, further in budget.WIDER.items():
        four = budget.TRIES[method]
        assert all(knobs not in four for knobs in further)
        assert {key for knobs in further for key in knobs} == {key for knobs in four for key in knobs}


def test_the_committed_records_are_of_the_tries_that_stand_in_the_setting(tmp_path):
    wanted = {method: len(tune.tries(method)) for method in budget.TRIES}
    assert all(tune.record_file(method, n).exists() for method, count in wanted.items() for n in range(count))
    refuse_others(tune.plan_cells(wanted, tmp_path), "")


def test_a_record_or_run_folder_of_another_try_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "RECORDS", tmp_path)
    knobs = budget.TRIES["grpo"][0]
    cells = tune.plan_cells({"grpo": 1}, tmp_path)
    tune.record_file("grpo", 0).write_text(json.dumps({"method": "grpo", "knobs": knobs}))
    refuse_others(cells, "remove it and its run folder")
    tune.record_file("grpo", 0).write_text(json.dumps({"method": "grpo", "knobs": {"lr": 0.5}}))
    with pytest.raises(
        UserError, match=r"grpo-0\.json was made with knobs {'lr': 0\.5}, .*; remove it and its run folder"
    ):
        refuse_others(cells, "remove it and its run folder")
    tune.record_file("grpo", 0).unlink()
    folder = tmp_path / "grpo-0"
    folder.mkdir()
    (folder / "config.json").write_text(dump(dataclasses.replace(tune.experiment("grpo", knobs, folder), lr=0.5)))
    with pytest.raises(UserError, match=r"grpo-0 was made with lr 0\.5, .*; give another --out"):
        refuse_others(cells, "remove it and its run folder")
