"""Controls are matched in strength, tries and knobs to what they are controls of."""

import itertools
import json

import pytest
import torch

from lco.disk import write_json
from lco.errors import UserError
from lco.methods import METHODS
from reproduce.common import reuse
from reproduce.common.study import refuse_others
from reproduce.miniature import budget, controls, tune

LCO = ("lco_kld", "lco_mse", "lco_lch")


def test_penalty_and_region_have_as_many_tries_as_the_losses_and_the_same_betas():
    for method in LCO:
        assert controls.TRIES["lco_rkl"] == budget.TRIES[method]
        betas = [knobs["hyper"]["beta"] for knobs in budget.TRIES[method]]
        deltas = [knobs["hyper"]["delta"] for knobs in controls.TRIES["dppo"]]
        assert len(deltas) == len(betas)
        for (b, d), (other_b, other_d) in itertools.combinations(zip(betas, deltas, strict=True), 2):
            assert (b < other_b) == (d > other_d)  # a weaker pull, a wider region


@pytest.mark.parametrize("beta", [0.1, 0.7, 2.0])
def test_no_tilt_of_one_token_leaves_the_region_and_one_reaches_its_edge(beta):
    p = torch.linspace(1e-4, 1 - 1e-4, 20_001, dtype=torch.float64)
    found = []
    for advantage in (1.0, 0.5, -0.5, -1.0):
        tilted = p * torch.tensor(advantage / beta, dtype=torch.float64).exp()
        found.append(float((tilted / (tilted + 1 - p) - p).abs().max()))
    assert max(found) == pytest.approx(controls.region_of(beta), rel=1e-6)
    assert found[0] == pytest.approx(found[3], rel=1e-6)
    assert found[1] < found[0]


def searched(folder, best):
    """Records of all tries, of which the one of that number is the best."""
    for method, tries in controls.TRIES.items():
        for number, knobs in enumerate(tries):
            write_json(
                folder / "search" / f"{method}-{number}.json",
                {"knobs": knobs, "end": {"pass@1": 0.9 if number == best else 0.5}},
            )


def test_runs_have_the_best_tries_knobs_and_wait_for_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(controls, "RECORDS", tmp_path)
    with pytest.raises(UserError, match=r"not all tries of lco_rkl are recorded.*run the part `search` first"):
        controls.strength_cells(1, tmp_path / "runs")
    searched(tmp_path, 2)
    cells = controls.strength_cells(2, tmp_path / "runs")
    assert len(cells) == 2 * 2 * 2
    for cell in cells:
        knobs = controls.TRIES[cell.run.method][2]
        assert (cell.run.lr, cell.run.hyper) == (knobs["lr"], knobs["hyper"])
        assert METHODS[cell.run.method].bind(cell.run.hyper)  # knobs that the method takes
    assert len({cell.record for cell in cells}) == len({cell.folder for cell in cells}) == len(cells)


def test_random_rewards_are_the_only_thing_that_differs_from_the_miniatures_runs(tmp_path):
    presets = budget.read_presets()
    cells = controls.random_cells(1, tmp_path)
    assert {cell.run.method for cell in cells} == {"grpo", *LCO}
    for cell in cells:
        family = cell.run.model.rsplit("/", 1)[-1]
        plain = reuse.settings(budget.experiment(family, cell.run.method, 0, presets[cell.run.method], tmp_path))
        told = reuse.settings(cell.run)
        assert {key for key in told if told[key] != plain[key]} == {"reward"}
        assert cell.record.parts[-3:] == (family, f"{cell.run.method}-random", "seed-0.json")


def test_tries_of_other_knobs_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(controls, "RECORDS", tmp_path)
    searched(tmp_path, 0)
    refuse_others(controls.search_cells(tmp_path / "runs"), "")
    file = controls.record_file("dppo", 1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "knobs": {"lr": 0.5}}))
    with pytest.raises(UserError, match=r"dppo-1\.json was made with knobs {'lr': 0\.5}"):
        refuse_others(controls.search_cells(tmp_path / "runs"), "")


def test_tries_are_scored_on_the_validation_problems_and_seed_of_all_others(tmp_path):
    (mine, *_), (theirs, *_) = controls.search_cells(tmp_path), tune.plan_cells({"lco_mse": 1}, tmp_path)
    assert {key for key in mine.defined if mine.defined[key] != theirs.defined[key]} == {"method"}
