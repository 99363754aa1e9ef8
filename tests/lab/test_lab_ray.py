"""Along the ray: closed forms of where each loss stops."""

import math

import pytest

from lco.lab.position import subjects
from lco.lab.ray import alignment, first_stop, ray
from lco.methods import METHODS

SUBJECTS = {s.label: s for s in subjects()}


def logit(p):
    return math.log(p / (1 - p))


def test_kinds_are_found_by_asking_the_loss():
    kinds = {label: s.kind for label, s in SUBJECTS.items()}
    theory = [label for label, s in SUBJECTS.items() if s.objective.target and not METHODS[s.objective.name].variant_of]
    others = {"LCO-KLD top_filled", "LCO-MSE moving", "LCO-LCH moving", "LCO, ρ-target"}
    assert {label for label in theory if kinds[label] != "target"} == others
    assert {
        kinds[label] for label, s in SUBJECTS.items() if METHODS[s.objective.name].variant_of and s.objective.target
    } == {"other target"}
    assert (kinds["PPO"], kinds["GRPO"], kinds["REINFORCE"], kinds["SFT"]) == ("clipped", "clipped", "open", "open")
    regressions = {label for label, kind in kinds.items() if kind == "regression"}
    assert regressions == {"Kimi OPMD", "Kimi, token level", "PMD-mean", "PMD-partition"}
    assert {kinds[label] for label in ("GSPO", "DAPO", "REINFORCE++")} == {"clipped"}
    assert {kinds[label] for label in ("CISPO", "RLOO")} == {"open"}
    assert {s.objective.name for s in SUBJECTS.values()} == set(METHODS)


@pytest.mark.parametrize("label", [label for label, s in SUBJECTS.items() if s.kind == "target"])
@pytest.mark.parametrize("tilt", [0.5, -2.0])
def test_a_loss_with_a_target_stops_there_and_pulls_back_from_beyond(label, tilt):
    found = ray(SUBJECTS[label], 0.3, tilt)
    assert found.stop == pytest.approx(1.0)
    assert found.outcome == "stops exactly"
    assert found.push[0] > 0 > found.push[-1]
    assert found.ahead > 0.9
    assert found.behind[1] > 0.9


@pytest.mark.parametrize(("p", "tilt"), [(0.05, 0.5), (0.3, 0.5), (0.3, -0.5), (0.9, -2.0)])
def test_a_clip_stops_where_the_ratio_leaves_its_interval(p, tilt):
    found = ray(SUBJECTS["PPO"], p, tilt)
    bound = 1.2 if tilt > 0 else 0.8
    assert found.stop == pytest.approx((logit(bound * p) - logit(p)) / tilt, abs=1e-3)
    assert found.ratio == pytest.approx(bound, abs=2e-3)
    assert found.outcome.startswith("stops short")
    assert found.push[-1] == 0


def test_an_upper_clip_never_stops_a_likely_token():
    assert ray(SUBJECTS["PPO"], 0.9, 0.5).stop is None
    assert ray(SUBJECTS["PPO"], 0.8, 2.0).stop is not None  # 1.2 · 0.8 < 1


def test_push_of_the_closed_forms():
    """At s = 0: KLD pushes with |q − p| on e_a − π_old, the policy gradient with 1 − p; centred MSE with |c| ‖P e_a‖."""
    p, c = 0.3, 0.5
    kld, reinforce, mse = (ray(SUBJECTS[label], p, c) for label in ("LCO-KLD full", "REINFORCE", "LCO-MSE centred"))
    q = 1 / (1 + math.exp(-logit(p) - c))
    assert kld.push[0] / reinforce.push[0] == pytest.approx((q - p) / (1 - p))
    assert mse.push[0] == pytest.approx(c * math.sqrt(1 - 1 / 8))
    assert (kld.along, mse.along) == ("e_a − π_old", "e_a − 1/V")


def test_reinforce_turns_away_behind_the_optimum():
    found = ray(SUBJECTS["REINFORCE"], 0.3, 0.5)
    assert found.stop is None
    assert found.ahead > 0 > found.behind[0]


def test_first_stop_finds_a_change_of_sign_between_points():
    from lco.lab.ray import GRID

    push = 0.70031 - GRID
    assert first_stop(push, push.abs()) == pytest.approx(0.701)


def test_alignment_of_convex_losses_is_never_negative_and_reinforce_on_negatives_often_is():
    assert alignment(SUBJECTS["LCO-KLD full"], -1, 200).positive == 1
    assert alignment(SUBJECTS["LCO-MSE centred"], 1, 200).quartiles[0] == pytest.approx(1)
    assert alignment(SUBJECTS["REINFORCE"], -1, 200).positive < 0.8
    assert alignment(SUBJECTS["PPO"], 1, 200).vanishing > 0.1
