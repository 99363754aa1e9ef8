"""The stability report: its verdicts on runs whose outcome is known, and what is asked of a frozen batch."""

import math

import pytest
import torch

from reproduce.miniature import budget
from reproduce.miniature.frozen_batch import cosine, inner_steps
from reproduce.miniature.stability import frozen_cell
from reproduce.miniature.stability_report import build, collapsed, verdict


def run(method, rate, updates, seed, path):
    curves = {"validation": {"step": [4 * i for i in range(len(path))], "pass@1": path}}
    return {"method": method, "lr": rate, "updates_per_rollout": updates, "seed": seed, "curves": curves}


def test_collapse_is_a_fall_below_half_of_the_best():
    assert not collapsed(run("grpo", 1e-3, 8, 0, [0.3, 0.9, 0.46]))
    assert collapsed(run("grpo", 1e-3, 8, 0, [0.3, 0.9, 0.44]))
    assert collapsed(run("grpo", 1e-3, 8, 0, [0.3, math.nan, 0.9]))


def test_the_verdict_names_collapse_and_standing_still():
    fine, broken = run("grpo", 1e-3, 8, 0, [0.3, 0.9, 0.9]), run("grpo", 1e-3, 8, 1, [0.3, 0.9, 0.1])
    assert verdict([fine, broken]) == "50 ± 57 [10, 90] (1 collapsed)"
    assert verdict([run("grpo", 1e-5, 8, 0, [0.3, 0.31, 0.32])]) == "32 (none learnt)"
    assert verdict([fine]) == "90"


def test_the_grid_has_a_cell_for_every_rate_and_number_of_updates(tmp_path):
    grid = [run(m, lr, u, 0, [0.3, 0.8]) for m in ("lco_kld", "grpo") for lr in (1e-4, 1e-3) for u in (1, 8)]
    text = build([], grid, [], tmp_path)
    assert "| LCO-KLD | 80 | 80 | 80 | 80 |" in text
    assert "8 updates, lr 0.001" in text
    assert (tmp_path / "grid.png").stat().st_size > 1000
    assert not (tmp_path / "small_beta.png").exists()


def test_the_grid_at_another_beta_stands_apart(tmp_path):
    grid = [run("lco_mse", 1e-3, u, 0, [0.3, 0.8]) for u in (1, 8)]
    other = [{**run("lco_mse", 1e-3, u, 0, [0.3, 0.9]), "hyper": {"beta": 0.1}} for u in (1, 8)]
    text = build([], grid, other, tmp_path)
    first, second = text.split("## The LCO losses at β = 0.1")
    assert "| LCO-MSE | 80 | 80 |" in first
    assert "| LCO-MSE | 90 | 90 |" in second
    assert (tmp_path / "small_beta.png").stat().st_size > 1000


@pytest.mark.parametrize("method", ["lco_kld", "grpo", "sft"])
def test_inner_steps_of_a_frozen_batch(tmp_path, monkeypatch, method):
    """The last step's gradient is taken before it, so the way that is left from there is the last step itself."""
    monkeypatch.setitem(budget.COMMON, "prompts_per_step", 4)
    found = inner_steps(frozen_cell(method, tmp_path).run, 3)
    assert len(found["gradient_norm"]) == len(found["cosine_to_the_end"]) == 3
    assert all(norm > 0 for norm in found["gradient_norm"])
    assert all(-1 <= c <= 1 for c in found["cosine_to_the_end"])
    assert found["cosine_to_the_end"][2] > 0  # AdamW's step never goes uphill here
    assert found["loss"][2] < found["loss"][0]


def test_cosines():
    x, y = torch.tensor([3.0, 0]), torch.tensor([3.0, 4])
    assert cosine(x, y) == pytest.approx(0.6)
    assert cosine(x, 0 * y) == 0
