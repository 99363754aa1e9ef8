"""Methods by benchmarks: any number of tasks in a record, every number from counts, nothing unlike in a column."""

import pytest

from lco.errors import UserError
from lco.evidence import records
from lco.evidence.report import build
from tests.evidence.made import evaluation, record


def with_tasks(folder, method, seed, right, tasks=("lco_gsm8k", "lco_aime24")):
    run = record(method, seed, right)
    run["evaluations"] = []
    for task in tasks:
        for temperature, correct, samples in ((1.0, [right] * 6 + [0] * 4, 8), (0.0, [1] * 8 + [0] * 2, 1)):
            run["evaluations"].append({**evaluation(temperature, correct, samples), "task": task})
    records.write(folder / f"{method}-{seed}.json", run)
    return run


def test_every_method_has_a_row_and_every_task_its_columns(tmp_path):
    with_tasks(tmp_path, "start", None, 2)
    for seed in (0, 1):
        with_tasks(tmp_path, "grpo", seed, 4 + 2 * seed)
        with_tasks(tmp_path, "lco_mse", seed, 6)
    (table,) = build(tmp_path, tmp_path / "report")
    assert table.header[1:5] == ("aime24 greedy", "aime24 avg@8", "gsm8k greedy", "gsm8k avg@8")
    assert [row[0] for row in table.rows] == ["start model", "LCO-MSE", "GRPO"]
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["GRPO"]["gsm8k avg@8"].startswith("37.5 [")  # the mean of 4/8 and 6/8 on six of ten problems
    assert rows["GRPO"]["gsm8k greedy"].startswith("80.0 [")
    assert rows["LCO-MSE"]["mean of 2"] == "45.0"
    assert (rows["GRPO"]["seeds"], rows["start model"]["seeds"]) == ("2", "")
    assert "37.5" in (tmp_path / "report" / "table.md").read_text()
    assert not (tmp_path / "report" / "index.html").exists()


def test_what_was_not_run_is_no_zero_and_half_a_row_is_refused(tmp_path):
    with_tasks(tmp_path, "start", None, 2)
    with_tasks(tmp_path, "grpo", 0, 4)
    with_tasks(tmp_path, "ppo", 0, 4, tasks=("lco_gsm8k",))
    (table,) = build(tmp_path, tmp_path / "report")
    row = next(row for row in table.rows if row[0] == "PPO")
    assert (row[1], row[2], row[5]) == ("not run", "not run", "not run")
    with_tasks(tmp_path, "ppo", 1, 4)
    with pytest.raises(UserError, match=r"ppo seed 0 has no evaluation aime24 greedy, which .* ppo seed 1 has"):
        build(tmp_path, tmp_path / "report")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.update(ids_sha256="other"), "problems of gsm8k avg@8 is x and other"),
        (lambda e: e.update(limit=10), "limit of gsm8k avg@8 is None and 10"),
        (lambda e: e["sampling"].update(max_new_tokens=64), "length limit of gsm8k avg@8 is 32 and 64"),
    ],
)
def test_unlike_results_never_share_a_column(tmp_path, change, words):
    with_tasks(tmp_path, "grpo", 0, 4)
    run = with_tasks(tmp_path, "ppo", 0, 4)
    change(run["evaluations"][0])
    records.write(tmp_path / "ppo-0.json", run)
    with pytest.raises(UserError, match=words):
        build(tmp_path, tmp_path / "report")
