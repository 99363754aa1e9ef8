"""Configuration: one source for command line, file and record; mistakes are named before anything is loaded."""

import argparse
import dataclasses
import importlib.util
import json
import math

import pytest

from lco.cli import main
from lco.config import Experiment, dump, fields, from_mapping
from lco.config_file import read, write
from lco.errors import UserError
from lco.training.command import add_arguments, from_arguments
from lco.training.resolve import resolve


def parse(*flags, base=None):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(flags), base or Experiment())


def test_a_file_round_trips_and_flags_override_it(tmp_path):
    written = parse("--model", "m", "--lr", "2e-6", "--hyper", "beta=5", "advantage=group_std")
    file = tmp_path / "c.json"
    file.write_text("\ufeff" + dump(written))
    assert from_mapping(read(str(file)), str(file)) == written
    changed = parse("--steps", "3", "--hyper", "beta=1", base=from_mapping(read(str(file)), str(file)))
    assert (changed.steps, changed.lr) == (3, 2e-6)
    assert changed.hyper == {"beta": 1, "advantage": "group_std"}


def test_every_key_is_a_flag():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    known = {action.dest for action in parser._actions}
    assert set(fields()) <= known


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stepz": 3}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"steps": "3"}, "steps is '3'; give a value of type int"),
        ({"steps": True}, "steps is True"),
    ],
)
def test_files_with_mistakes(values, words):
    with pytest.raises(UserError, match=words):
        from_mapping(values, "c.json")


def test_broken_json_names_the_line(tmp_path):
    file = tmp_path / "c.json"
    file.write_text('{\n"steps": 3,\n}')
    with pytest.raises(UserError, match="line 3"):
        from_mapping(read(str(file)), str(file))
    with pytest.raises(UserError, match="cannot read"):
        read(str(tmp_path / "absent.json"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "lco_kdl"}, "did you mean 'lco_kld'"),
        ({"dtype": "bf16"}, "did you mean 'bfloat16'"),
        ({"hyper": {"bta": 2}}, "did you mean 'beta'"),
        ({"hyper": {"advantage": "group_men"}}, "did you mean 'group_mean'"),
        ({"hyper": {"beta": "x"}}, "give a number"),
        ({"samples": 1}, "at least 2"),
        ({"steps": 0}, "least allowed value is 1"),
        ({"minibatches": 10_000}, "lower it"),
        ({"model": ""}, "no model given"),
        ({"extraction": "hsah"}, "extraction is 'hsah'; did you mean 'hash'"),
        ({"prompt": "boxd"}, "no prompt style 'boxd'; did you mean 'boxed'"),
        ({"problems": "gsm9k"}, "did you mean 'gsm8k'"),
        ({"split": "trian"}, "arithmetic has no split 'trian'; did you mean 'train'"),
        ({"lr": math.nan}, "lr is nan; give a finite number"),
        ({"temperature": math.inf}, "temperature is inf; give a finite number"),
        ({"hyper": {"beta": math.nan}}, "beta is nan; give a finite number"),
        ({"beta1": 1.0}, "beta1 is 1.0; give a value below 1"),
        ({"beta2": 1.5}, "beta2 is 1.5; give a value below 1"),
        ({"problems": "mine.jsonl", "eval_every": 2}, "would read the training problems; give eval_every 0 and score"),
        ({"eval_split": "test"}, "eval_split is 'test', which training never reads; give another split, or give"),
        ({"eval_split": "vaildation", "eval_every": 2}, "to validate on; did you mean 'validation'"),
        ({"problems": "gsm8k", "eval_every": 2}, "gsm8k has no split 'validation' to validate on; give eval_every 0"),
    ],
)
def test_mistakes_are_named_with_the_remedy(change, words):
    values = {"model": "m", **change}
    with pytest.raises(UserError, match=words):
        resolve(from_mapping(values, "test"))


@pytest.mark.parametrize("change", [{"rollouts": "vllm"}, {"engine": "deepspeed"}])
def test_an_engine_that_is_not_installed_is_named_with_the_remedy(change, monkeypatch):
    ((name, package),) = change.items()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == package else find(wanted))
    resolve(Experiment(model="m"))
    words = (
        f"{name} is '{package}', but {package} is not installed; install it as docs/install.md says, or give --{name}"
    )
    with pytest.raises(UserError, match=words):
        resolve(Experiment(model="m", **change))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"engine": "deepspeed", "processes": 4, "zero_stage": 3},
        {"rollouts": "vllm", "vllm_cache_gib": 2.0},
        {"method": "ppo", "critic_lr": 1e-3},
        {"hyper": {"advantage": "gae"}, "critic_lr": 1e-3},
        {"problems": "gsm8k", "data_dir": "folder", "split": "test"},
        {"eval_every": 2, "eval_problems": 4},
    ],
)
def test_values_that_something_reads_are_not_named_as_unread(values):
    assert resolve(Experiment(model="m", **values)).warnings == ()


def test_the_default_configuration_is_printed_whole():
    assert set(json.loads(dump(Experiment()))) == set(fields())


@pytest.mark.parametrize("ending", [".json", ".yaml", ".toml"])
def test_a_configuration_is_the_same_in_every_form(tmp_path, ending, capsys):
    flags = [
        "--model",
        'a "b"\\c',
        "--lr",
        "1e-6",
        "--hyper",
        "beta=5",
        "--reward",
        "verifier=1",
        "m.py:f=0.5",
        "--gradient-checkpointing",
    ]
    written = parse(*flags)
    file = tmp_path / f"c{ending}"
    file.write_text(write(written, {".json": "JSON", ".yaml": "YAML", ".toml": "TOML"}[ending]))
    assert from_mapping(read(str(file)), str(file)) == written
    assert main(["train", "--config", str(file), "--steps", "7", "--print-config"]) == 0
    file.write_text(capsys.readouterr().out)
    assert from_mapping(read(str(file)), str(file)) == dataclasses.replace(written, steps=7)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.yaml", "lr: 1e-6\nsteps: [", "line 2: not YAML"),
        ("c.yaml", "steps: 3\nsteps: 4", "'steps' stands there twice"),
        ("c.yaml", "- 3", "expected one YAML object"),
        ("c.yaml", "model: !!python/object/apply:os.system ['true']", "not YAML"),
        ("c.toml", "steps 3", "not TOML"),
        ("c.ini", "", "ends in '.ini'; valid are '.json'"),
    ],
)
def test_broken_configurations_are_named_in_every_form(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read(str(tmp_path / name))


def test_numbers_and_words_of_yaml_are_what_they_look_like(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-6\nbeta1: .9\nsteps: 3\nmodel: on\nprompt: 1.5.2\nout: 2026-01-02\n")
    assert read(str(tmp_path / "c.yaml")) == {
        "lr": 1e-6, "beta1": 0.9, "steps": 3, "model": "on", "prompt": "1.5.2", "out": "2026-01-02",
    }  # fmt: skip
