"""docs/architecture.md: the plan of the house has every room, and no room that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLAN = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]


def names(folder):
    return {p.name for p in (ROOT / folder).iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}


def test_every_file_and_folder_of_the_library_and_of_its_training_is_on_the_plan():
    told = set(re.findall(r"[\w.]+", PLAN))
    assert (names("lco") | names("lco/training")) - {"__init__.py"} <= told


def test_every_file_on_the_plan_is_there():
    files = {p.name for folder in ("lco", "reproduce", "scripts", "evals") for p in (ROOT / folder).rglob("*.py")}
    assert set(re.findall(r"\w+\.py\b", PLAN)) - files == set()
