"""Task files that cannot be read are named, and none is called missing that is there."""

from pathlib import Path

import pytest

from lco.errors import UserError
from lco.evaluation.tasks import load_tasks
from tests.evals.own_task import TASK, own_task


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda f: f["task"].write_text("task: lco_mine\ndataset_kwargs: {set: mine\noutput_type: x\n"),
         r"lco_mine\.yaml, line 3: not YAML \(expected ',' or '}', but got ':'\)"),
        (lambda f: f["base"].write_text("a: b: c\n"),
         r"base\.yaml, line 1: not YAML \(mapping values are not allowed here\)"),
        (lambda f: f["task"].write_bytes(b"task: lco_mine\ntext: '\xe9'\n"),
         r"lco_mine\.yaml: not YAML \(.*invalid continuation byte"),
        (lambda f: f["task"].write_text("- lco_mine\n"), r"lco_mine\.yaml: expected one YAML object"),
        (lambda f: f["base"].unlink(), r"base\.yaml: No such file or directory; .*lco_mine\.yaml includes it"),
        (lambda f: f["base"].write_text("include: lco_mine.yaml\n"), r"base\.yaml includes itself, by base\.yaml and lco_mine"),
        (lambda f: f["task"].rename(f["task"].with_suffix(".yml")), r"end in \.yaml, and 'lco_mine' stands in .*lco_mine\.yml"),
        (lambda f: f["code"].write_text("def load(\n"), r"lco_mine cannot be loaded: SyntaxError: .*mine\.py, line 1"),
        (lambda f: f["code"].write_text("pass\n"), r"lco_mine cannot be loaded: AttributeError: .* has no function 'load'"),
        (lambda f: f["code"].write_text("def load(**_):\n    return [][0]\n"),
         r"lco_mine cannot be loaded: IndexError: list index out of range \(mine\.py, line 2\); mend the files in"),
    ],
    ids=["syntax", "syntax of what is included", "bytes", "list", "absent", "circle", "ending", "code", "function", "raises"],
)  # fmt: skip
def test_a_task_file_that_cannot_be_read_is_named_and_is_not_called_a_missing_task(tmp_path, edit, words):
    own_task(tmp_path)
    names = {"task": "lco_mine.yaml", "base": "base.yaml", "code": "mine.py"}
    files = {name: tmp_path / file for name, file in names.items()}
    files["base"].write_text(f"include: {Path('evals/_base.yaml').resolve()}\n")
    files["task"].write_text(TASK.format(base="base.yaml", more=""))
    edit(files)
    with pytest.raises(UserError, match=words):
        load_tasks(["lco_mine"], "", str(tmp_path))


def test_a_broken_file_beside_it_does_not_stop_a_task(tmp_path):
    (tmp_path / "other.yaml").write_text("task: {\n")
    assert list(load_tasks(["lco_mine"], "", own_task(tmp_path)).tasks) == ["lco_mine"]
