"""A run says early what would make a flat curve, and stops where sampler and trainer are not one policy."""

import pytest

from lco.config import Experiment
from lco.errors import UserError
from lco.problems import Problem
from lco.training.load import demonstrations
from lco.training.state import Prompt
from lco.training.watch import watch

FINE = {"truncated": 0.1, "no_answer": 0.1, "degenerate_all_right": 0.2, "degenerate_all_wrong": 0.2}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"truncated": 0.95}, "95% of the responses are cut at max_new_tokens; raise it"),
        ({"no_answer": 0.99}, "finds an answer in almost no response; check --prompt and --extraction"),
        ({"degenerate_all_right": 0.4, "degenerate_all_wrong": 0.6}, "have nothing to learn from"),
        ({"rewards_not_finite": 3}, "3 rows got no reward and are left out"),
    ],
)
def test_what_makes_a_flat_curve_is_said_in_the_first_rollouts(capsys, found, words):
    watch({**FINE, **found}, 1, Experiment())
    assert words in capsys.readouterr().err
    watch({**FINE, **found}, 4, Experiment())
    watch(FINE, 1, Experiment())
    assert capsys.readouterr().err == ""


def test_a_sampler_with_other_weights_stops_the_run_at_any_step():
    watch({**FINE, "sampler_gap_mean": 0.009}, 7, Experiment())
    with pytest.raises(UserError, match=r"rollout 7: sampler and trainer differ by 0\.02 per token"):
        watch({**FINE, "sampler_gap_mean": 0.02}, 7, Experiment())
    watch({**FINE, "sampler_gap_mean": 0.02}, 7, Experiment(dtype="bfloat16"))


class Letters:
    """A tokenizer of single letters with one end token."""

    def __init__(self, end):
        self.eos_token_id = end

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(letter) for letter in text]


@pytest.mark.parametrize(("own", "ends", "last"), [(2, (7, 2), 2), (2, (7, 9), 7)])
def test_a_demonstration_ends_with_a_token_on_which_the_sampler_stops(own, ends, last):
    """Also where the tokenizer's own end token is none of the family's."""
    prompt = Prompt(Problem(id="a", problem="?", answer="1", solution="one"), (1,))
    (found,) = demonstrations([prompt], Letters(own), ends)
    assert found[-1] == last
    assert found.count(last) == 1


def test_a_run_of_which_most_rows_got_no_verdict_ends():
    """Trouble of the machine is no wrong answer, and half a rollout does not stand for the whole."""
    watch({**FINE, "rows": 16, "rewards_not_finite": 8}, 5, Experiment())
    with pytest.raises(UserError, match="rollout 5: 9 of 16 rows got no verdict"):
        watch({**FINE, "rows": 16, "rewards_not_finite": 9}, 5, Experiment())
