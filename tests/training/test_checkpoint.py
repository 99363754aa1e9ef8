"""Checkpoints: complete or absent, bound to their run, their step and their files."""

import json
import shutil

import pytest

from lco.training.checkpoint import (
    begin_checkpoint,
    damage,
    finish_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    validation_scores,
)

RUN = "this-run"


def save(run, step, text="", run_id=RUN):
    (begin_checkpoint(run, step) / "state.txt").write_text(text or str(step))
    return finish_checkpoint(run, step, run_id)


def rewrite(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


DAMAGES = {
    "a cut file": (lambda folder: (folder / "state.txt").write_text("tw"), "holds another state.txt"),
    "a missing file": (lambda folder: (folder / "state.txt").unlink(), "lacks state.txt"),
    "a foreign file": (lambda folder: (folder / "more.txt").write_text(""), "holds more.txt, which it was not saved with"),
    "another step": (lambda folder: rewrite(folder / "complete.json", step=7), "says that it is of step 7"),
    "another run's": (lambda folder: rewrite(folder / "complete.json", run="other"), "belongs to another run"),
    "no record": (lambda folder: (folder / "complete.json").unlink(), "has no readable complete.json"),
    "a cut record": (lambda folder: (folder / "complete.json").write_text('{"step": 2,'), "has no readable complete.json"),
    "a step that is text": (lambda folder: rewrite(folder / "complete.json", step="2"), "has no readable complete.json"),
    "files that are a list": (lambda folder: rewrite(folder / "complete.json", files=[]), "has no readable complete.json"),
    "no lines": (lambda folder: rewrite(folder / "complete.json", lines={}), "has no readable complete.json"),
    "lines that are none": (lambda folder: rewrite(folder / "complete.json", lines=None), "has no readable complete.json"),
    "half of the lines": (
        lambda folder: rewrite(folder / "complete.json", lines={"metrics.jsonl": {"bytes": 1, "sha256": "a"}}),
        "has no readable complete.json",
    ),
    "lines without a length": (
        lambda folder: rewrite(folder / "complete.json", lines={"metrics.jsonl": {}, "samples.jsonl": {}}),
        "has no readable complete.json",
    ),
    "a record of nothing": (lambda folder: (folder / "complete.json").write_text("[]"), "has no readable complete.json"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, kind):
    change, words = DAMAGES[kind]
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    said = []
    assert newest_checkpoint(tmp_path, RUN, said.append) == (2, newest)
    assert not said
    change(newest)
    step, folder = newest_checkpoint(tmp_path, RUN, said.append)
    assert (step, (folder / "state.txt").read_text()) == (1, "1")
    assert words in said[0]
    assert "step-000002" in said[0]


def test_a_checkpoint_without_what_its_engine_needs_is_passed_over(tmp_path):
    folder = save(tmp_path, 1)
    assert damage(folder, RUN, ["state.txt"]) is None
    assert damage(folder, RUN, ["state.txt", "engine.json"]) == "lacks engine.json"
    assert newest_checkpoint(tmp_path, RUN, lambda _: None, ["critic/engine.json"]) is None


def test_a_whole_checkpoint_of_another_run_is_passed_over(tmp_path):
    save(tmp_path / "mine", 1)
    other = save(tmp_path / "other", 3, run_id="another")
    shutil.copytree(other, tmp_path / "mine" / "checkpoints" / "step-000003")
    assert damage(tmp_path / "mine" / "checkpoints" / "step-000003", "another") is None
    assert newest_checkpoint(tmp_path / "mine", RUN, lambda _: None)[0] == 1


def test_a_run_of_a_version_that_named_no_run_still_has_its_checkpoints(tmp_path):
    folder = save(tmp_path, 1)
    record = json.loads((folder / "complete.json").read_text())
    (folder / "complete.json").write_text(json.dumps({key: record[key] for key in ("step", "files")}))
    assert newest_checkpoint(tmp_path, None, pytest.fail) == (1, folder)


def names(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))


def test_the_newest_two_that_are_known_to_be_whole_are_kept(tmp_path):
    whole = set()
    for step in range(1, 5):
        save(tmp_path, step)
        whole.add(step)
        prune_checkpoints(tmp_path, whole, step, keep=2, scores={})
    (tmp_path / "checkpoints" / ".step-000009.partial").mkdir()
    assert names(tmp_path) == ["step-000003", "step-000004"]


def test_the_best_validated_one_stays_beside_the_newest_and_goes_when_a_better_one_is_there(tmp_path):
    scores, whole, left = {2: 0.3, 3: 0.3, 4: 0.1, 6: 0.4, 9: 0.9}, set(), {}
    for step in range(1, 8):
        save(tmp_path, step)
        whole.add(step)
        prune_checkpoints(tmp_path, whole, step, keep=1, scores=scores)
        left[step] = [int(name.removeprefix("step-")) for name in names(tmp_path)]
    assert left == {1: [1], 2: [2], 3: [2, 3], 4: [2, 4], 5: [2, 5], 6: [6], 7: [6, 7]}


def test_scores_are_read_from_the_runs_lines(tmp_path):
    assert validation_scores(tmp_path) == {}
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 0, "validation": {"pass@1": 0.25, "greedy": 0.5}}\n{"step": 1}\n'
        '{"step": 2, "validation": {"pass@1": 0.5, "greedy": 0.5}}\n'
    )
    assert validation_scores(tmp_path) == {0: 0.25, 2: 0.5}


def test_damaged_ones_are_never_counted_as_kept_and_the_one_just_written_stays(tmp_path):
    """Of four checkpoints the two newest are damaged; a resume goes on from the second and writes the third anew."""
    for step in range(1, 5):
        save(tmp_path, step)
    for step in (3, 4):
        (tmp_path / "checkpoints" / f"step-{step:06d}" / "state.txt").write_text("")
    start, _ = newest_checkpoint(tmp_path, RUN, lambda _: None)
    assert start == 2
    save(tmp_path, 3)
    prune_checkpoints(tmp_path, {start, 3}, 3, keep=2, scores={})
    assert names(tmp_path) == ["step-000002", "step-000003", "step-000004"]
    assert newest_checkpoint(tmp_path, RUN, lambda _: None)[0] == 3
