"""The sensitivity tables: on runs whose outcome is known, and settings that the methods accept."""

import pytest

from lco.disk import write_json
from lco.errors import UserError
from lco.methods import METHODS
from reproduce.common.study import refuse_others
from reproduce.miniature import sensitivity
from reproduce.miniature.sensitivity_report import beta_table, support_table


def run(name, method, seed, end, hyper):
    curves = {"validation": {"step": [0, 16], "pass@1": [0.3, end]}, "entropy": [0.5, 0.1]}
    return {"name": name, "method": method, "seed": seed, "hyper": hyper, "curves": curves}


def test_every_setting_differs_and_is_one_that_the_method_takes(tmp_path):
    seen = set()
    for part, names in sensitivity.PARTS.items():
        for name, (method, changes) in names.items():
            found = sensitivity.experiment(part, name, 0, tmp_path / name)
            hyper = METHODS[method].bind(found.hyper).hyper
            assert {key: hyper[key] for key in changes} == changes
            seen.add((part, method, tuple(sorted(found.hyper.items()))))
    assert len(seen) == 3 + 3 * 5 * 2


def test_tables_have_a_cell_for_what_there_is():
    name = "lco_mse-beta0.5-negative100"
    text = beta_table(sensitivity.PARTS["beta"], {name: [run(name, "lco_mse", s, 0.8 + s / 10, {}) for s in (0, 1)]})
    assert "| LCO-MSE | 100 | 85 ± 7 [80, 90] |  |  |  |  |" in text
    assert "| LCO-KLD | 1 |  |  |  |  |  |" in text
    support = support_table(
        sensitivity.PARTS["support"], {"lco_kld-full": [run("lco_kld-full", "lco_kld", 0, 0.7, {})]}
    )
    assert "| all of π_old (`support=full`) | 70 | 0.100 |" in support
    assert "top_filled" not in support


def test_a_record_of_another_beta_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "RECORDS", tmp_path)
    name = "lco_kld-beta1-negative1"
    cells = sensitivity.plan_cells(["beta"], [0], tmp_path / "runs")
    (cell,) = (cell for cell in cells if cell.defined["name"] == name)
    write_json(cell.record, cell.defined)
    refuse_others(cells, "remove it")
    write_json(cell.record, {**cell.defined, "hyper": {"beta": 3.0, "beta_negative_scale": 1.0}})
    with pytest.raises(UserError, match=r"was made with hyper .*3\.0"):
        refuse_others(cells, "remove it")
