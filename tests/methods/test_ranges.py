"""Every knob says what it may be, and what it may not be is refused before a model is loaded."""

import math

import pytest

from lco.cli import main
from lco.errors import UserError
from lco.methods import METHODS

NUMBERS = [
    (name, knob)
    for name, method in METHODS.items()
    for knob, found in method.hyperparameters.items()
    if isinstance(found.default, int | float) and not isinstance(found.default, bool) and not found.choices
]


@pytest.mark.parametrize(("name", "knob"), NUMBERS)
def test_every_number_has_a_range_that_holds_its_default_and_ends_where_it_says(name, knob):
    found = METHODS[name].hyperparameters[knob]
    found.refuse_outside(knob, found.default)
    low = found.above if found.least is None else found.least
    assert low is not None, f"{name}'s {knob} may be anything: give it `least` or `above`"
    outside = [low - 1, *([low] if found.least is None else []), *([] if found.most is None else [found.most + 1])]
    for value in (*outside, math.nan):
        with pytest.raises(UserError, match=f"{knob} is .*; give a value (at least|above) "):
            found.refuse_outside(knob, value)


@pytest.mark.parametrize(
    ("method", "hyper", "words"),
    [
        ("grpo", {"beta": -0.1}, r"grpo: beta is -0\.1; give a value at least 0"),
        ("lco_kld", {"beta": -1}, r"lco_kld: beta is -1\.0; give a value above 0"),
        ("kimi", {"tau": 0}, r"kimi: tau is 0\.0; give a value above 0"),
        ("ppo", {"clip": -0.2}, r"clip is -0\.2"),
        ("ppo", {"gamma": 1.5}, r"gamma is 1\.5; give a value at least 0 and at most 1"),
        ("grpo", {"ddof": 5}, "ddof is 5"),
        ("grpo", {"dual_clip": 0.5}, "below the ratio of the old policy itself"),
        ("rft", {"cap": 2.5}, r"cap is 2\.5: give a whole number"),
        ("rft", {"cap": True}, "cap is True: give a whole number"),
        ("pmd_mean", {"least_success": 0.9, "most_success": 0.1}, "no group lies between"),
        ("lco_kld", {"beta": math.nan}, "beta is nan"),
        ("ppo", {"lam": math.inf}, "lam is inf"),
        ("lco_kld", {"beta": "inf"}, r"lco_kld: beta is inf; give a finite number"),
        ("grpo", {"beta": math.inf}, r"grpo: beta is inf; give a finite number"),
        ("capo", {"hessian_rule": "band", "hessian_low": 0.1}, r"hessian_low is 0\.1, above delta_hessian 0\.01"),
    ],
)
def test_values_outside_are_refused_by_name(method, hyper, words):
    with pytest.raises(UserError, match=words):
        METHODS[method].bind(hyper)


def test_an_overlong_buffer_as_long_as_the_limit_is_refused_before_a_model_is_read(capsys):
    flags = ["--method", "dapo", "--model", "absent/model", "--max-new-tokens", "16", "--hyper", "overlong=shape"]
    assert main(["train", *flags, "overlong_buffer=16"]) == 2
    assert "max_new_tokens is 16, but dapo" in capsys.readouterr().err
