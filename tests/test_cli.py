"""The command line: help that teaches, one sentence for a mistake, nothing heavy where it is not needed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lco.cli import COMMANDS, main
from lco.config import from_mapping
from lco.methods import METHODS
from lco.methods.knobs import TABLE, from_table
from lco.training.command import preset_settings
from lco.training.resolve import resolve


@pytest.mark.parametrize("command", COMMANDS)
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
        (
            ["train", "--model", "m", "--lr", "1e300"],
            "lr is 1e+300, which float32 takes for infinite; give a number from",
        ),
        (
            ["train", "--model", "m", "--lr", "0.1", "--weight-decay", "10"],
            "weight_decay is 10.0 at lr 0.1: an update takes the share lr · weight_decay of every weight away",
        ),
        (["train", "--model", "m", "--hyper", "beta=1e-300"], "beta is 1e-300, which float32 takes for zero"),
        (["evaluate", "--model", "m", "--tasks", "lco_gsm8k", "--data-dir", "absent"], "there is no folder absent"),
        (["train", "grpo"], "lco train cannot place 'grpo'; did you mean --method grpo? `lco train --help`"),
        (["table", "results"], "lco table cannot place 'results'; did you mean --results results?"),
        (["train", "--hyper", "beta=1", "beta=2"], "--hyper names beta twice; leave one of them out"),
        (["evaluate", "--model", "./absent", "--tasks", "lco_gsm8k,lco_math"], "there is no model folder"),
        (["methods", "GPRO"], "did you mean 'grpo'"),
        (["train", "--model", "./absent", "--device", "cpu"], "there is no model folder"),
        (["train", "--model", "m", "--device", "tpu"], "device is 'tpu'; valid are 'auto', 'cpu', 'cuda'"),
        (["train", "--learnrate", "1e-6"], "has no flag --learnrate; did you mean --lr?"),
        (["evaluate", "--model", "m", "--tasks", "lco_gsm8"], "there is no task 'lco_gsm8'; did you mean 'lco_gsm8k'"),
        (["evaluate", "--model", "./absent", "--tasks", "lco_gsm8k"], "there is no model folder"),
        (["verify", "absent.jsonl"], "cannot read absent.jsonl (No such file or directory)"),
        (["train", "--method", "grpo"], "no model given"),
        (["train", "--hyper", "beta"], "write NAME=VALUE"),
        (["table", "--results", "absent"], "there is no folder absent; give the folder of the records"),
        (["train", "--lr", "nan"], "lr is nan"),
        (["train", "--metod", "grpo"], "lco train has no flag --metod; did you mean --method?"),
        (["train", "--metod=grpo"], "has no flag --metod; did you mean --method?"),
        (["train", "-model", "m"], "has no flag -model; did you mean --model?"),
        (
            ["evaluate", "--modle", "m", "--tasks", "lco_gsm8k"],
            "lco evaluate has no flag --modle; did you mean --model",
        ),
        (["verify", "--extracton", "hash"], "lco verify has no flag --extracton; did you mean --extraction?"),
        (["methods", "--jsn"], "lco methods has no flag --jsn; did you mean --json?"),
        (["problems", "--halp"], "lco problems has no flag --halp; did you mean --help?"),
        (["table", "--result", "x", "--otu", "y"], "lco table has no flag --otu; did you mean --out?"),
        (["lab", "--uot", "x"], "lco lab has no flag --uot; did you mean --out?"),
        (["train", "--zzzzz"], "lco train has no flag --zzzzz; `lco train --help` lists them"),
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["train", "--learning-rate", "1e-6"], "has no flag --learning-rate; did you mean --lr?"),
        (["train", "--num_generations", "4"], "has no flag --num_generations; did you mean --samples?"),
        (["train", "--method", "LCO-KLD"], "there is no method 'LCO-KLD'; did you mean 'lco_kld'?"),
        (["train", "--lr", "-1e-4"], "--lr has no value; a value that begins with a dash is written --lr=-1e-4"),
        (["train", "--micro-batch", "abc"], "--micro-batch: invalid int value: 'abc'; `lco train --help` shows"),
        (["train", "--config", "run.yaml"], "cannot read the configuration run.yaml"),
        (["train", "--model", "m", "--data-dir", "x"], "the problems of arithmetic are made and not read; name a set"),
        (["train", "--model", "m", "--data-dir", "x", "--problems", "a.jsonl"], "give the file's whole path and leave"),
        (
            ["train", "--method", "grpo", "--preset", "released"],
            "no released settings are known for grpo; there are some for",
        ),
        (["train", "--preset", "paper"], "for lco_kld (--preset released has those of its authors' code)"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("lco: ")
    assert "Traceback" not in error


def test_flags_may_be_abbreviated_and_values_may_begin_with_a_dash(capsys):
    assert main(["train", "--mod", "m", "--weight-d=0.5", "--clip-norm", "-1", "--print-config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["weight_decay"], shown["clip_norm"]) == ("m", 0.5, -1.0)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--processes", "4"], "processes is 4 and has no effect: it is read only with --engine deepspeed"),
        (["--zero-stage", "3"], "zero_stage is 3 and has no effect: it is read only with --engine deepspeed"),
        (["--vllm-cache-gib", "2"], "vllm_cache_gib is 2.0 and has no effect: it is read only with --rollouts vllm"),
        (
            ["--stop", ";", "--method", "sft"],
            "stop is [';'] and has no effect: it is read only where responses are sampled",
        ),
        (["--critic-lr", "1"], "critic_lr is 1.0 and has no effect: it is read only by a method with a critic"),
        (["--split", "test", "--problems", "mine.jsonl"], "split is 'test' and has no effect: it is read only for"),
        (["--eval-problems", "9"], "eval_problems is 9 and has no effect: it is read only with --eval-every"),
        (["--eval-split", "train"], "eval_split is 'train' and has no effect: it is read only with --eval-every"),
        ([], None),
    ],
)
def test_a_value_that_nothing_reads_is_named_at_the_start(flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text('{"id": "a", "problem": "1+1?", "answer": 2}')
    assert main(["train", "--model", "./absent", "--device", "cpu", "--limit", "5", *flags]) == 2
    *said, error = capsys.readouterr().err.strip().split("\n")
    assert error.startswith("lco: there is no model folder")
    assert len(said) == (sentence is not None)
    assert all(line.startswith(sentence) for line in said)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("notes", "notes cannot be the run folder (Not a directory); give another --out"),
        ("notes/run", "notes/run cannot be the run folder (Not a directory); give another --out"),
        ("/proc/run", "/proc/run cannot be the run folder (No such file or directory); give another --out"),
        (".", ". holds notes but no run; give an empty or a new folder with --out"),
    ],
)
def test_a_run_folder_that_cannot_be_one_is_named_before_the_model_is_read(out, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("mine")
    assert main(["train", "--model", "./absent", "--device", "cpu", "--out", out]) == 2
    assert capsys.readouterr().err == f"lco: {words}\n"
    assert Path("notes").read_text() == "mine"


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--method", "gprpo"],
        ["train", "--model", "m", "--device", "tpu"],
        ["train", "--model", "m", "--problems", "arithmatic"],
        ["evaluate", "--model", "m", "--tasks", "lco_gsm8"],
    ],
)
def test_a_mistyped_name_costs_no_import_of_what_takes_seconds(arguments):
    assert without_heavy_imports(arguments)[0] == 2


def without_heavy_imports(arguments, **variables):
    """(exit code, what was said) of a command that has to do without what takes seconds; 99 where it did not."""
    code = (
        f"import sys; from lco.cli import main; code = main({arguments!r}); "
        "sys.exit(code if not {'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules) else 99)"
    )
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        (["grpo", "beta=-0.1"], "grpo: beta is -0.1; give a value at least 0"),
        (["lco_kld", "beta=0"], "lco_kld: beta is 0.0; give a value above 0"),
        (["kimi", "tauu=1"], "kimi has no hyper-parameter 'tauu'; did you mean 'tau'?"),
        (["lco_kld", "beta_dpo=1"], "lco_kld: beta_dpo is 1.0, which only estimator=dpo_ratio"),
        (["grpo", "ddof=5"], "grpo: ddof is 5"),
    ],
)
def test_a_knob_out_of_range_is_refused_before_torch_is_imported(hyper, words):
    code, said = without_heavy_imports(["train", "--model", "m", "--method", hyper[0], "--hyper", hyper[1]])
    assert code == 2, said
    assert words in said


def test_no_cuda_is_said_before_torch_is_imported():
    if Path("/dev/kfd").exists():
        pytest.skip("the driver of an AMD device is here, of which only torch can tell")
    for command in (["train", "--model", "m"], ["evaluate", "--model", "m", "--tasks", "lco_miniature"]):
        code, said = without_heavy_imports([*command, "--device", "cuda"], CUDA_VISIBLE_DEVICES="")
        assert code == 2, said
        assert said == "lco: device is 'cuda' but PyTorch sees no CUDA device; use --device cpu\n"


def test_a_model_without_weights_is_named_before_torch_is_imported(tmp_path):
    folder = shutil.copytree(Path("reproduce/miniature/start/llama"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for command in (["train"], ["evaluate", "--tasks", "lco_miniature"]):
        code, said = without_heavy_imports([*command, "--model", str(folder)])
        assert code == 2, said
        assert said == f"lco: cannot load {folder}: it holds no weights (*.safetensors); get it again, whole\n"


def test_the_table_of_knobs_is_what_the_methods_say(capsys):
    """Where this fails: lco methods --knobs > lco/methods/knobs.json"""
    main(["methods", "--knobs"])
    text = capsys.readouterr().out
    assert text == TABLE.read_text(encoding="utf-8")
    known = from_table(text)
    assert known.keys() == METHODS.keys()
    for name, method in METHODS.items():
        said = {key: dataclasses.replace(knob, help="", source="suite") for key, knob in method.hyperparameters.items()}
        assert known[name] == said


VERIFIER_ALONE = """
import importlib.abc, json, sys
from pathlib import Path

class OnlyTheVerifiers(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"lco", "sympy", "mpmath", *sys.stdlib_module_names}:
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyTheVerifiers())
from lco.cli import main
print(json.dumps([main(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def test_where_only_the_verifiers_extra_is_installed_every_command_works_or_says_what_it_lacks(tmp_path):
    record = "results/lco_wider/llama/grpo/seed-0.json"
    given = {
        "train": ["--method", "grpo", "--model", "m"], "serve": ["m"], "evaluate": ["--model", "m", "--tasks", "lco_gsm8k"],
        "verify": [record], "watch": [str(tmp_path)], "samples": [str(tmp_path)], "record": ["--check", record],
        "card": [str(tmp_path)],
    }  # fmt: skip
    asked = [[name, *given.get(name, [])] for name in COMMANDS]
    command = [sys.executable, "-c", VERIFIER_ALONE, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.splitlines()
    assert set(codes) <= {0, 2}
    assert len(said) == codes.count(2)
    lacking = [line for line in said if line.startswith("lco: this command needs ") and "`make setup`" in line]
    assert len(lacking) > 5


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


PRESETS = [(n, kind) for n, m in METHODS.items() for kind, found in (("paper", m.paper_preset), ("released", m.released_preset))
           if found.hyper or found.settings]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), PRESETS)
def test_paper_and_released_settings_are_valid_ones(name, kind):
    experiment = from_mapping({**preset_settings(name, kind), "model": "x", "steps": 100}, "preset")
    resolve(experiment)
    assert experiment.method == name


def test_a_reader_that_stops_early_is_no_error():
    """`lco methods | head -1`, with a reader that closes at once."""
    command = [sys.executable, "-m", "lco.cli", "methods", "dapo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_the_version_and_help_are_found_by_any_name(capsys):
    for words, said in ((["--version"], "lco "), (["version"], "lco "), (["help"], "COMMAND")):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert said in capsys.readouterr().out
