"""What responses are rewarded for: terms added up, functions of a file, and what gives no number."""

import json
import math

import pytest

from lco.cli import main
from lco.errors import UserError
from lco.evidence import records
from lco.problems import Problem
from lco.problems.rewards import ALONE, Judged, parse_terms, reward_all, terms_of
from lco.verifier import Verdict
from tests.conftest import START, lines, small, train

PROBLEM = Problem("p", "1 + 1?", "2")
RIGHT, WRONG, NONE = (
    Verdict(True, "2", "equal", 0),
    Verdict(False, "3", "different", 0),
    Verdict(False, None, "no_answer", 0),
)


def judged():
    return Judged(["two", "three", ""], [PROBLEM] * 3, [RIGHT, WRONG, NONE])


def place(tmp_path, body, name="f"):
    file = tmp_path / "mine.py"
    file.write_text(f"import torch, numpy\n\ndef {name}(responses, problems):\n    {body}\n")
    return f"{file}:{name}"


def totals(given):
    return [math.fsum(parts.values()) for parts in given.parts]


def test_terms_add_up_by_weight(tmp_path):
    length = place(tmp_path, "return [len(r) - len(p.answer) for r, p in zip(responses, problems)]")
    given = reward_all(terms_of({"verifier": 1, "format": 0.5, length: -0.25}), judged())
    assert totals(given) == [1 + 0.5 - 0.5, 0.5 - 1.0, 0.25]
    assert given.parts[0] == {"verifier": 1, "format": 0.5, "f": -0.5}
    assert not given.faults


@pytest.mark.parametrize(
    ("body", "values", "words"),
    [
        ("return torch.tensor([1.0, 2.0, 3.0])", [1, 2, 3], ""),
        ("return numpy.array([True, False, True])", [1, 0, 1], ""),
        ("return ['1.0', 2, 3]", [None, 2, 3], "it gave '1.0', which is no finite number"),
        ("return [None, float('nan'), 3]", [None, None, 3], "it gave 'None', which is no finite number"),
        ("return [1, 2]", [None] * 3, "it gave 2 values for 3 responses"),
        ("return 1", [None] * 3, "it raised TypeError"),
        ("return [problems[0].nothing]", [None] * 3, "it raised AttributeError"),
    ],
)
def test_what_is_no_number_is_counted_and_said(tmp_path, body, values, words):
    given = reward_all(terms_of({place(tmp_path, body): 1}), judged())
    assert [None if math.isnan(total) else total for total in totals(given)] == values
    assert words in given.faults.get("f", "")
    assert bool(words) == bool(given.faults)


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({}, "reward is empty"),
        ({"verifer": 1}, "there is no reward 'verifer'; did you mean 'verifier'"),
        ({"verifier": 0}, "the weight of verifier is 0"),
        ({"verifier": math.inf}, "the weight of verifier is inf"),
        ({"random": 1, "format": 0.1}, "random deals out the verifier's rewards and stands alone"),
        ({"random": 0.5}, "stands alone"),
        ({"mine.py:random": 1}, "a function of that name needs another"),
        ({"absent.py:f": 1}, "cannot read absent.py"),
        ({"{place}": 1}, "is no function but of type int"),
        ({"{place}x": 1}, "has no 'valuex'; did you mean 'value'"),
    ],
)
def test_mistakes_in_a_reward_are_one_sentence(tmp_path, reward, words):
    (tmp_path / "mine.py").write_text("value = 3\n")
    named = {name.replace("{place}", f"{tmp_path / 'mine.py'}:value"): weight for name, weight in reward.items()}
    with pytest.raises(UserError, match=words):
        terms_of(named)


def test_the_verdict_dealt_out_or_not_needs_no_term():
    assert terms_of(parse_terms(["verifier"])) == terms_of(parse_terms(["random"])) == ()


def test_flags_name_terms_with_weights():
    assert parse_terms(["verifier"]) == ALONE
    assert parse_terms(["verifier=1", "a=b/c.py:f=0.5"]) == {"verifier": 1, "a=b/c.py:f": 0.5}
    with pytest.raises(UserError, match="names format twice"):
        parse_terms(["format=1", "format=2"])


def test_a_run_learns_from_what_it_is_rewarded_for_and_still_counts_right_answers(tmp_path):
    """Every second response has no reward: it is counted, left out, and moves no other group."""
    body = "return [float(len(r)) if i % 2 else 'none' for i, r in enumerate(responses)]"
    reward = {"verifier": 1.0, place(tmp_path, body, "length"): 0.1}
    folder = train(small(tmp_path / "run", method="grpo", steps=1, eval_every=0, reward=reward))
    last = lines(folder)[-1]
    assert (last["rows"], last["rewards_not_finite"]) == (16, 8)
    assert last["reward"] == pytest.approx(last["reward/verifier"] + last["reward/length"])
    assert last["reward/verifier"] == pytest.approx(last["accuracy"])
    assert last["reward/length"] > 0.1
    record = records.distil(folder)
    assert record["experiment"]["reward"] == {"verifier": 1.0, "length": 0.1}
    assert len(record["code"]["reward/length"]) == 64
    assert record["curves"]["reward/length"] == [pytest.approx(last["reward/length"], rel=1e-5)]
    assert "mine.py" not in json.dumps(record)


def test_a_reward_that_gives_no_number_at_all_ends_the_run(tmp_path, capsys):
    flags = [
        "train",
        "--model",
        str(START / "llama"),
        "--extraction",
        "hash",
        "--max-prompt-tokens",
        "32",
        "--limit",
        "20",
    ]
    reward = ["--reward", place(tmp_path, "return list(responses)")]
    few = ["--prompts-per-step", "2", "--samples", "2", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main([*flags, *reward, *few]) == 2
    assert "no response has a reward (f); mend the function" in capsys.readouterr().err


def test_a_method_that_reads_no_reward_takes_none(tmp_path):
    with pytest.raises(UserError, match="sft learns from demonstrations and reads none"):
        train(small(tmp_path / "run", method="sft", reward={"format": 1.0}))
