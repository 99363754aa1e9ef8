"""What the stability script takes over of an earlier call."""

import json

import pytest

from lco.errors import UserError
from reproduce import stability

NAME = stability.grid_name("lco_mse", 5e-4, 8, 0)


@pytest.mark.parametrize("part", ["frozen", "grid", "small_beta"])
def test_the_committed_records_are_what_this_call_would_make(tmp_path, part):
    assert stability.tasks(part, tmp_path) == []  # every record is there
    stability.refuse_others(part, tmp_path)


@pytest.mark.parametrize(
    ("part", "name", "change"),
    [
        ("frozen", "grpo", {"lr": 0.5}),
        ("grid", NAME, {"lr": 0.5}),
        ("grid", NAME, {"updates_per_rollout": 4}),
        ("small_beta", NAME, {"hyper": {"beta": 0.2}}),
    ],
)
def test_a_record_of_other_knobs_is_refused_by_name(tmp_path, monkeypatch, part, name, change):
    record = json.loads(stability.file_of(part, name).read_text())
    monkeypatch.setattr(stability, "RECORDS", tmp_path)
    stability.file_of(part, name).write_text(json.dumps(record))
    stability.refuse_others(part, tmp_path)
    stability.file_of(part, name).write_text(json.dumps({**record, **change}))
    with pytest.raises(UserError, match=f"{name}.json was made with {next(iter(change))} .*; remove it"):
        stability.refuse_others(part, tmp_path)
