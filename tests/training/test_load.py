"""What a run leaves out before it begins: prompts and solutions that are too long, of training and validation problems."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from lco.errors import UserError
from lco.problems import Problem
from lco.problems.local import read_problems
from lco.rollout.records import Row
from tests.conftest import START, lines, small, train


def pens(file, lengths, solution="12"):
    """A file of problems, the i-th one with as many words as lengths[i]."""
    rows = [
        {"id": str(i), "problem": " ".join(["pens"] * length), "answer": "12", "solution": solution}
        for i, length in enumerate(lengths)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_prompts_that_are_too_long_are_dropped_and_counted(tmp_path, capsys):
    problems = pens(tmp_path / "mine.jsonl", (3, 40, 4))
    folder = train(small(tmp_path / "run", problems=problems, steps=2, limit=0, eval_every=0, extraction="lenient"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["problems_used"], manifest["problems_dropped"], manifest["validation_dropped"]) == (2, 1, 0)
    assert "1 of 3 prompts are longer than 32 tokens: dropped" in capsys.readouterr().err
    assert {line["problem"] for line in lines(folder, "samples.jsonl")} == {"0", "2"}


def test_validation_alone_can_have_prompts_that_are_too_long(tmp_path, monkeypatch, capsys):
    from lco.training import load

    def problems(name, split, *more):
        file = tmp_path / f"{split}.jsonl"
        return read_problems(Path(pens(file, {"train": (3, 4), "validation": validation}[split])))

    monkeypatch.setattr(load, "load_problems", problems)
    validation = (40, 5, 6)
    manifest = json.loads((train(small(tmp_path / "run", steps=1)) / "manifest.json").read_text())
    assert (manifest["problems_dropped"], manifest["validation_dropped"]) == (0, 1)
    assert "1 of 3 validation prompts are longer than 32 tokens: dropped" in capsys.readouterr().err
    validation = (40, 50)
    with pytest.raises(UserError, match="every validation prompt is longer than max_prompt_tokens = 32; raise it"):
        train(small(tmp_path / "other", steps=1))


def test_a_solution_that_the_model_cannot_read_with_its_prompt_is_dropped_and_counted(tmp_path, capsys):
    """The start models read 64 tokens; prompt and solution fit apart, not together."""
    file = tmp_path / "mine.jsonl"
    rows = [
        {"id": str(i), "problem": "pens " * 3, "answer": "12", "solution": "pens " * n}
        for i, n in enumerate((2, 60, 3))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    run = small(tmp_path / "run", method="sft", problems=str(file), steps=1, limit=0, eval_every=0)
    manifest = json.loads((train(run) / "manifest.json").read_text())
    assert (manifest["problems_used"], manifest["problems_dropped"]) == (2, 1)
    assert "1 of 3 prompts with their solutions are longer than 64 tokens: dropped" in capsys.readouterr().err
    file.write_text(json.dumps(rows[1]))
    with pytest.raises(UserError, match="longer than the 64 tokens that the model reads"):
        train(dataclasses.replace(run, out=str(tmp_path / "other")))


def test_a_thought_that_the_prompt_opens_is_part_of_what_is_judged(tmp_path):
    """As R1's distillations do: the box of an unfinished thought is no answer, behind </think> it is one."""
    from lco.training.load import load
    from lco.training.resolve import resolve
    from lco.verifier import Pool

    model = tmp_path / "thinking"
    shutil.copytree(START / "llama", model)
    (model / "chat_template.jinja").write_text(
        "<bos>{{ messages[-1].content }}{% if add_generation_prompt %}<think>{{ '\\n' }}{% endif %}"
    )
    problem = Problem(id="a", problem="What is 40 + 1?", answer="41")
    texts = ["It might be \\boxed{41}. But wait, I should check", "so 41.</think> It is \\boxed{41}."]
    for place, right in ((model, [False, True]), (START / "llama", [True, True])):
        run = small(tmp_path / "run", model=str(place), extraction="lenient", eval_every=0)
        with Pool(workers=1) as pool:
            collector = load(resolve(run), 1, pool).collector
            collector.decode = lambda ids: texts[ids[0]]
            rows = [Row("a", (1,), (i,), "stop", ()) for i in range(2)]
            found = collector.verify_rows(rows, [problem, problem])
        assert [row.verdict.correct for row in found] == right
        assert [row.text for row in found] == texts
