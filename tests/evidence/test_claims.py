"""Verdicts are computed: each turns round with its records, and nothing measured supports nothing."""

import json

import pytest

from lco.cli import main
from lco.errors import UserError
from lco.evidence import records
from lco.evidence.claims import judge, read_claims
from lco.evidence.records import sealed
from tests.evidence.made import record, write
from tests.reproduce.test_family import ROOT

CLAIMS = """
[[claim]]
id = "a"
words = "GRPO ends above PPO."
said = "somewhere"
test = "{test}"
results = "records"
methods = ["grpo"]
than = ["ppo"]
lr = 0.1
updates = 8
supports = "above"
refutes = "below"
"""


def verdict(tmp_path, test, results='"records"'):
    text = CLAIMS.format(test=test).replace('results = "records"', f"results = {results}")
    (tmp_path / "claims.toml").write_text(text)
    (claim,) = read_claims(tmp_path / "claims.toml")
    return judge(claim, tmp_path)


LABORATORY = """
[[claim]]
id = "lab"
words = "LCO is convex."
said = "a paper"
test = "measured_in_the_laboratory"
results = "lab"
methods = ["lco_kld"]
experiments = ["convexity"]
paper = "a paper"
supports = "all"
refutes = "none"
"""


def laboratory(tmp_path, *supported):
    """A record of the laboratory with so many claims of the paper, and two more that are not asked for."""
    said = [("convexity", "a paper", held) for held in supported]
    said += [("bandit", "a paper", False), ("convexity", "this suite", False)]
    verdicts = [
        {"experiment": experiment, "claim": f"claim {i}.", "said": where, "supported": held, "number": f"{i} of 9"}
        for i, (experiment, where, held) in enumerate(said)
    ]
    (tmp_path / "lab").mkdir(exist_ok=True)
    (tmp_path / "lab" / "verdicts.json").write_text(json.dumps(sealed({"lab": verdicts, "provenance": {}})))
    (tmp_path / "claims.toml").write_text(LABORATORY)
    (claim,) = read_claims(tmp_path / "claims.toml")
    return claim


@pytest.mark.parametrize(
    ("supported", "word"),
    [((True, True), "supported"), ((True, False), "mixed"), ((False, False), "contradicted"), ((), "not tested")],
)
def test_what_the_laboratory_measured_decides_a_claim(tmp_path, supported, word):
    found = judge(laboratory(tmp_path, *supported), tmp_path)
    assert found.word == word
    assert [effect.found for effect in found.effects] == [f"{i} of 9" for i in range(len(supported))]


def test_a_record_of_the_laboratory_that_was_edited_is_refused(tmp_path):
    claim = laboratory(tmp_path, False)
    file = tmp_path / "lab" / "verdicts.json"
    file.write_text(file.read_text().replace('"supported": false', '"supported": true', 1))
    with pytest.raises(UserError, match="does not give its own hash"):
        judge(claim, tmp_path)


@pytest.mark.parametrize(
    ("test", "grpo", "ppo", "word"),
    [
        ("above", 7, 3, "supported"),
        ("above", 3, 7, "contradicted"),
        ("above", 5, 5, "mixed"),
        ("level", 5, 5, "supported"),
        ("level", 7, 3, "contradicted"),
        ("keeps_pass_at_k", 7, 3, "supported"),
        ("keeps_pass_at_k", 2, 3, "mixed"),
        ("keeps_pass_at_k", 0, 3, "contradicted"),
    ],
)
def test_a_verdict_turns_round_with_its_records(tmp_path, test, grpo, ppo, word):
    write(
        tmp_path / "records",
        ("start", None, 2),
        *((m, seed, n) for m, n in (("grpo", grpo), ("ppo", ppo)) for seed in (0, 1)),
    )
    found = verdict(tmp_path, test)
    assert found.word == word, found
    assert found.records >= 3
    assert all(effect.found for effect in found.effects)


def dealt(folder, *runs):
    """Records of GRPO under random rewards: (seed, right samples of eight)."""
    for seed, right in runs:
        control = {**record("grpo", seed, right), "experiment": {"reward": {"random": 1.0}}}
        records.write(folder / "grpo-random" / f"{seed}.json", control)


@pytest.mark.parametrize(
    ("verifier", "random", "word"),
    [(7, 2, "supported"), (7, 1, "supported"), (7, 6, "contradicted"), (2, 2, "mixed"), (2, 6, "contradicted")],
)
def test_a_gain_under_random_rewards_speaks_against_one_from_the_rewards(tmp_path, verifier, random, word):
    seeds = (0, 1)
    write(tmp_path / "records", ("start", None, 2), *(("grpo", seed, verifier) for seed in seeds))
    assert verdict(tmp_path, "gains_are_the_rewards").word == "not tested"
    dealt(tmp_path / "records", *((seed, random) for seed in seeds))
    found = verdict(tmp_path, "gains_are_the_rewards")
    assert (found.word, found.records) == (word, 5)


def test_a_claim_may_be_about_records_of_several_folders(tmp_path):
    write(tmp_path / "controls", *(("ppo", seed, 3) for seed in (0, 1)))
    both = '["controls", "records"]'
    assert verdict(tmp_path, "above", both).word == "not tested"
    write(tmp_path / "records", *(("grpo", seed, 7) for seed in (0, 1)))
    found = verdict(tmp_path, "above", both)
    assert (found.word, found.records) == ("supported", 4)


@pytest.mark.parametrize(
    ("subject", "other", "word"),
    [
        ([0, 0], [1, 1], "supported"),
        ([1, 1], [0, 0], "contradicted"),
        ([0, 1], [1, 1], "mixed"),
        ([], [], "not tested"),
    ],
)
def test_stability_is_counted_over_seeds(tmp_path, subject, other, word):
    (tmp_path / "records").mkdir()
    for method, fallen in (("grpo", subject), ("ppo", other)):
        for seed, fell in enumerate(fallen):
            path = [0.3, 0.6, 0.1 if fell else 0.7]
            cell = {"lr": 0.1, "updates_per_rollout": 8, "method": method, "curves": {"validation": {"pass@1": path}}}
            (tmp_path / "records" / f"{method}-{seed}.json").write_text(json.dumps(cell))
    assert verdict(tmp_path, "stands_where_others_fall").word == word


KNOB = """
[[claim]]
id = "knob"
words = "A larger knob ends above."
said = "somewhere"
test = "ends_above_by_a_knob"
results = "records"
methods = ["grpo"]
knob = "k"
value = 2.0
other = 1.0
supports = "above"
refutes = "below"
"""


@pytest.mark.parametrize(
    ("gaps", "word"),
    [
        ({1: [0.1, 0.2], 3: [0.1, 0.3]}, "supported"),
        ({1: [-0.1, -0.2], 3: [-0.1, -0.3]}, "contradicted"),
        ({1: [0.1, 0.2], 3: [0.1, -0.1]}, "mixed"),
        ({1: [0.1]}, "mixed"),  # one seed tells nothing
        ({}, "not tested"),
    ],
)
def test_two_values_of_a_knob_are_held_against_each_other_all_else_equal(tmp_path, gaps, word):
    """By the same seed and the same other knob, whose own effect is larger; other methods and values do not count."""
    (tmp_path / "records").mkdir()
    cells = [
        (method, {"k": value, "beta": beta}, seed, 0.2 * beta + (gap if value == 2.0 else 0.0))
        for beta, of_seeds in gaps.items()
        for seed, gap in enumerate(of_seeds)
        for method in ("grpo", "ppo")
        for value in (1.0, 2.0, 5.0)
        if (method, value) != ("ppo", 2.0)
    ]
    for number, (method, hyper, seed, end) in enumerate(cells):
        cell = {"method": method, "hyper": hyper, "seed": seed, "curves": {"validation": {"pass@1": [0.3, end]}}}
        (tmp_path / "records" / f"{number}.json").write_text(json.dumps(cell))
    (tmp_path / "claims.toml").write_text(KNOB)
    (claim,) = read_claims(tmp_path / "claims.toml")
    found = judge(claim, tmp_path)
    assert found.word == word
    assert found.records == 2 * sum(map(len, gaps.values()))
    assert len(found.effects) == len(gaps)


def test_without_records_nothing_is_judged(tmp_path):
    assert verdict(tmp_path, "above").word == "not tested"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[claim", "is not TOML"),
        ('[[claim]]\nid = "a"', "claim 'a' has no 'words'"),
        (CLAIMS.format(test="abov"), "claim 'a' has no test 'abov'; did you mean 'above'"),
        (CLAIMS.format(test="untested"), "claim 'a' has no 'takes'"),
        (CLAIMS.format(test="above").replace("supports", "support"), "claim 'a' has no 'supports'"),
    ],
)
def test_claims_that_cannot_be_judged_are_refused_by_name(tmp_path, text, words):
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        read_claims(tmp_path / "claims.toml")
    with pytest.raises(UserError, match="cannot read the claims"):
        read_claims(tmp_path / "absent.toml")


def test_the_committed_verdicts_are_what_the_committed_records_give(tmp_path, capsys):
    out = tmp_path / "claims.md"
    assert main(["claims", "--results", str(ROOT / "results"), "--out", str(out)]) == 0
    assert out.read_text() == (ROOT / "results" / "claims.md").read_text()
    assert "CONTRADICTED  above-grpo" in capsys.readouterr().out
