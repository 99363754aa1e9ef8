"""DPPO's divergences, masks and weights: golden values, invariants, limits, and a float64 brute force over the vocabulary."""

import dataclasses
import itertools
import math

import pytest
import torch

from lco.errors import UserError
from lco.losses import token_scale
from lco.methods import METHODS
from lco.methods.divergence import KL, TOP, TV, measure
from lco.methods.invariants import Setting, V, rollout
from tests.methods.oracles import divergence_of_cells, dppo
from tests.methods.test_generic import gradient_of

DIVERGENCES = (*TV, *KL)
VARIANTS = ("dppo", "dppo_recompute", "dppo_verl")


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def record(mu, pi, tokens, k):
    """Statistics of positions [N] from whole distributions [N, V], with μ's k likeliest tokens."""
    at = tokens[:, None]
    s = {"logprob": pi.log().gather(1, at)[:, 0], "sampler_logprob": mu.log().gather(1, at)[:, 0], "token": tokens}
    top = mu.topk(k, 1).indices
    return {
        **s,
        f"sampler_top/{k}": top,
        f"sampler_logprob_at_top/{k}": mu.log().gather(1, top),
        f"logprob_at_sampler_top/{k}": pi.log().gather(1, top),
    }


def whole(mu, pi, kind):
    """The divergence of the whole distributions [N, V]."""
    return (mu - pi).abs().sum(1) / 2 if kind in TV else (mu * (mu.log() - pi.log())).sum(1)


def distributions(count=200, size=9, spread=2.0):
    g = torch.Generator().manual_seed(3)
    z = spread * torch.randn(2, count, size, generator=g, dtype=torch.float64)
    return z[0].softmax(1), (z[0] + 0.5 * z[1]).softmax(1), torch.randint(size, (count,), generator=g)


# --- divergences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "k", "value"),
    [
        ("binary_tv", 2, 0.1),
        ("binary_kl", 2, 0.050734),
        ("top_tv", 2, 0.15),
        ("top_kl", 2, 0.068185),
        ("top_tv", 4, 0.15),
    ],
)
def test_divergences_have_their_golden_values(kind, k, value):
    mu, pi = double(0.5, 0.3, 0.15, 0.05)[None], double(0.4, 0.25, 0.2, 0.15)[None]
    found = measure(record(mu, pi, torch.tensor([3]), k), {"divergence": kind, "top": k})
    assert float(found) == pytest.approx(value, abs=1e-6)


def test_binary_divergences_of_three_tokens_have_their_golden_values():
    s = {"sampler_logprob": double(0.5, 0.2, 0.9).log(), "logprob": double(0.6, 0.15, 0.95).log()}
    assert measure(s, {"divergence": "binary_tv"}).tolist() == pytest.approx([0.1, 0.05, 0.05], abs=1e-6)
    assert measure(s, {"divergence": "binary_kl"}).tolist() == pytest.approx([0.020411, 0.009037, 0.020654], abs=1e-6)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("k", [1, 4, 9])
def test_divergences_are_those_of_the_cells_written_out(kind, k):
    mu, pi, tokens = distributions()
    found = measure(record(mu, pi, tokens, k), {"divergence": kind, "top": k})
    expected = [float(divergence_of_cells(mu[i], pi[i], tokens[i], kind, k)) for i in range(len(tokens))]
    assert found.tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("of", [TV, KL])
def test_finer_cells_never_lower_a_divergence_and_the_whole_vocabulary_is_exact(of):
    mu, pi, tokens = distributions()
    binary, top = of
    found = [measure(record(mu, pi, tokens, 1), {"divergence": binary, "top": 1})]
    found += [measure(record(mu, pi, tokens, k), {"divergence": top, "top": k}) for k in (1, 3, 6, 9)]
    for coarse, fine in itertools.pairwise(found):
        assert (coarse <= fine + 1e-7).all()
    torch.testing.assert_close(found[-1], whole(mu, pi, top), rtol=1e-6, atol=1e-9)
    assert (found[0] < found[-1] - 1e-3).any()


def test_with_two_tokens_all_of_a_kind_are_equal():
    mu, pi, tokens = distributions(size=2)
    for of in (TV, KL):
        values = [
            measure(record(mu, pi, tokens, k), {"divergence": kind, "top": k})
            for kind, k in zip(of, (1, 1), strict=True)
        ]
        for value in values:
            torch.testing.assert_close(value, whole(mu, pi, of[0]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_an_unmoved_or_padded_token_has_no_divergence_and_a_certain_one_a_finite_one(kind):
    mu, _, tokens = distributions()
    same = {name: x.float() if x.is_floating_point() else x for name, x in record(mu, mu, tokens, 3).items()}
    assert measure(same, {"divergence": kind, "top": 3}).abs().max() == 0
    pads = {name: torch.zeros_like(x) for name, x in same.items()}
    assert measure(pads, {"divergence": kind, "top": 3}).abs().max() == 0
    sure = {"logprob": torch.zeros(1), "sampler_logprob": torch.tensor([0.5]).log(), "token": torch.zeros(1).long()}
    sure |= {"sampler_top/1": torch.zeros(1, 1).long(), "sampler_logprob_at_top/1": torch.tensor([[0.5]]).log()}
    found = measure({**sure, "logprob_at_sampler_top/1": torch.zeros(1, 1)}, {"divergence": kind, "top": 1})
    assert torch.isfinite(found).all()
    assert found > 0.4


def test_half_the_mean_distance_of_the_ratio_from_one_is_the_total_variation():
    """D_TV = ½ E_μ |r − 1|: the whole vocabulary's, while the sampled token alone says less."""
    mu, pi, _ = distributions()
    expected = (mu * (pi / mu - 1).abs()).sum(1) / 2
    torch.testing.assert_close(whole(mu, pi, "top_tv"), expected)


# --- mask and weight -------------------------------------------------------------------------------------------------

R = double(0.3, 0.6, 0.9, 1.0, 1.1, 1.4, 3.0)
MU = 0.3


def weight(name, a, **hyper):
    """ω of tokens with μ = .3 and the ratios R."""
    s = {"logprob": (MU * R).log().requires_grad_()}
    s |= dict.fromkeys(("sampler_logprob", "old_logprob"), torch.full_like(R, math.log(MU)))
    loss = METHODS[name].bind(hyper).loss(s, {"advantage": torch.full_like(R, a)})
    return -torch.autograd.grad(loss.sum(), s["logprob"])[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_only_moves_away_that_are_too_far_are_masked(name):
    """δ = .15 of mass: at μ = .3 above 1.5 and below .5 times it."""
    torch.testing.assert_close(weight(name, 2.0), torch.where(R > 1.5, 0.0, 2 * R))
    torch.testing.assert_close(weight(name, -2.0), torch.where(R < 0.5, 0.0, -2 * R))


def test_a_threshold_of_zero_leaves_only_moves_towards_the_sampler():
    torch.testing.assert_close(weight("dppo", 1.0, delta=0.0), torch.where(R > 1, 0.0, R))
    torch.testing.assert_close(weight("dppo", -1.0, delta=0.0), torch.where(R < 1, 0.0, -R))


def test_without_threshold_and_cap_it_is_the_importance_weighted_gradient():
    torch.testing.assert_close(weight("dppo", 0.7, delta=1.0, cap=0), 0.7 * R)


def test_without_threshold_the_cap_makes_it_cispo_without_a_lower_bound():
    torch.testing.assert_close(weight("dppo", -0.7, delta=1.0, cap=1.2), -0.7 * R.clamp(max=1.2))
    z_old, z_new, tokens, signal = rollout()
    signal = dataclasses.replace(signal, mask=signal.mask[:, :5])
    free = gradient_of("dppo", {"delta": 1.0, "cap": 1.1}, z_old, z_new, tokens, signal)
    hyper, unscaled = (
        {"clip_low": 1.0, "clip_high": 0.1, "ddof": 0},
        METHODS["dppo"].bind().advantage(signal)["advantage"],
    )
    other = gradient_of("cispo", hyper, z_old, z_new, tokens, signal)
    scaled = METHODS["cispo"].bind(hyper).advantage(signal)["advantage"]
    scale = token_scale(signal.mask, "seq_mean_token_sum_const", limit=signal.length_limit) * signal.mask.sum()
    factor = torch.where(scaled != 0, unscaled / scaled * scale, 0.0)
    torch.testing.assert_close(free, other * factor[..., None], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", VARIANTS)
def test_on_the_first_update_nothing_is_masked(name):
    z_old, _, tokens, signal = rollout()
    on_policy = gradient_of(name, {"delta": 0.0, "cap": 0}, None, z_old, tokens, signal)
    a = METHODS[name].bind().advantage(signal)["advantage"]
    onehot = torch.nn.functional.one_hot(tokens, V)
    scale = token_scale(signal.mask, "seq_mean_token_sum_const", limit=signal.length_limit)
    torch.testing.assert_close(on_policy, -(a * scale)[..., None] * (onehot - z_old.softmax(-1)), rtol=1e-6, atol=1e-9)


def test_the_variants_differ_in_what_mask_and_weight_compare_with():
    logprob = double(0.5).log()
    s = {"sampler_logprob": double(0.2).log(), "old_logprob": double(0.45).log()}
    found = {}
    for name in VARIANTS:
        leaf = logprob.clone().requires_grad_()
        loss = METHODS[name].bind().loss({**s, "logprob": leaf}, {"advantage": double(1.0)})
        found[name] = -float(torch.autograd.grad(loss.sum(), leaf)[0])
    # From the sampler the token has moved by .3, from the recomputed policy by .05.
    assert found == pytest.approx({"dppo": 0.0, "dppo_recompute": 2.5, "dppo_verl": 0.5 / 0.45})
    assert [METHODS[name].bind().needs.sampler_logprob for name in VARIANTS] == [True, True, False]
    assert [METHODS[name].bind().old.statistics for name in VARIANTS] == [(), ("old_logprob",), ("old_logprob",)]


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("k", [2, 20])
def test_loss_and_gradient_equal_a_brute_force_over_the_vocabulary(kind, k):
    """Float64, with masks, weights and cells written out; K = 2 leaves a rest, K = 20 is more than there are."""
    delta, cap = 0.01, 1.05
    z_old, z_new, tokens, signal = rollout()
    hyper = {"divergence": kind, "cap": cap, "delta" if kind in TV else "delta_kl": delta}
    if kind in TOP:
        hyper["top"] = k
    found = gradient_of("dppo", hyper, z_old, z_new, tokens, signal)
    expected = dppo(Setting(z_old, z_new, tokens, signal), kind, k, delta, cap)
    assert 0 < expected.stopped < int(signal.mask.sum())
    torch.testing.assert_close(found, expected.gradient, rtol=1e-6, atol=1e-9)


def test_what_is_logged_of_masks_and_divergences():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    mu = double([0.3, 0.3, 0.3], [0.3, 0.3, 0.3])
    pi = double([0.9, 0.1, 0.31], [0.6, 0.05, 0.9])
    advantage = double([1, 1, 1], [-1, -1, -1])
    x = {"advantage": advantage, "sampler_logprob": mu.log()}
    found = METHODS["dppo"].bind({"cap": 2.5}).metrics({"logprob": pi.log()}, x, mask)
    assert found == pytest.approx({
        "masked_positive": 1 / 5, "masked_negative": 1 / 5, "weight_capped": 1 / 5,
        "divergence_mean": (0.6 + 0.2 + 0.01 + 0.3 + 0.25) / 5, "divergence_max": 0.6,
    })  # fmt: skip


def test_a_divergence_over_recorded_tokens_with_another_anchor_is_refused():
    with pytest.raises(
        UserError, match="divergence=top_tv reads the likeliest tokens that the sampler recorded; give mask_anchor"
    ):
        METHODS["dppo_verl"].bind({"divergence": "top_tv"})
    with pytest.raises(UserError, match="top is 5, which only divergence=top_tv or top_kl reads"):
        METHODS["dppo"].bind({"top": 5})


@pytest.mark.parametrize("name", [*VARIANTS, "cppo", "cppo_unirl"])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_what_a_method_asks_of_the_sampler_is_what_it_reads(name, kind):
    if kind in TOP and name in ("dppo_recompute", "dppo_verl"):
        return
    found = METHODS[name].bind({"divergence": kind})
    read = [s for s in found.statistics if s.startswith("sampler_")]
    assert found.needs.sampler_logprob == bool(read)
    assert (f"sampler_top/{found.needs.sampler_top}" in read) == (kind in TOP) == bool(found.needs.sampler_top)
