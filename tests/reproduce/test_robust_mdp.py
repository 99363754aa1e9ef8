"""DR-RPO's study: its cells, what a cell measures, and its report from records alone."""

import json
import re

import numpy as np
import pytest

from lco.errors import UserError
from lco.robust.environments import ENVIRONMENTS, environment_named
from lco.robust.report import best_bonus, build, spread
from lco.robust.trial import growth, measure
from reproduce import robust_mdp
from reproduce.common.study import refuse_others

GOAL = {"beta": 0.1, "form": "tv", "size": 0.5}


@pytest.fixture(scope="module")
def measured():
    return measure("linear-0.3", GOAL, 1.0, 0.5, episodes=24, seeds=2)


def test_what_a_cell_measures_fits_together(measured):
    regret = np.array(measured["regret"])
    assert regret.shape == (2, len(measured["episode"])) == (2, 24)
    assert (np.diff(regret, axis=1) >= -1e-9).all()  # no plan is better than the optimum
    assert np.allclose(regret[:, -1] / 24, measured["average_suboptimality"])
    assert (np.array(measured["bonus_size"])[:, -1] < np.array(measured["bonus_size"])[:, 0]).all()
    assert (np.array(measured["kl_reference"]) >= 0).all()
    returns, exact = np.array(measured["returns"]), measured["exact"]["returns"]
    assert returns.shape == (2, len(measured["level"]))
    assert (
        returns[:, 0] <= exact["nominal"][0] + 1e-9
    ).all()  # nobody earns more in the world that a plan is the best for


def test_a_cell_is_the_same_again_and_of_its_seeds_alone(measured):
    again = measure("linear-0.3", GOAL, 1.0, 0.5, episodes=24, seeds=1)
    assert np.allclose(again["regret"][0], measured["regret"][0])


def test_the_exponent_of_a_power_law_is_found_and_none_where_nothing_was_lost():
    episodes = np.arange(1, 401)
    for power in (0.5, 1.0):
        assert growth(3 * episodes**power) == pytest.approx(power, abs=1e-9)
    assert growth(np.zeros(100)) is None


def test_every_learner_gets_the_same_tries_and_no_two_cells_share_a_file(tmp_path):
    cells = robust_mdp.plan_cells(robust_mdp.Home(tmp_path / "records", tmp_path))
    assert len({cell.record for cell in cells}) == len({cell.folder for cell in cells}) == len(cells)
    tries = {}
    for cell in cells:
        if cell.defined["part"] == "bonus":
            key = cell.defined["environment"], cell.defined["learner"]
            tries.setdefault(key, []).append((cell.defined["bonus"], cell.defined["episodes"], cell.defined["seeds"]))
    assert len(tries) == 20
    for (environment, _), found in tries.items():
        assert found == tries[environment, "lsvi_ucb"]
        assert {seeds for *_, seeds in found} == {10}


def record(learner, bonus, measured, **changes):
    facts = {
        "part": "bonus",
        "environment": "linear-0.3",
        "learner": learner,
        "bonus": bonus,
        "goal": GOAL,
        "radius": 0.5,
    }
    return {**facts, "episodes": 24, "seeds": 2, **measured, **changes}


def test_the_report_has_every_try_the_best_of_them_and_says_what_is_reconstructed(tmp_path, measured):
    worse = [2 * value for value in measured["average_suboptimality"]]
    records = [
        record("lsvi_ucb", 1.0, measured),
        record("dr_rpo", 0.1, measured, average_suboptimality=worse),
        record("dr_rpo", 1.0, measured),
        record("dr_rpo", 1.0, measured, part="beta"),
        record("dr_rpo", 1.0, measured, part="radius"),
    ]
    assert best_bonus(records[:3], "linear-0.3")["dr_rpo"] is records[2]
    text = build(records, tmp_path)
    assert f"| DR-RPO † (best) | 1 | {spread(measured['average_suboptimality'])} |" in text
    assert f"| DR-RPO † | 0.1 | {spread(worse)} |" in text
    assert "† A reconstruction" in text
    assert "| exact, robust |" in text
    for name in ("regret.png", "returns.png", "report.md"):
        assert (tmp_path / name).stat().st_size > 500


def test_the_committed_report_is_of_the_committed_records_and_the_readme_has_no_other_numbers(tmp_path):
    """Whoever changes a record, the report or a number of the words is told."""
    records = robust_mdp.read_records(robust_mdp.RECORDS)
    assert len(records) == len(robust_mdp.plan_cells(robust_mdp.Home(robust_mdp.RECORDS, tmp_path))) == 66
    build(records, tmp_path)
    report = (robust_mdp.RECORDS / "report" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report
    words = (robust_mdp.RECORDS / "README.md").read_text(encoding="utf-8")
    number = r"\d+\.\d+(?: ± \d+\.\d+)?"
    assert (
        set(re.findall(number, words)) - set(re.findall(number, report)) - set(re.findall(r"\d+\.\d+", report)) == set()
    )
    table = [
        line.split("|")[1:-1]
        for line in words.splitlines()
        if line.startswith(("| simulated", "| American", "| random"))
    ]
    known = {environment_named(name).title: name for name in ENVIRONMENTS}
    assert len(table) == len(known)
    for title, *cells in table:
        best = best_bonus([r for r in records if r["part"] == "bonus"], known[title.strip()])
        assert [cell.strip() for cell in cells] == [spread(r["average_robust_suboptimality"]) for r in best.values()]


def test_a_record_of_other_knobs_is_refused_by_name(tmp_path):
    home = robust_mdp.Home(tmp_path / "records", tmp_path)
    cell = robust_mdp.plan_cells(home, smoke=True)[0]
    robust_mdp.write_record(cell.record, dict(cell.defined))
    assert json.loads(cell.record.read_text()) == cell.defined
    refuse_others([cell], "")
    robust_mdp.write_record(cell.record, {**cell.defined, "goal": {**cell.defined["goal"], "beta": 0.7}})
    with pytest.raises(UserError, match=r"was made with goal .*0\.7.*; remove it"):
        refuse_others([cell], "remove it")
