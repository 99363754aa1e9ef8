"""Configuration: one source for command line, file and record; mistakes are named before anything is loaded."""

import argparse
import json

import pytest

from lco.config import Experiment, add_arguments, check, dump, fields, from_arguments, from_mapping, load
from lco.errors import UserError


def parse(*flags, base=None):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(flags), base or Experiment())


def test_a_file_round_trips_and_flags_override_it(tmp_path):
    written = parse("--model", "m", "--lr", "2e-6", "--hyper", "beta=5", "advantage=group_std")
    file = tmp_path / "c.json"
    file.write_text("\ufeff" + dump(written))
    assert load(str(file)) == written
    changed = parse("--steps", "3", "--hyper", "beta=1", base=load(str(file)))
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
        load(str(file))
    with pytest.raises(UserError, match="cannot read"):
        load(str(tmp_path / "absent.json"))


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
    ],
)
def test_mistakes_are_named_with_the_remedy(change, words):
    values = {"model": "m", **change}
    with pytest.raises(UserError, match=words):
        check(from_mapping(values, "test"))


def test_the_default_configuration_is_printed_whole():
    assert set(json.loads(dump(Experiment()))) == set(fields())
