"""A task of one's own for tests: its file, its problems, its folder."""

from pathlib import Path

TASK = """
include: {base}
task: lco_mine
custom_dataset: !function mine.load
doc_to_text: "{{{{problem}}}}"
{more}
"""

MINE = """
import datasets

def load(**_):
    rows = [{"id": str(i), "problem": f"Ann has {i} pens .", "answer": str(i), **MORE} for i in range(3)]
    return {"test": datasets.Dataset.from_list(rows)}
"""


def own_task(folder, more="", columns=None):
    """A task beside the suite's own, on problems of no set that the suite knows."""
    (folder / "lco_mine.yaml").write_text(TASK.format(base=Path("evals/_base.yaml").resolve(), more=more))
    (folder / "mine.py").write_text(f"MORE = {columns or {}!r}\n{MINE}")
    return str(folder)
