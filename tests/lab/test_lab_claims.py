"""The table of claims: each verdict follows from the measurements, turns round with them, and is about what it says."""

import dataclasses
import re

import pytest

from lco.lab.claims import CLAIMS, PAPER, judged
from lco.lab.laboratory import measure
from lco.lab.position import subjects

LABELS = (
    "SFT",
    "LCO-KLD full",
    "LCO-MSE centred",
    "LCO-MSE token_logprob",
    "LCO-LCH centred",
    "PPO",
    "DAPO",
    "REINFORCE",
)


@pytest.fixture(scope="module")
def found():
    known = {subject.label: subject for subject in subjects()}
    return measure([known[label] for label in LABELS], steps=150)


def verdicts(found):
    return {claim.words: finding for claim, finding in judged(found)}


def about(found, start):
    """The one finding whose claim begins so."""
    (words,) = [words for words in verdicts(found) if words.startswith(start)]
    return verdicts(found)[words]


def disguised(found, kinds):
    """The same measurements of losses that are told to be of another kind."""

    def other(items):
        return tuple(dataclasses.replace(item, kind=kinds.get(item.label, item.kind)) for item in items)

    names = ("curvatures", "rays", "alignments", "courses", "negatives")
    return dataclasses.replace(found, **{name: other(getattr(found, name)) for name in names})


def renamed(found, **methods):
    """The same measurements under other methods' names: who is one of the paper's three is changed, no number is."""
    return dataclasses.replace(
        found, methods=tuple((label, methods.get(name, name), kind) for label, name, kind in found.methods)
    )


def test_every_claim_says_where_it_is_from_and_what_would_refute_it():
    assert len({claim.words for claim in CLAIMS}) == len(CLAIMS) == 24
    assert sum(claim.said == PAPER for claim in CLAIMS) == 7
    for claim in CLAIMS:
        assert claim.words.endswith(".")
        assert claim.supports
        assert claim.refutes
        assert claim.supports != claim.refutes


def test_the_papers_claims_are_about_its_three_losses(found):
    """A variant of the suite that is not convex is shown, and counts for nothing."""
    convex = about(found, "The paper's three losses")
    assert convex.supported
    assert convex.number == "smallest eigenvalue 0 within 1e-07, midpoint broken on 0 of 1800 segments"
    assert len(convex.cases) == 6
    assert not any("token_logprob" in case for case in convex.cases)
    assert [case.startswith("not so: LCO-MSE token_logprob") for case in convex.apart] == [True, True]
    shrinks = about(found, "The norm of LCO's gradient shrinks")
    assert shrinks.supported
    assert any("token_logprob" in case for case in shrinks.apart)
    # One of the three that is not convex refutes it: the same numbers under another name.
    swapped = dataclasses.replace(
        found, methods=tuple(sorted(found.methods, key=lambda m: "token_logprob" not in m[0]))
    )
    broken = about(swapped, "The paper's three losses")
    assert not broken.supported
    assert "not so for LCO-MSE token_logprob" in broken.number


def test_verdicts_turn_round_with_what_they_judge(found):
    """The claims about convexity and rays, of a loss without target in the place of one with: a verdict that cannot fail
    says nothing."""
    three = (
        "The paper's three",
        "On the ray",
        "At random positions",
        "With advantages",
        "From one negative",
        "While the target",
    )
    honest = {start: about(found, start).supported for start in three}
    assert honest == dict.fromkeys(three, True) | {"With advantages": False}
    instead = renamed(found, reinforce="lco_kld", lco_kld="reinforce")
    assert not any(about(instead, start).supported for start in three)
    assert about(found, "PPO's clipped surrogate").supported
    assert not about(renamed(found, ppo="x", lco_kld="ppo"), "PPO's clipped surrogate").supported
    assert not about(found, "The clipped surrogate's gradient does not point").supported


def test_verdicts_about_a_kind_turn_round_with_the_kind(found):
    open_losses = (
        "A loss without target or clip pushes on",
        "A loss without target or clip never rests",
        "Without clip or target",
    )
    for start in open_losses:
        assert about(disguised(found, {"SFT": "x"}), start).supported, start
        assert not about(disguised(found, {"LCO-KLD full": "open"}), start).supported, start
    for start in (
        "A clipped surrogate stops where",
        "A clipped surrogate rests on its",
        "A clipped surrogate rests on a",
    ):
        assert about(found, start).supported, start
        assert not about(disguised(found, {"LCO-KLD full": "clipped"}), start).supported, start
    assert about(found, "Where p (1 + ε) > 1").supported
    assert about(found, "On rewards that are all negative").supported
    assert not about(disguised(found, {"LCO-KLD full": "open"}), "On rewards that are all negative").supported


def test_what_the_bandit_says_of_the_optimum(found):
    """Raw logits have it as their fixed point; then the claims that the centred form contradicts are supported."""
    raw = {subject.label: subject for subject in subjects()}["LCO-MSE raw"]
    measured = measure([raw, *(s for s in subjects() if s.label == "PPO")], steps=150)
    measured = dataclasses.replace(measured, entropies=(2.0, 0.1))
    for start in ("With advantages", "At β = 2", "A target cut to"):
        assert about(measured, start).supported, start
        assert not about(found, start).supported, start


def test_nothing_measured_supports_nothing(found):
    empty = dataclasses.replace(
        found, methods=(), curvatures=(), rays=(), alignments=(), courses=(), negatives=(), entropies=(1.0, 1.0)
    )
    assert not any(finding.supported for finding in verdicts(empty).values())


def test_every_verdict_has_its_number(found):
    for words, finding in verdicts(found).items():
        assert re.search(r"\d", finding.number), words
        assert "nan" not in finding.number
        if not finding.supported and finding.cases and not words.startswith(("A target cut", "The clipped")):
            assert "not so for" in finding.number, words
            assert finding.cases[0].startswith("not so: "), words
