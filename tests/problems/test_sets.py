"""Problem sets and prompts: local files with mistakes, real tokenizers' templates, end tokens."""

import json

import pytest

from lco import hub
from lco.errors import UserError
from lco.models.end_tokens import end_token_ids
from lco.problems import STYLES, encode, load_problems, progress, prompts, style_named
from lco.problems.local import read_problems
from lco.problems.prompts import encode_all
from lco.problems.sets import SETS, content_sha256, last_boxed
from tests.conftest import START


def write(path, *lines, bom=False):
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + "\n".join(lines).encode())
    return path


GOOD = '{"id": "a", "problem": "1+1?", "answer": 2}'


def test_lines_end_at_newlines_alone_and_numbers_become_text(tmp_path):
    exact = '{"id": "c", "problem": "x", "answer": 0.50}'
    odd = json.dumps({"id": "b", "problem": "x\u2028y\u0085z", "answer": "0.50", "extra": None}, ensure_ascii=False)
    found = read_problems(write(tmp_path / "p.jsonl", GOOD, "", odd, exact, bom=True))
    assert [p.answer for p in found] == ["2", "0.50", "0.50"]
    assert found[1].problem == "x\u2028y\u0085z"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", "line 2: not a JSON object"),
        ("[1]", "line 2: expected a JSON object, found list"),
        ('{"id": "b", "problem": "x"}', "line 2: key 'answer' is missing"),
        ('{"id": "b", "problem": "x", "answer": null}', "line 2: answer is null"),
        ('{"id": "b", "problem": "x", "answer": ["1"]}', r"line 2: answer is \["),
        ('{"id": "a", "problem": "x", "answer": "1"}', "stands on line 1 too"),
        ('{"id": "b", "problem": "x", "answer": true}', "line 2: answer is true"),
        ('{"id": "b", "problem": "x", "answer": " "}', "line 2: answer is empty"),
        ('{"id": "b", "problem": "\\ud83d", "answer": "1"}', "line 2: problem holds half"),
        ("[" * 100_000, "line 2: nested too deeply"),
        (
            '{"id": "b", "question": "x", "answer": "1"}',
            "key 'problem' is missing; 'question' was probably meant, rename",
        ),
        ('{"unique_id": "b", "problem": "x", "answer": "1"}', "key 'id' is missing; 'unique_id' was probably meant"),
        ('{"id": "b", "problem": "x", "Ground_Truth": "1"}', "key 'answer' is missing; 'Ground_Truth' was probably"),
        ('{"id": "b", "problem": "x", "answer": "3 + 4 = 7\\n#### 7"}', "line 2: answer holds a worked solution"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, words):
    with pytest.raises(UserError, match=words):
        read_problems(write(tmp_path / "p.jsonl", GOOD, line))


def test_a_list_in_one_file_is_read_as_lines_are(tmp_path):
    rows = [json.loads(GOOD)]
    for name, text in (
        ("a.jsonl", json.dumps(rows)),
        ("b.jsonl", "\ufeff" + json.dumps(rows, indent=1)),
        ("d.json", GOOD),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert [p.answer for p in load_problems(str(tmp_path / name), "train")] == ["2"]
    (tmp_path / "e.json").write_text(json.dumps([*rows, 3]))
    with pytest.raises(UserError, match=r"e\.json, item 2: expected a JSON object, found str"):
        load_problems(str(tmp_path / "e.json"), "train")
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(UserError, match=r"c\.json holds no problem"):
        load_problems(str(tmp_path / "c.json"), "train")


def test_what_takes_long_shows_a_bar(tmp_path, monkeypatch, capsys):
    """Here everything takes long; in use the bar waits some seconds, and small sets show none."""
    file = write(tmp_path / "p.jsonl", GOOD)
    read_problems(file)
    load_problems("arithmetic", "test", limit=3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "QUIET", 0)
    read_problems(file)
    assert "reading p.jsonl" in capsys.readouterr().err
    for name in ("arithmetic", "addition"):
        load_problems(name, "test", limit=3)
        assert "making problems" in capsys.readouterr().err


def test_prompts_encoded_together_are_those_encoded_one_by_one(monkeypatch):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    problems = load_problems("arithmetic", "test", limit=7)
    one_by_one = [encode(tokenizer, p, style_named("plain")) for p in problems]
    for together in (3, 7, 1000):
        monkeypatch.setattr(prompts, "TOGETHER", together)
        assert encode_all(tokenizer, problems, style_named("plain")) == one_by_one
    assert encode_all(tokenizer, [], style_named("plain")) == []


def test_missing_files_sets_and_splits_are_named(tmp_path):
    cases = [
        (("gsm8k", "train", str(tmp_path / "no")), "there is no data folder"),
        (("gsm8k", "train", str(tmp_path)), "cannot read .*gsm8k_train.jsonl"),
        (("gsm9k", "train"), "did you mean 'gsm8k'"),
        (("gsm8k", "validation"), "no split 'validation'"),
        (("math", "test", "", -1), "limit is -1"),
        ((str(tmp_path / "none.jsonl"), "train"), "No such file"),
    ]
    for arguments, words in cases:
        with pytest.raises(UserError, match=words):
            load_problems(*arguments)


def test_a_hub_that_does_not_answer_names_the_mirror_and_the_local_way(monkeypatch):
    import datasets

    def gone(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", gone)
    monkeypatch.setattr(hub, "answers", lambda *_: True)
    with pytest.raises(UserError, match=r"Maxwell-Jia/AIME_2024 .or its mirror HuggingFaceH4/aime_2024.*--data-dir"):
        load_problems("aime24", "test")


def test_published_rows_become_problems():
    gsm8k = SETS["gsm8k"].hub["train"].convert({"question": " q ", "answer": "3*4=<<3*4=12>>12\n#### 1,012"}, 7)
    assert (gsm8k.id, gsm8k.answer, gsm8k.solution) == ("gsm8k-train-0007", "1012", "3*4=12\n#### 1,012")
    assert last_boxed(r"so \boxed{1}, or \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert last_boxed("nothing") == last_boxed(r"\boxed{open") == ""


def test_rows_of_other_collections_become_problems():
    """The columns of each collection as published; hub and folder give the same ids where the hub has one."""
    math500 = {"unique_id": "test/precalculus/807.json", "problem": "p", "answer": "a", "solution": "s", "level": 2,
               "subject": "Precalculus"}  # fmt: skip
    assert SETS["math500"].hub["test"].convert(math500, 0).id == "math500-precalculus-807"
    olympiad = {"id": 1606, "question": "q", "final_answer": ["1", "2"], "solution": ["a", "b"], "subfield": "Algebra"}
    found = SETS["olympiadbench"].hub["test"].convert(olympiad, 0)
    assert (found.id, found.answer, found.solution) == ("olympiad-1606", "1, 2", "a\n\nb")
    aime = SETS["aime_1983_2023"].hub["train"]
    row = {"ID": "1983-1", "Year": 1983, "Question": "q", "Answer": "60"}
    assert aime.convert(row, 0).answer == "60"
    assert aime.convert({**row, "Year": 2024}, 0).answer == ""  # a test set of its own; from_hub drops it


def test_a_collection_whose_columns_changed_is_one_sentence(monkeypatch):
    import datasets

    monkeypatch.setattr(hub, "answers", lambda *_: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": "x"}])
    with pytest.raises(UserError, match=r"math-ai/aime25 no longer has the columns.*'problem'.*--data-dir"):
        load_problems("aime25", "test")


def test_content_hash_depends_on_content_alone():
    problems = load_problems("arithmetic", "test", limit=5)
    assert content_sha256(problems) == content_sha256(load_problems("arithmetic", "test", limit=5))
    assert content_sha256(problems) != content_sha256(problems[::-1])


def test_one_bos_and_the_templates_own_ids(start_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start_folder)
    problem = load_problems("arithmetic", "test", limit=1)[0]
    ids = encode(tokenizer, problem, style_named("plain"))
    assert ids.count(tokenizer.bos_token_id) == 1
    rendered = tokenizer.apply_chat_template(STYLES["plain"].messages(problem.problem), add_generation_prompt=True)
    assert list(ids) == list(rendered["input_ids"])
    assert end_token_ids(tokenizer, str(start_folder)) == (tokenizer.eos_token_id,)


def test_no_chat_template_is_one_sentence():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template; use an instruction-tuned model"):
        encode(tokenizer, load_problems("arithmetic", "test", limit=1)[0], style_named("plain"))


def test_a_template_that_refuses_a_system_message_is_one_sentence():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match=r"refuses the prompt .System role not supported.*boxed_user"):
        encode(tokenizer, load_problems("arithmetic", "test", limit=1)[0], style_named("boxed"))


def test_all_end_tokens_of_a_family(tmp_path):
    """generation_config lists several, and the family's chat marker ends a turn."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    tokenizer.add_tokens(["<|im_end|>"])
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    assert end_token_ids(tokenizer, str(tmp_path)) == (2, 3, tokenizer.convert_tokens_to_ids("<|im_end|>"))
