"""Problems from outside: tables, other columns, the hub's sets, what is wrong with a file, a share for validation."""

import json

import pytest

from lco import hub
from lco.cli import main
from lco.config import Experiment
from lco.errors import UserError
from lco.problems import load_problems
from lco.problems.sets import is_held_out
from lco.training.resolve import resolve
from tests.conftest import START, lines, small, train

ROWS = [{"question": "1 + 1?", "final": "0.50"}, {"question": '2, "three"?', "final": "1e400"}]
COLUMNS = {"problem": "question", "answer": "final"}


def written(tmp_path, ending):
    import datasets

    file = tmp_path / f"mine{ending}"
    data = datasets.Dataset.from_list(ROWS)
    if ending == ".csv":
        file.write_text('question,final\n1 + 1?,0.50\n"2, ""three""?",1e400\n')
    elif ending == ".parquet":
        data.to_parquet(str(file))
    else:
        file.write_text(json.dumps(ROWS) if ending == ".json" else "\n".join(map(json.dumps, ROWS)))
    return str(file)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json", ".jsonl"])
def test_tables_and_renamed_columns_are_read(tmp_path, ending):
    found = load_problems(written(tmp_path, ending), "train", columns=COLUMNS)
    assert [(p.id, p.problem, p.answer) for p in found] == [
        ("mine-1", "1 + 1?", "0.50"),
        ("mine-2", '2, "three"?', "1e400"),
    ]


def test_numbers_of_a_table_become_text_and_ids_of_its_own_are_kept(tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"id": [7, 9], "problem": ["a", "b"], "answer": [3, 4], "level": ["1", None]})
    data.to_parquet(str(tmp_path / "p.parquet"))
    found = load_problems(str(tmp_path / "p.parquet"), "train")
    assert [(p.id, p.answer, p.level) for p in found] == [("7", "3", "1"), ("9", "4", "")]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"problem": "questoin", "answer": "final"}, "has no column 'questoin' for problem; did you mean 'question'"),
        ({"problme": "question"}, "a problem has no 'problme'; did you mean 'problem'"),
        ({"problem": "question"}, "key 'answer' is missing; a line needs"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_columns_that_are_not_there_name_the_nearest(tmp_path, ending, columns, words):
    with pytest.raises(UserError, match=words):
        load_problems(written(tmp_path, ending), "train", columns=columns)


def test_a_table_that_is_none_is_one_sentence(tmp_path):
    broken = (("a.csv", ""), ("b.csv", 'problem,answer\n"x,1\n'), ("a.parquet", "no parquet"))
    for name, text in broken:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} cannot be read as .*; mend the file"):
            load_problems(str(tmp_path / name), "train")
    (tmp_path / "c.csv").write_text("problem,answer\n1, 2 or 3?,4\n")
    with pytest.raises(UserError, match=r"c\.csv, line 2: 3 cells under a header of 2"):
        load_problems(str(tmp_path / "c.csv"), "train")
    with pytest.raises(UserError, match=r"none\.csv: No such file"):
        load_problems(str(tmp_path / "none.csv"), "train")


def test_a_hub_set_offline_names_the_variable_and_the_local_way(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "answers", lambda *_: False)
    with pytest.raises(
        UserError, match=r"HF_HUB_OFFLINE is set and owner/absent-set .* give a local file that ends in \.jsonl"
    ):
        load_problems("owner/absent-set:main", "train")


def test_what_would_be_read_of_a_file_is_said_without_training(tmp_path, capsys):
    rows = [
        {"id": "a", "problem": "pens " * 3, "answer": "1/2"},
        {"id": "b", "problem": "pens " * 40, "answer": "3"},
        {"id": "c", "problem": "x", "answer": ""},
        {"id": "d", "problem": "pens", "answer": "the moon and the stars, seen from afar, by night"},
    ]
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    flags = ["--model", str(START / "llama"), "--max-prompt-tokens", "32", "--eval-share", "0.5"]
    assert main(["problems", "check", str(file), *flags]) == 1
    told = capsys.readouterr().out
    assert "3 problems can be read" in told
    assert "1 broken rows" in told
    assert "line 3: answer is empty" in told
    assert "1 prompts longer than 32 tokens: dropped\n    b: " in told
    held = sum(is_held_out(p, 0.5) for p in load_problems(str(copy_of(file, rows)), "train"))
    assert f"{held} are for validation at --eval-share 0.5" in told
    (tmp_path / "none.jsonl").write_text("{}")
    assert main(["problems", "check", str(tmp_path / "none.jsonl")]) == 2
    assert "nothing of" in capsys.readouterr().err


def copy_of(file, rows):
    whole = file.with_name("whole.jsonl")
    whole.write_text("\n".join(json.dumps(row) for row in rows if row["answer"]))
    return whole


def test_an_answer_that_the_verifier_cannot_read_is_named(tmp_path, capsys):
    file = tmp_path / "p.jsonl"
    rows = [{"id": "a", "problem": "x", "answer": "1/2"}, {"id": "b", "problem": "y", "answer": "\\frac{1}{"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main(["problems", "check", str(file)]) == 0
    told = capsys.readouterr().out
    assert "1 answers that the verifier cannot read" in told
    assert "    b: " in told


def test_a_share_split_off_by_hash_is_never_trained_on(tmp_path):
    problems = load_problems("arithmetic", "train", limit=400)
    held = {p.id for p in problems if is_held_out(p, 0.25)}
    assert 60 < len(held) < 140  # 100 ± 4.6 standard deviations
    assert {p.id for p in problems[:200] if is_held_out(p, 0.1)} <= held
    folder = train(small(tmp_path / "run", limit=400, eval_share=0.25, eval_every=1, steps=1, eval_problems=8))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["problems_used"] == 400 - len(held)
    assert [line["step"] for line in lines(folder) if "validation" in line] == [0, 1]
    assert not {line["problem"] for line in lines(folder, "samples.jsonl")} & held


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problems": "gsm8k", "columns": {"answer": "x"}}, "the columns of gsm8k are known"),
        ({"problems": "mine.csv", "eval_every": 1}, "one file without splits.*split a share off with --eval-share"),
        ({"eval_share": 1.0}, "eval_share is 1.0; give a value below 1"),
        (
            {"problems": "a/b", "eval_every": 1, "eval_split": "train"},
            "would read the training problems; give another split",
        ),
        ({"problems": "gsm9k", "eval_share": 0.1, "eval_every": 1}, "did you mean 'gsm8k'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(changes, words):
    with pytest.raises(UserError, match=words):
        resolve(Experiment(model="m", **changes))
