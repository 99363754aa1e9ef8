"""What the stability study takes over of an earlier call."""

import json

import pytest

from lco.disk import write_json
from lco.errors import UserError
from reproduce.common.study import refuse_others
from reproduce.miniature import stability

NAME = stability.grid_name("lco_mse", 5e-4, 8, 0)


@pytest.mark.parametrize("part", ["frozen", "grid", "small_beta"])
def test_the_committed_records_are_what_this_call_would_make(tmp_path, part):
    cells = stability.plan_cells([part], tmp_path)
    assert cells
    assert all(cell.record.exists() for cell in cells)
    refuse_others(cells, "")


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
    write_json(stability.file_of(part, name), record)
    cells = stability.plan_cells([part], tmp_path / "runs")
    refuse_others(cells, "remove it")
    write_json(stability.file_of(part, name), {**record, **change})
    with pytest.raises(UserError, match=f"{name}.json was made with {next(iter(change))} .*; remove it"):
        refuse_others(cells, "remove it")
