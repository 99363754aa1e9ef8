"""What the committed presets rest on: four tries each, equal for all, whatever else was tried later."""

import json

import pytest

from reproduce import search, setting

WITH_PRESETS = sorted(setting.presets())


@pytest.mark.parametrize("method", WITH_PRESETS)
def test_the_committed_presets_are_the_best_of_the_committed_tries(method):
    committed = json.loads(setting.PRESETS.read_text())[method]
    assert search.chosen([method])[method] == committed
    assert len(committed["tried"]) == 4
    assert committed["validation_pass@1"] == max(t["validation_pass@1"] for t in committed["tried"])


def test_the_wider_presets_are_the_best_of_all_committed_tries():
    committed = json.loads(setting.WIDER_PRESETS.read_text())
    assert search.chosen(setting.WIDER, wider=True) == committed
    assert {method: len(c["tried"]) for method, c in committed.items()} == {
        method: len(search.tries(method)) for method in setting.WIDER
    }


def test_wider_tries_change_no_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "RECORDS", tmp_path)
    tries = search.tries("grpo")
    assert len(tries) > 4
    for number, knobs in enumerate(tries):
        record = {"knobs": knobs, "end": {"pass@1": number / 10}}
        search.record_file("grpo", number).write_text(json.dumps(record))
    assert search.chosen(["grpo"])["grpo"]["knobs"] == tries[3]
    row = next(line for line in search.wider_table().split("\n") if line.startswith("| grpo"))
    assert row == f"| grpo | 30.0% | {search.named(tries[3])} | 50.0% | {search.named(tries[5])} | 6 |"


def test_wider_tries_are_new_and_keep_to_the_common_setting():
    for method, further in setting.WIDER.items():
        four = setting.TRIES[method]
        assert all(knobs not in four for knobs in further)
        assert {key for knobs in further for key in knobs} == {key for knobs in four for key in knobs}
