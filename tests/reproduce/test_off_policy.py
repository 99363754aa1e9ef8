"""The off-policy study: equal tries, an order that leaves smaller grids whole, and a report of runs whose outcome is known."""

import pytest

from lco.disk import write_json
from lco.errors import UserError
from lco.training.resolve import resolve
from reproduce.common.reuse import read_object
from reproduce.common.study import refuse_others
from reproduce.miniature import budget, off_policy
from reproduce.miniature.off_policy_report import build, by_cell, changes, cost_table, grid_table, preset_table

PRESETS = {"grpo": {"lr": 3.2e-4}, "lco_lch": {"lr": 8e-4, "hyper": {"beta": 0.7}}}


def run(method, staleness, updates, seed, path):
    curves = {"validation": {"step": [4 * i for i in range(len(path))], "pass@1": path}}
    place = {"staleness": staleness, "updates_per_rollout": updates}
    return {"method": method, **place, "seed": seed, "curves": curves}


@pytest.mark.parametrize("method", off_policy.METHODS)
def test_every_method_has_the_same_ladder_and_runs_in_every_cell(tmp_path, method):
    tries = off_policy.tries(method)
    assert [knobs["lr"] for knobs in tries] == list(off_policy.RATES)
    for place in off_policy.PLACES:
        found = resolve(off_policy.grid_cell(method, place, 0, tries[0], tmp_path).run).experiment
        assert (found.staleness, found.planned_updates) == (place.staleness, place.updates * found.steps)
    tried = resolve(off_policy.search_cell(method, 3, tmp_path).run).experiment
    assert (tried.staleness, tried.minibatches, tried.lr, tried.epochs) == (2, 4, 2e-3, 1)
    assert tried.seed == budget.TUNING_SEED not in off_policy.SEEDS


def test_corners_come_first_and_seeds_go_round_last(tmp_path):
    cells = off_policy.plan_grid(PRESETS, off_policy.PLACES, off_policy.SEEDS, tmp_path)
    assert len(cells) == 2 * 9 * 3 == len({cell.record for cell in cells})
    order = [(c.defined["staleness"], c.defined["updates_per_rollout"], c.defined["seed"]) for c in cells]
    corners = [(0, 1), (0, 16), (8, 1), (8, 16)]
    assert order[: 2 * 4 * 3] == [(*corner, seed) for seed in range(3) for corner in corners for _ in PRESETS]
    assert {place[:2] for place in order[24:]} == {(0, 4), (2, 1), (2, 4), (2, 16), (8, 4)}
    assert [seed for _, _, seed in order[24:]] == [seed for seed in range(3) for _ in range(10)]


def test_the_best_try_is_the_methods_and_one_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(off_policy, "RECORDS", tmp_path)
    monkeypatch.setattr(off_policy, "PRESETS", tmp_path / "presets.json")
    for number, (cell, reached) in enumerate(
        zip(off_policy.plan_search(["ppo"], tmp_path), (0.4, 0.8, 0.8, 0.1), strict=True)
    ):
        write_json(cell.record, {**cell.defined, "curves": {"validation": {"pass@1": [0.3, reached]}}})
        assert bool(off_policy.best_tries(["ppo", "grpo"])) == (number == 3)
    found = off_policy.best_tries(["ppo", "grpo"])
    assert found.keys() == {"ppo"}
    assert found["ppo"]["knobs"] == {"lr": 3.2e-4, "critic_lr": 1e-3}
    assert "| PPO | 40.0 | **80.0** | 80.0 | 10.0 |" in preset_table(found)
    write_json(off_policy.PRESETS, found)
    assert off_policy.read_presets(["ppo"]) == {"ppo": found["ppo"]["knobs"]}
    with pytest.raises(UserError, match="no learning rate was chosen yet for grpo; run the part `search` first"):
        off_policy.read_presets(["ppo", "grpo"])


@pytest.mark.parametrize(("key", "value"), [("staleness", 2), ("updates_per_rollout", 4), ("knobs", {"lr": 1e-3})])
def test_a_record_of_another_cell_or_of_other_knobs_is_refused(tmp_path, monkeypatch, key, value):
    monkeypatch.setattr(off_policy, "RECORDS", tmp_path)
    (cell,) = off_policy.plan_grid({"grpo": {"lr": 3.2e-4}}, [off_policy.Place(8, 16)], [1], tmp_path / "runs")
    assert cell.record.name == "grpo-stale8-u16-seed1.json"
    write_json(cell.record, cell.defined)
    refuse_others([cell], "remove it")
    write_json(cell.record, {**cell.defined, key: value})
    with pytest.raises(UserError, match=f"was made with {key} .*; remove it"):
        refuse_others([cell], "remove it")


def test_the_committed_records_are_what_this_call_would_make(tmp_path):
    """As far as the study has come: every preset is the best of four committed tries, every run is of its method's preset."""
    committed = read_object(off_policy.PRESETS) if off_policy.PRESETS.exists() else {}
    assert off_policy.best_tries(committed) == committed
    presets = {method: chosen["knobs"] for method, chosen in committed.items()}
    cells = off_policy.plan_grid(presets, off_policy.PLACES, off_policy.SEEDS, tmp_path)
    refuse_others([*off_policy.plan_search(off_policy.METHODS, tmp_path), *cells], "")
    found = {path.name for path in (off_policy.RECORDS / "grid").glob("*.json")}
    assert found <= {cell.record.name for cell in cells}


def test_the_report_shows_means_intervals_and_collapses(tmp_path):
    records = [
        *(run("grpo", 0, u, seed, [0.3, 0.9, 0.8 + seed / 10]) for u in (1, 16) for seed in (0, 1)),
        *(run("grpo", 8, 1, seed, [0.3, 0.6, 0.6]) for seed in (0, 1)),
        run("grpo", 8, 16, 0, [0.3, 0.7, 0.1]),
        run("grpo", 8, 16, 1, [0.3, 0.5, 0.0]),
        run("lco_lch", 0, 1, 0, [0.3, 0.8]),
    ]
    text = build(records, {}, tmp_path)
    assert "| method | 0 old, 1 update | 0 old, 16 updates | 8 old, 1 update | 8 old, 16 updates |" in text
    assert "| GRPO | 85 ± 7 [80, 90] | 85 ± 7 [80, 90] | 60 ± 0 [60, 60] |" in text
    assert "(2 collapsed) |" in text
    assert "| LCO-LCH | 80 |  |  |  |" in text
    assert "0 to 2 seeds a cell" in text
    assert "| GRPO | 59 | 5 (8 old, 16 updates) | 2 of 8 | -53 [-60, -45] | -28 [-30, -25] |" in text
    assert (tmp_path / "heat_map.png").stat().st_size > 1000
    assert build([], {}, tmp_path / "none").startswith("# Off-policy")


def test_a_change_is_paired_by_seed_and_needs_both_ends():
    cells = by_cell([run("grpo", s, 1, seed, [0.3, 0.5 + seed / 10 - s / 100]) for s in (0, 2, 8) for seed in (0, 1)])[
        "grpo"
    ]
    assert changes(cells, 0) == pytest.approx([-0.08, -0.08])
    assert changes(cells, 1) == []
    del cells[8, 1][0]
    assert changes(cells, 0) == pytest.approx([-0.08])
    one = {"grpo": {(0, 1): cells[0, 1]}}
    assert "| GRPO | 55 | 55 (0 old, 1 update) | 0 of 2 |  |  |" in cost_table(one)
    assert "| GRPO | 55 ± 7 [50, 60] |" in grid_table(one)
