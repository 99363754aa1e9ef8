"""Methods by benchmarks: any number of tasks in a record, every number from counts, nothing unlike in a column."""

import shutil
import subprocess

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
    table, behind, compared = build(tmp_path, tmp_path / "report")
    assert table.header[1:5] == ("aime24 greedy", "aime24 avg@8", "gsm8k greedy", "gsm8k avg@8")
    assert [row[0] for row in table.rows] == ["start model", "LCO-MSE", "GRPO"]
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["GRPO"]["gsm8k avg@8"].startswith("37.5 [")  # the mean of 4/8 and 6/8 on six of ten problems
    assert rows["GRPO"]["gsm8k greedy"].startswith("80.0 [")
    assert rows["LCO-MSE"]["mean of 2"] == "45.0"
    assert (rows["GRPO"]["seeds"], rows["start model"]["seeds"]) == ("2", "")
    assert "37.5" in (tmp_path / "report" / "table.md").read_text()
    assert (rows["GRPO"]["IQM"], rows["LCO-MSE"]["IQM"]) == ("37.5", "45.0")
    # Seed 1 has the two level, so that a quarter of all draws of two seeds holds no difference.
    assert (rows["GRPO"]["ranks"], rows["start model"]["ranks"]) == ("1–2", "")
    assert rows["GRPO"]["rollouts × rows, updates"] == "4 × 4, 8"
    lines = {(row[0], row[1]): dict(zip(behind.header, row, strict=True)) for row in behind.rows}
    assert len(lines) == 3 * 4
    assert lines["GRPO", "gsm8k avg@8"]["avg ± standard error"] == "37.5 ± 10.2"  # 0.625 on six of ten problems
    # 4 and 6 of 8 samples right: 1 − C(4, 4)/C(8, 4) = 0.9857 and 1, on six of ten problems.
    assert lines["GRPO", "gsm8k avg@8"]["pass@4"] == "59.6"
    assert lines["GRPO", "gsm8k greedy"]["pass@4"] == ""
    assert compared.rows[0][:2] == ("LCO-MSE − GRPO", "+7.5")
    assert compared.rows[0][5:] == ("2", "0.75", "1.000")
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<section>") == 3
    assert "<td>37.5 [" in page
    assert "<script" not in page


def test_what_was_not_run_is_no_zero_and_half_a_row_is_refused(tmp_path):
    with_tasks(tmp_path, "start", None, 2)
    with_tasks(tmp_path, "grpo", 0, 4)
    with_tasks(tmp_path, "ppo", 0, 4, tasks=("lco_gsm8k",))
    table, _ = build(tmp_path, tmp_path / "report")
    row = next(row for row in table.rows if row[0] == "PPO")
    assert (row[1], row[2], row[5]) == ("not run", "not run", "not run")
    with_tasks(tmp_path, "ppo", 1, 4)
    with pytest.raises(UserError, match=r"ppo seed 0 has no evaluation aime24 avg@8, which .* ppo seed 1 has"):
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


def with_right(folder, method, seed, right, **changes):
    """A run whose problem i is right in right[i] of 8 samples, on two tasks."""
    run = {**record(method, seed, 5), **changes}
    run["evaluations"] = [{**evaluation(1.0, list(right), 8), "task": task} for task in ("lco_gsm8k", "lco_aime24")]
    records.write(folder / f"{run['method']}-{seed}.json", run)


def bold_of(folder):
    table = build(folder, folder / "report")[0]
    return {(table.rows[row][0], table.header[column]) for row, column in table.bold}, table


def test_bold_is_what_a_paired_difference_supports_and_nothing_else(tmp_path):
    """Two methods a little apart on every problem are told apart, though their intervals overlap widely."""
    low, high = [0, 2, 4, 6, 0, 2, 4, 6, 1, 3], [1, 3, 5, 7, 1, 3, 5, 7, 2, 4]
    for seed in (0, 1):
        with_right(tmp_path, "grpo", seed, low)
        with_right(tmp_path, "lco_mse", seed, high)
    found, table = bold_of(tmp_path)
    assert found == {("LCO-MSE", "aime24 avg@8"), ("LCO-MSE", "gsm8k avg@8"), ("LCO-MSE", "mean of 2")}
    assert f"**{table.rows[0][1]}**" in (tmp_path / "report" / "table.md").read_text()
    assert rf"\textbf{{{table.rows[0][1]}}}" in (tmp_path / "report" / "table.tex").read_text()
    assert f"<b>{table.rows[0][1]}</b>" in (tmp_path / "report" / "index.html").read_text()
    with_right(tmp_path, "ppo", 0, high[::-1])
    with_right(tmp_path, "ppo", 1, high[::-1])  # as good, on other problems
    assert bold_of(tmp_path)[0] == set()


def test_one_seed_and_a_start_model_that_is_not_beaten_leave_no_bold(tmp_path):
    low, high = [0, 2, 4, 6, 0, 2, 4, 6, 1, 3], [1, 3, 5, 7, 1, 3, 5, 7, 2, 4]
    with_right(tmp_path, "grpo", 0, low)
    with_right(tmp_path, "lco_mse", 0, high)
    assert bold_of(tmp_path)[0] == set()
    for seed in (0, 1):
        with_right(tmp_path, "grpo", seed, low)
        with_right(tmp_path, "lco_mse", seed, high)
    with_right(tmp_path, "start", None, [8] * 10)
    assert bold_of(tmp_path)[0] == set()


def test_another_budget_stands_apart_last_and_wins_nothing(tmp_path):
    low, high = [0, 2, 4, 6, 0, 2, 4, 6, 1, 3], [1, 3, 5, 7, 1, 3, 5, 7, 2, 4]
    for seed in (0, 1):
        with_right(tmp_path, "grpo", seed, low)
        with_right(tmp_path, "rloo", seed, low)
        more = {"rollouts": 4, "rows": 16, "updates": 80, "response_tokens": 4000}
        with_right(tmp_path, "lco_mse", seed, high, budget=more)
    found, table = bold_of(tmp_path)
    assert [row[0] for row in table.rows] == ["GRPO", "RLOO", "LCO-MSE *"]
    assert table.rows[-1][-1] == "4 × 4, 80"
    assert table.rows[-1][table.header.index("ranks")] == ""
    assert found == set()
    assert "* stands last and is not compared: another budget than most (LCO-MSE)." in table.notes


def test_a_majority_of_fewer_samples_is_counted_from_the_groups_of_answers(tmp_path):
    """(3, −5) of 8: one sample is right in 3 of 8, and of all eight the wrong five win."""
    for method, seed in (("start", None), ("grpo", 0)):
        run = record(method, seed, 5)
        scored = evaluation(1.0, [3] * 10, 8)
        scored |= {"answer_groups": [[-5, 3]] * 10, "no_answer": [0] * 10, "majority": [0] * 10}
        run["evaluations"] = [{**scored, "task": task} for task in ("lco_gsm8k", "lco_aime24")]
        records.write(tmp_path / f"{method}.json", run)
    behind = build(tmp_path, tmp_path / "report")[1]
    line = dict(zip(behind.header, behind.rows[-1], strict=True))
    assert line["maj@8"] == "0.0"
    # Two samples: both right C(3, 2), or one of each, which share the vote.
    assert line["maj@2"] == f"{100 * (3 + 15 / 2) / 28:.1f}"


ENGINES = ("tectonic", "pdflatex", "xelatex", "lualatex")


@pytest.mark.long
def test_latex_takes_the_tables(tmp_path):
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None:
        pytest.skip(f"no TeX engine is installed (one of {', '.join(ENGINES)})")
    low, high = [0, 2, 4, 6, 0, 2, 4, 6, 1, 3], [1, 3, 5, 7, 1, 3, 5, 7, 2, 4]
    for seed in (0, 1):
        with_right(tmp_path, "grpo", seed, low)
        with_right(tmp_path, "lco_mse", seed, high, title="LCO [2pt] & 50 % ρ−π # \\input{x} _$^~")
    build(tmp_path, tmp_path / "report")
    tables = (tmp_path / "report" / "table.tex").read_text()
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,textcomp}\begin{document}\tiny"
    (tmp_path / "whole.tex").write_text(f"{head}\n{tables}\n\\end{{document}}\n", encoding="utf-8")
    flags = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run([engine, *flags, "whole.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "whole.pdf").stat().st_size > 1000
