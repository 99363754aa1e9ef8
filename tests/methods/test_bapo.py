"""BAPO: the golden values, the exact search against a loop, the invariants and limits, and what a run says of it."""

import math

import pytest
import torch

from lco.errors import UserError
from lco.methods import METHODS
from lco.methods.bapo import choose_bounds, search_bounds
from lco.methods.invariants import rollout
from tests.conftest import lines, small, train
from tests.methods.oracles import bapo_loop
from tests.methods.test_generic import gradient_of


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


A, R, MU = double(1, 1, -1, -1), double(1.48, 0.9, 0.7, 1.1), double(0.2, 0.5, 0.3, 0.6)


def knobs(name="bapo", **hyper):
    return METHODS[name].read_values(hyper)[0]


@pytest.mark.parametrize(
    ("name", "hyper", "low", "high", "share"),
    [
        ("bapo", {"share_measure": "value", "target": 0.4}, 0.6, 1.2, 0.442308),
        ("bapo", {"share_measure": "value", "share_norm": "abs_sum", "target": 3.8}, 0.6, 1.2, 3.833333),
        ("bapo", {"target": 0.3}, 0.6, 1.2, 0.340909),
        ("bapo", {"share_norm": "abs_sum", "target": 1.0}, 0.6, 1.2, 1.071429),
        ("bapo", {"target": 0.4}, 0.6, 1.5, 0.461634),
        ("bapo", {"target": 0.6, "share_measure": "value"}, 0.9, 3.0, 0.445107),
        ("bapo", {"target": 0.6}, 0.9, 3.0, 0.530583),
        ("bapo_code", {"target": 1.0}, 0.8, 1.2, 1.105263),
        ("bapo_code", {"target": 1.2}, 0.95, 2.0, 1.160976),
    ],
)
def test_bounds_and_shares_have_their_golden_values(name, hyper, low, high, share):
    found = search_bounds(R, A, MU, knobs(name, **hyper))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.share == pytest.approx(share, abs=1e-6)


CASES = [
    ("bapo", {"share_norm": norm, "share_measure": measure, "mu_weight": mu, "target": target})
    for norm in ("sum_abs", "abs_sum", "pos_neg")
    for measure in ("value", "gradient")
    for mu in (True, False)
    for target in (0.3, 0.5, 1.2)
] + [
    ("bapo_code", {"target": target, "high_end": end, "low_step": step})
    for target in (0.5, 1.3)
    for end in (2.0, 2.05)
    for step in (0.05, 0.04)
]


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_the_search_by_sorting_is_the_loops(name, hyper):
    hyper = knobs(name, **hyper)
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        count = int(torch.randint(1, 40, (1,), generator=g))
        r = (0.5 * torch.randn(count, generator=g, dtype=torch.float64)).exp()
        advantages = torch.randn(count, generator=g, dtype=torch.float64).round(decimals=1)
        mu = torch.rand(count, generator=g, dtype=torch.float64)
        low, high, start, share, steps = bapo_loop(r, advantages, mu, hyper)
        found = search_bounds(r, advantages, mu, hyper)
        assert found.steps == steps
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
        assert (found.start, found.share) == pytest.approx((start, share), rel=1e-9, abs=1e-12)


def test_a_range_ends_where_it_says_in_floats_too():
    """Fifteen steps of .02 from .6 are a little more than .9: a strict comparison would stop at .88."""
    found = search_bounds(R, -A.abs(), MU, knobs())
    assert (found.low, found.high, found.steps) == (pytest.approx(0.9), pytest.approx(3.0), 15 + 36)


def test_without_room_below_nothing_is_searched():
    found = search_bounds(R, A, MU, knobs(target=0.99, low_end=0.6))
    assert (found.low, found.high, found.steps) == (0.6, 1.2, 0)


def test_a_share_moves_with_its_bounds_as_it_has_to():
    """Never down with c_high; with c_low never up where clipped tokens count, never down where they do not."""
    g = torch.Generator().manual_seed(3)
    r, advantages = torch.randn(50, generator=g).double().exp(), torch.randn(50, generator=g).double()
    mu = torch.rand(50, generator=g).double()

    def share(measure, low, high):
        ends = {"low_start": low, "low_end": low, "high_start": high, "high_end": high}
        return search_bounds(r, advantages, mu, knobs(share_measure=measure, **ends)).share

    for measure in ("value", "gradient"):
        found = [share(measure, 0.6, 1 + 0.1 * i) for i in range(30)]
        assert found == sorted(found)
        assert found[0] < found[-1]
        found = [share(measure, 0.03 * i, 1.2) for i in range(34)]
        assert found == sorted(found, reverse=measure == "value")
        assert found[0] != found[-1]


def test_ranges_of_one_point_are_ppos_clip_and_no_target_keeps_the_start():
    z_old, z_new, tokens, signal = rollout()
    ends = {"low_start": 0.8, "low_end": 0.8, "high_start": 1.2, "high_end": 1.2}
    found = gradient_of("bapo", {**ends, "target": 0.99}, z_old, z_new, tokens, signal)
    expected = gradient_of("dapo", {"clip_high": 0.2, "dynamic_sampling": False}, z_old, z_new, tokens, signal)
    torch.testing.assert_close(found, expected)
    started = search_bounds(R, A, MU, knobs(target=0))
    assert (started.low, started.high, started.steps) == (0.6, 1.2, 0)


@pytest.mark.parametrize("name", ["bapo", "bapo_code"])
@pytest.mark.parametrize(
    ("advantages", "share", "notes"),
    [
        (A.abs(), 1.0, {"minibatches_without_negative"}),
        (A * 0, 1.0, {"minibatches_without_negative", "minibatches_without_positive"}),
        (-A.abs(), 0.0, {"minibatches_without_positive"}),
        (A[:0], 1.0, {"minibatches_without_negative", "minibatches_without_positive"}),
    ],
)
def test_minibatches_of_one_sign_or_of_no_token_have_the_bounds_that_the_edges_say(name, advantages, share, notes):
    hyper, n = knobs(name), len(advantages)
    s = {"logprob": (R * MU).log()[None, :n], "old_logprob": MU.log()[None, :n]}
    mask = torch.ones(1, n, dtype=torch.bool)
    found = choose_bounds(s, {"advantage": advantages[None]}, mask, hyper)
    ends = ("low_end", "high_end") if share == 0 else ("low_start", "high_start")
    chosen = (found.numbers["clip_low_chosen"], found.numbers["clip_high_chosen"])
    assert chosen == pytest.approx(tuple(hyper[end] for end in ends))
    assert set(found.notes) == notes
    counted = share if name == "bapo" or share == 0 or not bool((advantages > 0).any()) else math.inf
    assert found.numbers["share_chosen"] == counted


def test_padding_has_no_share():
    mask = torch.tensor([[True, True, False]])
    s = {"logprob": torch.tensor([[-1.0, -0.5, math.nan]]), "old_logprob": torch.tensor([[-1.2, -0.6, math.inf]])}
    found = choose_bounds(s, {"advantage": torch.tensor([[1.0, -1.0, 9.0]])}, mask, knobs())
    assert math.isfinite(found.numbers["share_chosen"])
    assert found.inputs["clip_low"][0, 2] == 0


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"low_end": 0.5}, r"low_end is 0\.5, below low_start 0\.6"),
        ({"high_end": 1.1}, r"high_end is 1\.1, below high_start 1\.2"),
        ({"high_step": 1e-9}, "high_step is 1e-09, more than 100000 of which"),
        ({"dual_clip": 0.5}, "below the ratio of the old policy itself"),
    ],
)
def test_ranges_that_cannot_be_searched_are_refused(hyper, words):
    with pytest.raises(UserError, match=words):
        METHODS["bapo"].bind(hyper)


def test_a_run_logs_its_bounds_its_shares_and_its_steps(tmp_path):
    """The first update's ratios are 1, so only counts decide; the bounds are the whole minibatch's, however it is cut."""
    runs = [
        lines(train(small(tmp_path / str(size), method="bapo", hyper={"target": 0.7}, steps=2, eval_every=0, micro_batch=size)))
        for size in (3, 16)
    ]  # fmt: skip
    names = ("clip_low_chosen", "clip_high_chosen", "search_steps")
    for one, other in zip(*runs, strict=True):
        assert [one[name] for name in names] == [other[name] for name in names]
        assert 0.6 <= one["clip_low_chosen"] <= 0.9
        assert 1.2 <= one["clip_high_chosen"] <= 3.0
        assert 0 <= one["share_at_start"] <= one["share_chosen"] <= 1
    assert any(line["search_steps"] > 0 for line in runs[0])
