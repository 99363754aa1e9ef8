"""What is compared of an earlier call's records and folders, and what is not."""

import dataclasses
import json

import pytest

from lco.config import dump
from lco.errors import UserError
from reproduce.common import reuse
from reproduce.miniature import budget

RUN = budget.experiment("qwen", "grpo", 0, {"lr": 1e-3}, "somewhere")


def refused(found, run=RUN):
    try:
        reuse.refuse_another("here", found, reuse.settings(run), "remove it")
    except UserError as error:
        return str(error)
    return ""


def test_a_setting_that_differs_is_named_with_both_values_and_the_remedy():
    found = reuse.settings(dataclasses.replace(RUN, lr=2e-3))
    assert refused(found) == "here was made with lr 0.002, and this call asks for 0.001; remove it"
    assert "hyper {'clip': 0.1}" in refused(reuse.settings(dataclasses.replace(RUN, hyper={"clip": 0.1})))


def test_what_only_one_side_names_is_not_compared():
    found = reuse.settings(RUN)
    del found["critic"]
    assert refused({**found, "a_setting_of_later_days": 1}) == ""


def test_a_run_folder_says_what_it_is_made_from_wherever_it_lies(tmp_path):
    moved = dataclasses.replace(RUN, model="/elsewhere/qwen", out="/elsewhere/run", lr=1 / 3000, save_every=2)
    (tmp_path / "config.json").write_text(dump(moved))
    assert refused(reuse.said_by_folder(tmp_path), dataclasses.replace(RUN, lr=1 / 3000)) == ""
    assert reuse.WEIGHTS not in reuse.said_by_folder(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"model": {"sha256": "abc"}}))
    assert reuse.said_by_folder(tmp_path)[reuse.WEIGHTS] == "abc"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json.*remove the file"):
        reuse.said_by_record(tmp_path / "record.json")
