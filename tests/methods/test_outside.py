"""Methods from outside: a file or an installed package; what is refused, and what a run and a table say of them."""

import json
import os
import sys
from pathlib import Path

import pytest

from lco.cli import main
from lco.errors import UserError
from lco.evidence import records
from lco.methods import METHODS, check_method, method_named, outside
from tests.conftest import START, small, train
from tests.evidence.made import record, tables


@pytest.fixture
def skeleton(tmp_path, monkeypatch, capsys):
    """The place of a new method's file, as `--new` prints it."""
    monkeypatch.chdir(tmp_path)
    assert main(["methods", "--new", "mine"]) == 0
    assert "lco train --method mine.py:MINE" in capsys.readouterr().out
    return "mine.py:MINE"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package that announces what is asked for; takes the module's text and the entry points' lines."""

    def install(text, *lines):
        info = tmp_path / "site" / "theirs-1.5.dist-info"
        info.mkdir(parents=True)
        (info.parent / "theirs.py").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text("\n".join(["[lco.methods]", *lines]) + "\n")
        monkeypatch.syspath_prepend(str(info.parent))
        outside.announced.cache_clear()

    yield install
    sys.modules.pop("theirs", None)
    outside.announced.cache_clear()


def test_a_new_methods_file_holds_every_invariant_and_stays_when_asked_for_again(skeleton, capsys):
    before = Path("mine.py").read_text()
    assert main(["methods", "--check", skeleton]) == 0
    printed = capsys.readouterr().out
    assert "fails" not in printed
    assert "holds      padding changes nothing" in printed
    assert main(["methods", "--new", "mine"]) == 2
    assert "mine.py is there already and stays as it is" in capsys.readouterr().err
    assert Path("mine.py").read_text() == before
    assert main(["methods", skeleton]) == 0
    page = capsys.readouterr().out
    assert page.startswith("mine: say in one line what it is")
    assert "certainty: unset" in page


def test_a_method_of_a_file_trains_and_its_record_and_table_say_so(skeleton, tmp_path, capsys):
    folder = train(small(tmp_path / "run", method=skeleton, steps=1, eval_every=0))
    found = records.distil(folder)
    assert found["method"] == found["experiment"]["method"] == "mine"
    assert len(found["code"]["method"]) == 64
    assert "mine.py" not in json.dumps(found)
    records.write(tmp_path / "mine.json", found)
    capsys.readouterr()
    flags = ["train", "--resume", "--out", str(folder), "--steps", "2"]
    assert main(flags) == 2
    assert f"was made with code from {skeleton}, which no folder's word alone runs" in capsys.readouterr().err
    with open("mine.py", "a") as file:
        file.write("# another\n")
    assert main([*flags, "--method", skeleton]) == 2
    assert "cannot resume" in capsys.readouterr().err


def test_tables_name_the_source_of_what_is_not_the_suites_and_mix_no_two(tmp_path):
    for seed, digest in ((0, "ab" * 32), (1, "ab" * 32)):
        records.write(tmp_path / f"{seed}.json", {**record("mine", seed, 3), "code": {"method": digest}})
    records.write(tmp_path / "start.json", record("start", None, 2))
    notes = " ".join(tables(tmp_path)[0].notes)
    assert "Not the suite's own, by the hash of its source: mine (sha256 abababababab…)." in notes
    records.write(tmp_path / "1.json", {**record("mine", 1, 3), "code": {"method": "cd" * 32}})
    with pytest.raises(UserError, match=r"source of mine is abab.* and cdcd"):
        tables(tmp_path)


def test_a_method_of_an_installed_package_is_listed_and_found_by_its_name(skeleton, package, capsys):
    package(Path("mine.py").read_text(), "mine = theirs:MINE", "grpo = theirs:MINE", "ghost = theirs:GHOST")
    assert main(["methods", "--json"]) == 0
    listed = capsys.readouterr()
    assert [m["name"] for m in json.loads(listed.out)] == [*METHODS, "mine"]
    assert "announced as 'grpo', which is a method of the suite: left out" in listed.err
    assert "the method 'ghost' of theirs 1.5 cannot be loaded" in listed.err
    assert method_named("mine").title == "mine"
    assert outside.from_package("mine", METHODS).code["package"] == "theirs 1.5"
    assert method_named("grpo") is METHODS["grpo"]
    with pytest.raises(UserError, match="there is no method 'mime'; did you mean 'mine'"):
        check_method("mime")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("", "MINE", "cannot read .*No such file"),
        ("METHOD = 3", "METHDO", "has no 'METHDO'; did you mean 'METHOD'"),
        ("METHOD = 3", "METHOD", "is no method but of type int; give a lco.methods.method.Method"),
        ("METHOD = (\n", "METHOD", r"cannot be run: SyntaxError: .*line 1"),
        ("x = 1\ny = x / 0\nMETHOD = y", "METHOD", r"cannot be run: ZeroDivisionError: division by zero \(line 2\)"),
        ("raise SystemExit(1)", "METHOD", "cannot be run: SystemExit"),
        ("METHOD = 3", "", r"given without a name in it; write .*:NAME \(it has METHOD\)"),
        ("from lco.methods.grpo import GRPO", "GRPO", "calls itself 'grpo', as a method of the suite"),
        ("import dataclasses\nfrom lco.methods.grpo import GRPO\nMINE = dataclasses.replace(GRPO, name='../x')", "MINE",
         "which names no folder"),
    ],
)  # fmt: skip
def test_what_is_no_method_is_one_sentence(tmp_path, capsys, text, name, words):
    file = tmp_path / "theirs.py"
    if text:
        file.write_text(text)
    place = f"{file}:{name}" if name else str(file)
    with pytest.raises(UserError, match=words):
        method_named(place)
    assert main(["train", "--model", str(START / "llama"), "--method", place]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_method_that_breaks_an_invariant_is_refused_by_its_name(skeleton, capsys):
    text = Path("mine.py").read_text()
    with open("mine.py", "w") as file:
        file.write(
            text.replace('return -x["advantage"] * s["logprob"]', 'return -x["advantage"] * s["logprob"].mean()')
        )
    assert main(["methods", "--check", skeleton]) == 2
    printed = capsys.readouterr()
    assert "fails      micro-batches change nothing (at its defaults: in micro-batches of 1, 5 rows" in printed.out
    assert "does not hold what every method must: micro-batches change nothing" in printed.err


@pytest.mark.parametrize("name", ["grpo", "My Method", "class", "../x"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main(["methods", "--new", name]) == 2
    assert repr(name) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_ranks_of_deepspeed_find_the_same_file(skeleton, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).parents[2]))
    flags = ["--engine", "deepspeed", "--processes", "2", "--device", "cpu", "--steps", "1", "--extraction", "hash"]
    small_run = ["--max-prompt-tokens", "32", "--prompts-per-step", "4", "--samples", "4", "--limit", "20"]
    command = ["train", "--method", skeleton, "--model", str(START / "llama"), *flags, *small_run]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert records.distil(tmp_path / "run")["method"] == "mine"
