"""Configuration: one source for command line, file and record; mistakes are named before anything is loaded."""

import argparse
import importlib.util
import json
import math

import pytest

from lco.config import Experiment, dump, fields, from_mapping
from lco.errors import UserError
from lco.training.command import add_arguments, from_arguments, read
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
        ({"hyper": {"beta": math.nan}}, "beta is nan; give a value above 0"),
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
