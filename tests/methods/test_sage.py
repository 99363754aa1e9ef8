"""SAGE: which pairs are chosen, on margins that are known; and that without a choice it is DPO."""

import math

import pytest
import torch

from lco.errors import UserError
from lco.methods import METHODS
from lco.methods.objective import Candidates
from lco.methods.sage import boundary_of_curvature, choose, in_reach, margins, score

BETA = 0.1


def candidates(m, earlier=None, success=None):
    """Pairs with these margins: the right answers' gains are half of m/β, the wrong ones' minus that."""

    def gains(values):
        half = torch.tensor(values, dtype=torch.float32)[:, None] / BETA / 2
        return torch.cat([half, -half], 1)

    share = torch.tensor(success if success is not None else [0.5] * len(m))
    return Candidates(gains(m), None if earlier is None else gains(earlier), share)


OFF = {"bins": 0, "boundary": 0.0, "noise_share": 0.0, "drop_changed": False, "fraction": 1.0}


def chosen(pairs, **knobs):
    objective = METHODS["sage"].bind({"beta": BETA, **OFF, **knobs})
    return objective.refresh.choose(pairs)


def numbers(choice):
    return choice.chosen.nonzero().flatten().tolist()


def test_newtons_decrement_is_e_to_the_minus_m():
    m = torch.linspace(-8, 8, 33, dtype=torch.float64)
    g, curvature = torch.sigmoid(-m), torch.sigmoid(m) * torch.sigmoid(-m)
    torch.testing.assert_close(g.square() / curvature, (-m).exp())
    torch.testing.assert_close(score(m, 1e-12), (-m).exp(), rtol=1e-6, atol=0)


def test_the_score_falls_with_the_margin_and_is_bounded():
    m = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    found = score(m, 0.05)
    assert (found.diff() < 0).all()
    assert float(found[0]) == pytest.approx(1 / 0.05, rel=1e-6)
    assert float(found[-1]) == pytest.approx(0, abs=1e-15)


def test_the_golden_boundary_of_a_curvature():
    assert boundary_of_curvature(0.24) == pytest.approx(0.405465, abs=1e-6)
    assert boundary_of_curvature(0.2) == pytest.approx(0.962424, abs=1e-6)
    assert boundary_of_curvature(0.25) == 0
    m = boundary_of_curvature(0.24)
    assert 1 / (1 + math.exp(-m)) / (1 + math.exp(m)) == pytest.approx(0.24)


def test_without_filters_every_pair_is_chosen():
    assert chosen(candidates([-3.0, 0.0, 0.001, 2.0])).chosen.all()


def test_the_surest_errors_are_chosen_first_and_ties_by_their_order():
    assert numbers(chosen(candidates([2.0, -1.0, 0.5, -3.0, 1.0]), fraction=0.4)) == [1, 3]
    assert numbers(chosen(candidates([1.0, 1.0, 1.0, 1.0]), fraction=0.5)) == [0, 1]
    assert numbers(chosen(candidates([2.0, 1.0, 3.0]), fraction=0.01)) == [1]  # never none of some


def test_a_swapped_pair_has_the_opposite_margin_and_order_does_not_matter():
    pairs = candidates([0.7, -0.2, 3.0, -1.5])
    torch.testing.assert_close(margins(pairs.gain.flip(1), BETA), -margins(pairs.gain, BETA))
    order = torch.tensor([2, 0, 3, 1])
    moved = Candidates(pairs.gain[order], None, pairs.success[order])
    assert chosen(moved, fraction=0.5).chosen.tolist() == chosen(pairs, fraction=0.5).chosen[order].tolist()


def test_pairs_at_the_boundary_noise_and_changed_signs_are_left_out_and_counted():
    m = [-9.0, -2.0, -0.05, 0.02, 1.0, 2.0, 3.0, -1.0]
    found = chosen(candidates(m), boundary=0.1)
    assert numbers(found) == [0, 1, 4, 5, 6, 7]
    assert found.metrics["pool_at_boundary"] == 2
    assert numbers(chosen(candidates(m), boundary_by="curvature", boundary=0.1, most_curvature=0.24)) == [
        0,
        1,
        4,
        5,
        6,
        7,
    ]
    found = chosen(candidates(m), noise_share=0.1)
    assert 0 not in numbers(found)
    assert found.metrics["pool_noise"] == 1
    found = chosen(candidates(m, earlier=[9.0, -2, -1, 1, -1, 0, 3, -1]), drop_changed=True)
    assert numbers(found) == [1, 2, 3, 5, 6, 7]
    assert found.metrics["pool_changed_sign"] == 2


def test_positive_margins_are_never_noise():
    assert chosen(candidates([0.5, 1.0, 2.0, 3.0]), noise_share=0.4).chosen.all()


def test_bins_that_are_learnt_or_out_of_reach_wait():
    """Easy problems (success 0.9) are all preferred right, hard ones (0.1) all wrong, those between in half of the pairs."""
    m, success = [1.0, 2.0, -1.0, -2.0, 1.0, -1.0], [0.9, 0.9, 0.1, 0.1, 0.5, 0.5]
    found = chosen(candidates(m, success=success), bins=4)
    assert numbers(found) == [4, 5]
    assert found.metrics["pool_out_of_reach"] == 4
    assert found.metrics["pool_widened"] == 0
    assert not found.notes


def test_a_range_without_a_bin_is_widened_and_said():
    found = chosen(candidates([1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), bins=1)  # competence 0.9
    assert found.chosen.all()
    assert found.metrics["pool_widened"] == 1
    assert found.notes == ("no bin's competence lay in the range, which was widened by 0.1 at both ends",)
    hyper = {"bins": 2, "least_competence": 0.5, "most_competence": 0.5}
    pool, steps = in_reach(torch.tensor([1.0, -1.0]), torch.tensor([0.2, 0.8]), hyper)
    assert pool.all()
    assert steps == 5


@pytest.mark.parametrize("boundary_by", ["std", "curvature"])
def test_pairs_that_all_sit_at_the_boundary_all_count_and_one_sentence_says_so(boundary_by):
    found = chosen(candidates([0.0] * 4), boundary_by=boundary_by, boundary=0.1)
    assert found.chosen.all()
    assert found.metrics["pool_unfiltered"] == 1
    assert found.metrics["pool_at_boundary"] == 4
    assert found.notes == ("none of 4 pairs is stable (4 at the boundary), so all of them count",)


def test_a_range_that_holds_no_bin_is_refused():
    with pytest.raises(UserError, match=r"sage: least_competence is 0\.9, above most_competence 0\.8"):
        METHODS["sage"].bind({"least_competence": 0.9})


def test_the_knobs_of_the_paper_are_marked_as_a_reconstruction():
    assert METHODS["sage"].certainty == "reconstruction"
    assert choose(candidates([1.0, -1.0, 2.0, -2.0]), METHODS["sage"].bind().hyper | OFF | {"beta": BETA}).chosen.all()
