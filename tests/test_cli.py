"""The command line: help that teaches, one sentence for a mistake, nothing heavy where it is not needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lco.cli import main
from lco.config import check, from_mapping, paper_settings
from lco.methods import METHODS


@pytest.mark.parametrize("command", ["train", "evaluate", "verify", "methods", "table", "problems", "lab"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 100


def test_methods_are_listed_and_each_has_a_page(capsys):
    assert main(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in listed] == list(METHODS)
    for name in METHODS:
        assert main(["methods", name]) == 0
        page = capsys.readouterr().out
        assert "reduction:" in page
        assert any(unit in page for unit in ("per token", "per row", "per pair"))
    assert main(["methods"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for method in METHODS.values():
        assert f"{method.name} {method.title}: {method.paper}" in shown
        assert method.certainty in shown
        assert all(f"{name}={knob.default}" in shown for name, knob in method.hyperparameters.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["methods", "lco_kdl"], "did you mean 'lco_kld'"),
        (["train", "--model", "./absent", "--device", "cpu"], "there is no model folder"),
        (["train", "--method", "grpo"], "no model given"),
        (["train", "--hyper", "beta"], "write NAME=VALUE"),
        (["table", "--results", "absent"], "no result record"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("lco: ")
    assert "Traceback" not in error


def test_print_config_gives_a_file_that_alone_suffices(tmp_path, capsys):
    main(["train", "--model", "m", "--lr", "0.5", "--print-config"])
    file = tmp_path / "c.json"
    file.write_text(capsys.readouterr().out)
    main(["train", "--config", str(file), "--steps", "7", "--print-config"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["lr"], shown["steps"]) == ("m", 0.5, 7)


def test_verify_imports_nothing_heavy():
    code = (
        "import sys; from lco.cli import main; main(['verify']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'vllm', 'deepspeed', 'datasets')))"
    )
    given = json.dumps({"response": "\\boxed{\\frac12}", "gold": "0.5"}) + "\n"
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.split("\n")[0])["correct"] is True


def test_the_document_of_methods_is_what_the_code_says(capsys):
    main(["methods", "--markdown"])
    document = Path(__file__).parents[1] / "docs" / "methods.md"
    assert capsys.readouterr().out == document.read_text(encoding="utf-8")


def test_paper_settings_are_a_start_that_files_and_flags_override(capsys, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"method": "dapo", "samples": 4, "hyper": {"clip_high": 0.3}}))
    main(
        [
            "train",
            "--preset",
            "paper",
            "--config",
            str(file),
            "--lr",
            "1e-5",
            "--hyper",
            "refill_rounds=2",
            "--print-config",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["lr"], found["prompts_per_step"]) == (4, 1e-5, 512)
    assert found["hyper"] == {"refill_rounds": 2, "overlong": "shape", "overlong_buffer": 4096, "clip_high": 0.3}
    main(["train", "--method", "dapo", "--print-config"])
    assert json.loads(capsys.readouterr().out)["prompts_per_step"] == 32
    assert main(["train", "--method", "kimi", "--preset", "paper", "--print-config"]) == 2
    assert "no paper settings are known for kimi" in capsys.readouterr().err


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.paper_preset.hyper or m.paper_preset.settings])
def test_paper_settings_are_valid_ones(name):
    experiment = from_mapping({**paper_settings(name), "model": "x", "steps": 100}, "preset")
    check(experiment)
    assert experiment.method == name
