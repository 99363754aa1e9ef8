"""The published problem sets themselves, from the folder that LCO_DATA_DIR names (they are no part of the project)."""

import os
from pathlib import Path

import pytest

from lco.problems.sets import SETS, load_problems

pytestmark = pytest.mark.long

COUNTS = {
    ("gsm8k", "train"): 7473, ("gsm8k", "test"): 1319, ("math", "train"): 7472, ("math500", "test"): 500,
    ("aime24", "test"): 30, ("aime25", "test"): 30, ("aime_1983_2023", "train"): 969, ("amc23", "test"): 40,
    ("minerva_math", "test"): 272, ("olympiadbench", "test"): 675, ("gaokao2023en", "test"): 383,
}  # fmt: skip


@pytest.fixture
def data_dir():
    folder = os.environ.get("LCO_DATA_DIR", "")
    if not Path(folder, "gsm8k_test.jsonl").is_file():
        pytest.fail(
            "set LCO_DATA_DIR to the folder that holds gsm8k_test.jsonl, math500.jsonl and the other data files"
        )
    return folder


@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_every_published_set_loads_whole(data_dir, name, split):
    problems = load_problems(name, split, data_dir)
    assert len(problems) == COUNTS[name, split]
    assert len({p.id for p in problems}) == len(problems)


def test_the_hub_row_of_a_gsm8k_problem_becomes_the_local_one(data_dir):
    """Folder and hub are the same set: same ids, same answers, and solutions that end with the answer line."""
    local = load_problems("gsm8k", "train", data_dir)
    for i in (0, 1, 100, len(local) - 1):
        row = {"question": local[i].problem, "answer": local[i].solution}
        converted = SETS["gsm8k"].hub["train"].convert(row, i)
        assert (converted.id, converted.answer) == (local[i].id, local[i].answer)
        assert converted.solution == local[i].solution
        assert "#### " in converted.solution


def test_every_task_finds_its_problems_in_the_folder(data_dir):
    from lco.evaluation.tasks import load_tasks, tasks_folder

    names = sorted(file.stem for file in tasks_folder().glob("lco_*.yaml"))
    without = {"lco_math"}  # the folder has no math_test.jsonl
    ready = load_tasks([n for n in names if n not in without], data_dir)
    assert {len(task.test_docs()) for task in ready.tasks.values()} >= {1319, 500, 30, 384}
