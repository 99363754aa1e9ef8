"""`lco verify`: lines in, lines out, in order; broken lines are named."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lco.errors import UserError
from lco.verifier import command

ROOT = Path(__file__).parents[2]


def call(arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8"))))
    return command.run(parser.parse_args(arguments))


def lines(*pairs: tuple[str, str]) -> str:
    return "".join(json.dumps({"response": response, "gold": gold}) + "\n" for response, gold in pairs)


def test_verdicts_come_in_order(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = lines(("\\boxed{1/2}", "0.5"), ("\\boxed{3}", "4"), ("no idea, sorry\nreally", "4"))
    assert call([], text, monkeypatch) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"correct": True, "extracted": "1/2", "reason": "equal"},
        {"correct": False, "extracted": "3", "reason": "different"},
        {"correct": False, "extracted": None, "reason": "no_answer"},
    ]


def test_options_reach_the_rules(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = lines(("The answer is 41.9", "41.8"))
    for arguments, right in (
        ([], False),
        (["--relative-tolerance", "0.01"], True),
        (["--extraction", "boxed_only"], False),
    ):
        assert call(arguments, text, monkeypatch) == 0
        assert json.loads(capsys.readouterr().out)["correct"] is right


def test_a_file_with_a_byte_order_mark_and_odd_separators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    record = json.dumps({"response": "a\u2028b \\boxed{4}", "gold": 4}, ensure_ascii=False)
    path.write_text("\ufeff" + record + "\r\n\n" + record + "\n", encoding="utf-8")
    assert call([str(path)], "", monkeypatch) == 0
    assert [json.loads(line)["correct"] for line in capsys.readouterr().out.splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is no JSON object"),
        ('{"response": "x"}', "line 2 has no 'gold'"),
        ('{"response": "x", "answer": "4"}', "line 2 has no 'gold'; rename its 'answer'"),
        ('{"response": "x", "gold": NaN}', "line 2 is no JSON (NaN is no number of JSON)"),
        ('{"response": null, "gold": "4"}', "line 2: 'response' is NoneType, not text"),
        ('{"response": 4, "gold": "4"}', "line 2: 'response' is int, not text"),
        ('{"response": 4.5, "gold": "4.5"}', "line 2: 'response' is float, not text"),
        ('{"response": true, "gold": "4"}', "line 2: 'response' is bool, not text"),
        ('{"response": "x", "gold": true}', "line 2: 'gold' is bool, not text or a number"),
        ('{"response": "x", "gold": ["4"]}', "line 2: 'gold' is list"),
    ],
)
def test_a_broken_line_is_named_and_ends_the_run(
    line: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=re.escape(f"standard input, {complaint}")):
        call([], lines(("\\boxed{4}", "4")) + line + "\n", monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_missing_file_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"cannot read /nowhere/pairs\.jsonl \(No such file or directory\); give a file"
    ):
        call(["/nowhere/pairs.jsonl"], "", monkeypatch)


def test_standard_input_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    program = "from lco.cli import main; raise SystemExit(main(['verify']))"
    text = json.dumps({"response": "\\boxed{½ − π}", "gold": "\\frac12-\\pi"}, ensure_ascii=False) + "\n"
    for locale in ("C", "POSIX", "en_US.ISO-8859-1"):
        environment = {
            "PATH": os.environ["PATH"],
            "LC_ALL": locale,
            "PYTHONIOENCODING": "latin-1",
            "PYTHONPATH": str(ROOT),
        }
        start = [sys.executable, "-X", "utf8=0", "-c", program]
        done = subprocess.run(
            start, cwd=ROOT, input=text.encode("utf-8"), capture_output=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["correct"] is True


def test_a_line_that_is_no_utf_8_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    source = io.BytesIO(lines(("\\boxed{4}", "4")).encode() + b'{"response": "\xff", "gold": "4"}\n')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
    with pytest.raises(UserError, match="line 2 is no UTF-8 text"):
        command.run(parser.parse_args([]))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_explain_tells_the_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--explain"], lines(("\\boxed{5 \\text{ m}}", "5 \\text{ cm}")), monkeypatch) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert any("box" in step for step in steps)
    assert any("the units differ: cm and m" in step for step in steps)
    assert steps[-1].startswith("wrong: different_unit")


def test_each_verdict_is_flushed_before_the_next_line_is_read() -> None:
    program = "import argparse\nfrom lco.verifier import command\np = argparse.ArgumentParser()\ncommand.add_arguments(p)\nraise SystemExit(command.run(p.parse_args([])))"  # noqa: E501
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for value in ("1", "2"):
            process.stdin.write(lines((f"\\boxed{{{value}}}", "1")))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["correct"] is (value == "1")
        process.stdin.close()
        assert process.wait(timeout=60) == 0
