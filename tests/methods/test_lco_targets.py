"""LCO's other targets and losses: dense advantages, the unbiased sparse one, top-k support, the released code's presets."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss, token_statistics
from lco.heads.mixture import sparse_target
from lco.methods import METHODS
from lco.methods.invariants import rollout
from lco.methods.lco_common import OTHER_ADVANTAGES, SIGN
from lco.targets import LogProbabilityTilt, PreferenceRatioTilt, UnbiasedSparseTilt

N, V = 6, 9


def draw(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TOKENS = torch.tensor([0, 3, 8, 1, 1, 5])
EYE = LinearHead(torch.eye(V, dtype=torch.float64))


BASELINES = {
    "group_mean": ("dr_grpo", {}),
    "group_std": ("grpo", {}),
    "leave_one_out": ("rloo", {}),
    "soft_leave_one_out": ("pmd_partition", {}),
    "reward": ("reinforce", {"baseline": "none"}),
    "batch_mean": ("reinforce", {"baseline": "batch_mean"}),
    "running_mean": ("reinforce", {"baseline": "running_mean"}),
    "batch_std": ("reinforce_pp", {}),
    "gae": ("ppo", {}),
}


@pytest.mark.parametrize("name", ["lco_kld", "lco_mse", "lco_lch", "lco_rkl", "lco_rho"])
@pytest.mark.parametrize("kind", BASELINES)
def test_every_advantage_is_a_baselines_own(name, kind):
    """On a rollout of two groups, ragged rows and a history of rewards."""
    baseline, hyper = BASELINES[kind]
    *_, signal = rollout()
    mine, theirs = METHODS[name], METHODS[baseline]
    found = mine.bind({"advantage": kind}).advantage(signal)["advantage"]
    expected = theirs.bind(hyper).advantage(signal)["advantage"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found[signal.mask].abs().max() > 0.1


def test_no_two_advantages_are_the_same_and_none_goes_unchecked():
    *_, signal = rollout()
    method = METHODS["lco_kld"]
    choices = [*OTHER_ADVANTAGES, SIGN]
    assert set(choices) == {*BASELINES, "sign_broadcast"}
    found = [method.bind({"advantage": kind}).advantage(signal)["advantage"] for kind in choices]
    assert len({tuple(advantage.flatten().tolist()) for advantage in found}) == len(choices)


def gradient(name, z, z_old, fixed=None, advantage=None, **hyper):
    """(loss, ∂loss/∂z) of Σ over the N positions; `fixed` are logits by name."""
    method = METHODS[name]
    objective = method.bind(hyper)
    z = z.clone().requires_grad_()
    loss, _ = token_loss(
        z,
        EYE,
        objective.loss,
        HeadRequest(
            TOKENS[: len(z)],
            objective.statistics,
            {"advantage": torch.ones(len(z)).double() if advantage is None else advantage},
            torch.ones(len(z)).double(),
            old=None if z_old is None else FixedHead(z_old, EYE),
            target=objective.target,
            fixed={key: FixedHead(value, EYE) for key, value in (fixed or {}).items()},
        ),
    )
    return float(loss.detach()), torch.autograd.grad(loss, z)[0]


@pytest.mark.parametrize("on_policy", [True, False])
def test_a_verifier_makes_a_product_of_experts(on_policy):
    """π* ∝ π_old π_ver^{1/β}, and LCO-KLD's gradient is π − π*."""
    z_old, verifier = draw(1, N, V), draw(2, N, V)
    z = z_old if on_policy else draw(3, N, V)
    target = (z_old.log_softmax(1) + verifier.log_softmax(1) / 2).softmax(1)
    _, slope = gradient("lco_kld", z, None if on_policy else z_old, {"verifier": verifier}, estimator="logprob", beta=2)
    torch.testing.assert_close(slope, z.softmax(1) - target)


def test_with_the_reference_as_old_policy_and_betas_alike_the_target_is_the_dpo_model():
    reference, dpo, z = draw(1, N, V), draw(2, N, V), draw(3, N, V)
    fixed = {"dpo": dpo, "reference": reference}
    hyper = {"estimator": "dpo_ratio", "beta": 0.1, "beta_dpo": 0.1}
    _, slope = gradient("lco_kld", z, reference, fixed, **hyper)
    torch.testing.assert_close(slope, z.softmax(1) - dpo.softmax(1))
    loss, slope = gradient("lco_kld", dpo, reference, fixed, **hyper)
    assert loss == pytest.approx(0, abs=1e-9)
    assert slope.abs().max() < 1e-9


@pytest.mark.parametrize("name", ["lco_kld", "lco_mse", "lco_lch", "lco_rkl"])
def test_descent_reaches_the_dense_target_from_anywhere(name):
    z_old, verifier, z = draw(1, N, V), draw(2, N, V), draw(3, N, V)
    target = (z_old + verifier.log_softmax(1) / 2).softmax(1)
    for _ in range(2000):
        z = z - gradient(name, z, z_old, {"verifier": verifier}, estimator="logprob", beta=2)[1]
    torch.testing.assert_close(z.softmax(1), target, rtol=0, atol=1e-3)


@pytest.mark.parametrize("space", ["centred", "weighted", "raw"])
def test_a_constant_in_a_dense_advantage_changes_nothing(space):
    """Also in `raw`, where the advantage is centred under π_old first."""
    z_old, verifier, z = draw(1, N, V), draw(2, N, V), draw(3, N, V)

    class Shifted(LogProbabilityTilt):
        def tilt(self, chunk):
            return super().tilt(chunk) + 1.7

    def slope(kind):
        method = METHODS["lco_mse"]
        objective = method.bind({"estimator": "logprob", "target_space": space})
        free = z.clone().requires_grad_()
        loss, _ = token_loss(
            free,
            EYE,
            objective.loss,
            HeadRequest(
                TOKENS,
                objective.statistics,
                {},
                torch.ones(N).double(),
                old=FixedHead(z_old, EYE),
                target=kind(2.0),
                fixed={"verifier": FixedHead(verifier, EYE)},
            ),
        )
        return torch.autograd.grad(loss, free)[0]

    torch.testing.assert_close(slope(LogProbabilityTilt), slope(Shifted))


def test_the_released_codes_restrictions_of_dense_advantages():
    """Only the verifier's top 5 carry an advantage; outside the policy's top 5 a DPO ratio excludes; no NaN at no spread."""
    z_old, verifier, reference = draw(1, N, V), draw(2, N, V), draw(4, N, V)

    def target(kind, fixed):
        names = ("target_kl",)
        heads = {n: FixedHead(z, EYE) for n, z in fixed.items()}
        found = token_statistics(
            z_old, EYE, HeadRequest(TOKENS, names, old=FixedHead(z_old, EYE), target=kind, fixed=heads)
        )["target_kl"]
        return found

    values, indices = verifier.log_softmax(1).topk(5, 1)
    tilt = torch.zeros(N, V).double().scatter_(1, indices, values / values.std(1, keepdim=True) / 2)
    expected = (z_old + tilt).log_softmax(1)
    divergence = (expected.exp() * (expected - z_old.log_softmax(1))).sum(1)
    found = target(LogProbabilityTilt(2.0, dense_top=5, dense_scale="top_std"), {"verifier": verifier})
    torch.testing.assert_close(found, divergence)
    flat = PreferenceRatioTilt(2.0, dense_top=5, dense_scale="top_std")
    same = target(flat, {"dpo": reference, "reference": reference})
    inside = z_old.softmax(1).topk(5, 1).values.sum(1)
    torch.testing.assert_close(same, -inside.log(), rtol=1e-6, atol=1e-9)


def test_agreement_keeps_the_policy():
    """Where policy and verifier are sure of the sampled token, β is multiplied."""
    sure = torch.zeros(N, V).double().scatter_(1, TOKENS[:, None], 9.0)
    eager, calm = (
        gradient(
            "lco_mse", sure, None, {"verifier": sure + draw(5, N, V, scale=0.1)}, estimator="logprob", agreement_scale=x
        )
        for x in (1.0, 100.0)
    )
    torch.testing.assert_close(calm[1], eager[1] / 100)


def test_the_unbiased_sparse_estimator_is_reinforce_to_first_order():
    z, a = draw(6, N, V, scale=0.3), draw(7, N, scale=1e-6)
    _, slope = gradient("lco_kld", z, None, advantage=a, estimator="sparse_ips", beta=1.0, least_probability=1e-6)
    expected = -a[:, None] * (torch.nn.functional.one_hot(TOKENS, V) - z.softmax(1))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-12)


def test_the_unbiased_sparse_estimators_expectation_is_the_advantage():
    z_old = draw(1, 1, V).expand(V, V)
    chunk_tilt = UnbiasedSparseTilt(1.0, least_probability=1e-3)
    advantage = draw(8, V, scale=0.05)
    tilt = token_statistics(
        z_old, EYE, HeadRequest(torch.arange(V), ["tilt"], inputs={"advantage": advantage}, target=chunk_tilt)
    )["tilt"]
    torch.testing.assert_close(z_old[0].softmax(0) * tilt, advantage)


def test_the_reverse_divergence_is_the_regularised_objective():
    """β KL(π ‖ π*) = −(E_π[A] − β KL(π ‖ π_old)) + β log Z."""
    z, z_old, beta = draw(1, 1, V), draw(2, 1, V), 2.0
    loss, _ = gradient("lco_rkl", z, z_old, advantage=torch.ones(1).double(), beta=beta)
    p, logp, old = z.softmax(1)[0], z.log_softmax(1)[0], z_old.log_softmax(1)[0]
    objective = p[TOKENS[0]] - beta * (p * (logp - old)).sum()
    log_z = torch.log1p(old[TOKENS[0]].exp() * math.expm1(1 / beta))
    assert beta * loss == pytest.approx(float(beta * log_z - objective), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, V), st.floats(-4, 4))
def test_top_and_rest_is_a_lower_bound_and_exact_for_the_whole_vocabulary(seed, k, advantage):
    z, z_old = draw(seed, N, V), draw(seed + 1, N, V)
    a = torch.full((N,), advantage, dtype=torch.float64)
    exact, slope = gradient("lco_kld", z, z_old, advantage=a)
    bound, bound_slope = gradient("lco_kld", z, z_old, advantage=a, support="top_rest", top=k)
    assert bound <= exact + 1e-6
    if k == V:
        assert bound == pytest.approx(exact, rel=1e-5, abs=1e-5)
        torch.testing.assert_close(bound_slope, slope, rtol=1e-4, atol=1e-5)


def test_the_released_codes_truncated_target_moves_the_policy_without_an_advantage():
    """With A = 0 its loss is positive and its gradient sharpens; the full target gives exactly nothing."""
    z = draw(1, N, V)
    nothing = torch.zeros(N).double()
    loss, slope = gradient("lco_kld_reference", z, None, advantage=nothing)
    assert loss > 0.1
    entropy = -(z.softmax(1) * z.log_softmax(1)).sum(1)
    after = z - 0.1 * slope
    assert (-(after.softmax(1) * after.log_softmax(1)).sum(1) < entropy).all()
    loss, slope = gradient("lco_kld", z, None, advantage=nothing)
    assert loss == pytest.approx(0, abs=1e-12)
    assert slope.abs().max() < 1e-12


def test_the_released_codes_target_pushes_a_right_token_down_that_is_not_among_the_five():
    z = torch.zeros(1, V).double()
    z[0, :5] = torch.tensor([3.0, 2.5, 2, 1.5, 1])
    z[0, TOKENS[1]] = -1.0
    hyper = {"advantage": torch.ones(1).double()}
    method = METHODS["lco_kld_reference"]
    objective = method.bind()
    free = z.clone().requires_grad_()
    token = torch.tensor([7])
    loss, reported = token_loss(
        free,
        EYE,
        objective.loss,
        HeadRequest(
            token,
            objective.statistics,
            hyper,
            torch.ones(1).double(),
            target=objective.target,
            report=("outside_top/5",),
        ),
    )
    assert reported["outside_top/5"] == 1
    assert torch.autograd.grad(loss, free)[0][0, 7] > 0


def test_the_released_codes_target_is_that_of_filled_logits():
    """The definition: float16 logits, −100 elsewhere, the tilt on the sampled token, a softmax over everything."""
    z, z_old = draw(1, N, V), draw(2, N, V)
    a = torch.tensor([1.0, -1, 1, -1, 1, -1]).double()
    top = z_old.topk(5, 1)
    filled = torch.full((N, V), -100.0).double().scatter_(1, top.indices, top.values.half().double())
    c = torch.where(a > 0, a / 2, a / 200)
    target = (filled + c[:, None] * torch.nn.functional.one_hot(TOKENS, V)).softmax(1)
    expected = torch.special.xlogy(target, target).sum() - (target * z.log_softmax(1)).sum()
    loss, slope = gradient("lco_kld_reference", z, z_old, advantage=a)
    assert loss == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(slope, z.softmax(1) - target, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "slope_at_token"), [("lco_mse_reference", -2 * 0.5), ("lco_lch_reference", -math.tanh(0.5))]
)
def test_the_released_codes_moving_target_never_stops(name, slope_at_token):
    """The gradient is one constant at the sampled token, at every inner step: ‖z‖ grows linearly for ever."""
    z, z_old, norms = draw(1, N, V), draw(2, N, V), []
    for _ in range(50):
        _, slope = gradient(name, z, z_old)
        torch.testing.assert_close(slope, slope_at_token * torch.nn.functional.one_hot(TOKENS, V).double())
        z = z - slope
        norms.append(float((z - draw(1, N, V)).norm()))
    assert norms[49] == pytest.approx(50 * norms[0], rel=1e-6)


def test_the_rho_target_is_a_tilt():
    """q = ρ p, capped for p near 1 and kept where ρ₋ p would fall below 0.8; the loss is |A| times LCO-KLD's."""
    p = torch.tensor([0.5, 0.9, 0.95, 0.99, 0.9, 0.999]).double()
    a = torch.tensor([1.0, 1, -1, -1, -0.5, 2]).double()
    z_old = torch.log((1 - p) / (V - 1))[:, None].expand(N, V).clone().scatter_(1, TOKENS[:, None], p.log()[:, None])
    q = torch.tensor([0.6, 0.99, 0.95, 0.99, 0.9, 0.99]).double()  # ρ₋ p = 0.76, 0.79, 0.72: kept
    method = METHODS["lco_rho"]
    assert method.bind().hyper["rho_negative"] == 0.8
    z = draw(3, N, V)
    _, slope = gradient("lco_rho", z, z_old, advantage=a)
    target = z_old.softmax(1) * ((1 - q) / (1 - p))[:, None]
    target = target.scatter(1, TOKENS[:, None], q[:, None])
    torch.testing.assert_close(slope, a.abs()[:, None] * (z.softmax(1) - target), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [-20.0, -8.0, 0.5, 20.0])
@pytest.mark.parametrize("p", [2e-9, 0.3, 1 - 1e-6, 1 - 1e-9, 1 - 1e-14])
def test_the_gradient_is_exact_for_certain_tokens_and_strong_tilts(p, c, dtype):
    """π − π* where p → 1 and c ≪ 0: the weights are up to 10⁸ and must not cancel (float64 truth, also in float32)."""
    rest = torch.log(torch.tensor([0.5, 0.3, 0.2]).double() * (1 - p))
    z_old = torch.cat([torch.tensor([math.log(p)]).double(), rest])[None]
    z = torch.tensor([[0.4, -0.2, 0.1, 0.3]]).double()
    target = (z_old + c * torch.tensor([1.0, 0, 0, 0])).softmax(1)
    head = LinearHead(torch.eye(4, dtype=dtype))
    method = METHODS["lco_kld"]
    objective = method.bind()
    for new, old in ((z, FixedHead(z_old.to(dtype), head)), (z_old, None)):
        free = new.to(dtype).requires_grad_()
        loss, _ = token_loss(
            free,
            head,
            objective.loss,
            HeadRequest(
                torch.tensor([0]),
                objective.statistics,
                {"tilt": torch.tensor([c], dtype=dtype)},
                torch.ones(1, dtype=dtype),
                old=old,
            ),
        )
        slope = torch.autograd.grad(loss, free)[0]
        expected = new.softmax(1) - target
        divergence = (target * (target.log() - new.log_softmax(1))).sum()
        tolerance = 1e-9 if dtype == torch.float64 else 2e-5
        torch.testing.assert_close(slope.double(), expected, rtol=tolerance, atol=tolerance)
        assert float(loss.detach()) == pytest.approx(float(divergence.detach()), rel=20 * tolerance, abs=20 * tolerance)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-12, 1 - 1e-12), st.floats(-90, 90))
def test_the_sparse_target_for_every_tilt(p, c):
    old, rest = math.log(p), 1 - p
    found = sparse_target(*(torch.tensor(x, dtype=torch.float64) for x in (old, c, rest)))
    log_z = max(math.log(rest), old + c) + math.log1p(math.exp(-abs(math.log(rest) - old - c)))
    q = math.exp(old + c - log_z)
    assert float(found.log_partition) == pytest.approx(log_z, rel=1e-9, abs=1e-12)
    assert float(found.probability) == pytest.approx(q, rel=1e-9)
    assert float(found.others) == pytest.approx(math.exp(math.log(rest) - log_z), rel=1e-6)
    assert float(found.probability + found.others) == pytest.approx(1, rel=1e-9)
    assert abs(float(found.moved)) <= math.tanh(abs(c) / 4) + 1e-9
    assert float(found.kl) <= c * c / 8 + 1e-9


@pytest.mark.parametrize(
    ("name", "knob", "reader"),
    [
        ("lco_kld", {"least_probability": 0.2}, {"estimator": "sparse_ips"}),
        ("lco_kld", {"beta_dpo": 0.3}, {"estimator": "dpo_ratio"}),
        ("lco_kld", {"top": 9}, {"support": "top_rest"}),
        ("lco_mse", {"dense_top": 5}, {"estimator": "logprob"}),
        ("lco_mse", {"dense_scale": "top_std"}, {"estimator": "logprob", "dense_top": 5}),
        ("lco_lch", {"agreement_scale": 3.0}, {"estimator": "logprob"}),
        ("dapo", {"overlong_buffer": 9}, {"overlong": "shape"}),
        ("reinforce_pp", {"kl_in": "loss"}, {"beta_kl": 0.1}),
    ],
)
def test_a_value_that_nothing_reads_is_refused(name, knob, reader):
    method, ((key, value),) = METHODS[name], knob.items()
    with pytest.raises(
        UserError, match=f"{name}: {key} is {value!r}, which only .* reads; give that or leave {key} at"
    ):
        method.bind(knob)
    assert method.bind(knob | reader).hyper[key] == value
    assert key not in method.bind({key: method.hyperparameters[key].default}).hyper


@pytest.mark.parametrize(
    "unread",
    [{"advantage": "gae"}, {"beta_negative_scale": 2.0}, {"beta_dpo": 0.3, "dense_scale": "top_std", "dense_top": 5}],
)
def test_what_a_dense_estimator_does_not_read_is_refused(unread):
    with pytest.raises(UserError, match=f"{next(iter(unread))} is .*, which only estimator="):
        METHODS["lco_mse"].bind({"estimator": "dpo_ratio", **unread})
    # The released code's own A = ±1 is nobody's request.
    assert METHODS["lco_mse_reference"].bind({"estimator": "dpo_ratio", "target_space": "centred"})
