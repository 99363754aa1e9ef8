"""The baselines' own invariants, golden values and limits."""

import dataclasses
import math

import pytest
import torch

from lco.advantages import centred, gae, leave_one_out, penalised_rewards, return_to_go, soft_leave_one_out, whiten
from lco.losses import clipped_surrogate, k2, k3, ratio, sequence_ratio, token_scale
from lco.methods import METHODS
from lco.methods.dapo import overlong_penalty
from lco.methods.invariants import rollout
from lco.methods.objective import Signal
from lco.methods.reinforce import running_mean
from tests.methods.test_generic import gradient_of, loss_of, weight

P_OLD, P_NEW = torch.tensor([[0.5, 0.2, 0.9]]).double(), torch.tensor([[0.6, 0.15, 0.95]]).double()


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def signal_of(rewards, lengths, groups=None, **more):
    lengths = torch.tensor(lengths)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    groups = torch.zeros(len(lengths), dtype=torch.int64) if groups is None else torch.tensor(groups)
    cut = torch.zeros(len(lengths), dtype=torch.bool)
    texts = tuple(str(i) for i in range(len(lengths)))
    return dataclasses.replace(Signal(torch.tensor(rewards), groups, mask, cut, 100, texts), **more)


# --- golden values ---------------------------------------------------------------------------------------------------


def test_ratios_have_their_golden_values():
    torch.testing.assert_close(ratio(P_NEW.log(), P_OLD.log())[0], double(1.2, 0.75, 1.055556), atol=1e-6, rtol=0)
    s = sequence_ratio(P_NEW.log(), P_OLD.log(), torch.ones(1, 3))
    assert float(s) == pytest.approx(0.983047, abs=1e-6)


def test_kl_estimators_have_their_golden_values():
    new, ref = double(0.5).log(), double(0.3).log()
    assert float(k2(new, ref)) == pytest.approx(0.130471, abs=1e-6)
    assert float(k3(new, ref)) == pytest.approx(0.110826, abs=1e-6)


def test_gradients_of_kl_estimators():
    """Expected over the policy's own samples: k1 as a loss has no gradient at all (so it stands in rewards alone), k2's is
    that of KL(π ‖ π_ref), k3's is another one; k3 is unbiased in value."""
    z = double(0.4, -0.7, 0.2, 1.1).requires_grad_()
    reference = double(-0.3, 0.5, 0.0, 0.2).log_softmax(0)
    logprob, p = z.log_softmax(0), z.detach().softmax(0)
    exact = (logprob.exp() * (logprob - reference)).sum()
    divergence = torch.autograd.grad(exact, z, retain_graph=True)[0]
    estimators = {"k1": logprob - reference, "k2": k2(logprob, reference), "k3": k3(logprob, reference)}
    slopes = {name: torch.autograd.grad((p * x).sum(), z, retain_graph=True)[0] for name, x in estimators.items()}
    assert slopes["k1"].abs().max() < 1e-12
    torch.testing.assert_close(slopes["k2"], divergence)
    assert (slopes["k3"] - divergence).abs().max() > 0.02
    assert float((p * estimators["k3"].detach()).sum()) == pytest.approx(float(exact.detach()))


def test_the_log_partition_has_its_golden_values():
    rewards, groups = torch.tensor([1.0, 0, 0, 1, 0]), torch.zeros(5, dtype=torch.int64)
    assert soft_leave_one_out(rewards, groups, 0.5)[:2].tolist() == pytest.approx([0.522771, -0.716890], abs=1e-6)


def test_released_code_clamps_the_log_partition():
    """At τ = 0.01 and R = (1, 0, 0, 0) the formula gives the first row A = 1, the released code 0.184."""
    rewards, groups = torch.tensor([1.0, 0, 0, 0]).double(), torch.zeros(4, dtype=torch.int64)
    assert float(soft_leave_one_out(rewards, groups, 0.01)[0]) == pytest.approx(1.0)
    assert float(soft_leave_one_out(rewards, groups, 0.01, 1e-8)[0]) == pytest.approx(0.184, abs=5e-4)


def test_overlong_shaping_has_its_golden_values():
    found = overlong_penalty(torch.tensor([0, 80, 90, 100, 101, 500]), 100, 20)
    assert found.tolist() == pytest.approx([0, 0, -0.5, -1, -1, -1])
    assert (overlong_penalty(torch.tensor([0, 100]), 100, 0) == 0).all()


# --- effective weights -----------------------------------------------------------------------------------------------

R = double(0.5, 0.79, 0.9, 1.0, 1.1, 1.25, 1.3, 2.0, 6.0)
OLD = torch.full_like(R, -3.0)
TOKENS = {"logprob": OLD + R.log(), "old_logprob": OLD}


def of(a, **more):
    return {"advantage": torch.full_like(R, a), **more}


@pytest.mark.parametrize("a", [1.5, -1.5])
@pytest.mark.parametrize("name", ["ppo", "grpo", "dr_grpo", "reinforce_pp", "reinforce_pp_baseline"])
def test_clipped_methods_weigh_a_token_by_its_ratio_until_it_is_clipped(name, a):
    clipped = R > 1.2 if a > 0 else R < 0.8
    torch.testing.assert_close(weight(name, TOKENS, of(a)), torch.where(clipped, 0.0, R * a))


def test_dapo_clips_higher_above_than_below():
    torch.testing.assert_close(weight("dapo", TOKENS, of(1.0)), torch.where(R > 1.28, 0.0, R))
    torch.testing.assert_close(weight("dapo", TOKENS, of(-1.0)), torch.where(R < 0.8, 0.0, -R))


def test_cispo_bounds_the_weight_and_drops_no_token():
    torch.testing.assert_close(weight("cispo", TOKENS, of(-2.0)), -2.0 * R.clamp(0, 5))
    free = METHODS["cispo"].bind({"clip_low": 1.0, "clip_high": 1e9}).loss
    logprob = TOKENS["logprob"].clone().requires_grad_()
    found = torch.autograd.grad(free({**TOKENS, "logprob": logprob}, of(0.7)).sum(), logprob)[0]
    torch.testing.assert_close(found, -0.7 * R)  # ε_high = ∞: the gradient of −rA


def test_dual_clip_stops_negative_tokens_whose_ratio_has_run_away():
    logr = R.log().clone().requires_grad_()
    loss = clipped_surrogate(logr.exp(), torch.full_like(R, -1.0), 0.2, 0.2, dual=3.0)
    found = -torch.autograd.grad(loss.sum(), logr)[0]
    torch.testing.assert_close(found, torch.where((R < 0.8) | (R > 3), 0.0, -R))
    assert float(loss.detach().max()) == pytest.approx(3.0)


def test_token_level_log_ratio_regression_weight():
    """β (A − β x), with β = 1."""
    torch.testing.assert_close(weight("kimi_token", TOKENS, of(0.4)), 0.4 - R.log())


def row_weights(name, log_ratios, advantage, **hyper):
    """∂(Σ over the row of the loss)/∂ℓ · −1 for one row."""
    method = METHODS[name]
    x = torch.tensor([log_ratios], dtype=torch.float64)
    logprob = (x - 3).requires_grad_()
    ones = torch.ones_like(x)
    inputs = {"advantage": advantage * ones, "mask": ones, "divisor": len(log_ratios) * ones}
    loss = method.bind(hyper).loss({"logprob": logprob, "old_logprob": torch.full_like(x, -3)}, inputs)
    return -torch.autograd.grad(loss.mean(), logprob)[0][0]


@pytest.mark.parametrize("name", ["gspo", "gspo_token"])
def test_gspo_weight_is_the_sequence_ratio_and_clips_whole_rows(name):
    inside = [2e-4, -1e-4, 1e-4]
    s = math.exp(sum(inside) / 3)
    torch.testing.assert_close(row_weights(name, inside, 0.8), torch.full((3,), s * 0.8 / 3, dtype=torch.float64))
    # The row is above its bound though two of its three tokens are not.
    assert (row_weights(name, [3e-3, -1e-4, 1e-4], 0.8) == 0).all()
    assert (row_weights(name, [3e-3, -1e-4, 1e-4], -0.8) < 0).all()


@pytest.mark.parametrize(("name", "share"), [("kimi", 1), ("pmd_mean", 3)])
def test_regression_of_the_sequence_log_ratio_pulls_back(name, share):
    """(A − τ S), by the row's length in PMD; nothing at S = A/τ."""
    x = [0.1, -0.3, 0.4]
    found = row_weights(name, x, 0.5, tau=0.5)
    torch.testing.assert_close(found, torch.full((3,), (0.5 - 0.5 * sum(x)) / share, dtype=torch.float64))
    assert row_weights(name, [0.5, 0.25, 0.25], 0.5, tau=0.5).abs().max() < 1e-12


# --- limits ----------------------------------------------------------------------------------------------------------


def assert_same_gradient(one, other, on_policy=True, factor=1.0):
    """Both methods' gradients on a rollout agree, up to a factor."""
    (a, hyper_a), (b, hyper_b) = one, other
    z_old, z_new, tokens, signal = rollout()
    z, old = (z_old, None) if on_policy else (z_new, z_old)
    found, expected = gradient_of(a, hyper_a, old, z, tokens, signal), gradient_of(b, hyper_b, old, z, tokens, signal)
    torch.testing.assert_close(found, expected * factor, rtol=1e-6, atol=1e-9)


def test_gspo_starts_as_grpo():
    assert_same_gradient(("gspo", {}), ("grpo", {}))


def test_gspo_token_is_gspo_where_advantages_are_constant():
    wide = {"clip_low": 0.05, "clip_high": 0.05}
    assert_same_gradient(("gspo_token", wide), ("gspo", wide), on_policy=False)


def test_dapo_without_its_parts_is_grpo_by_tokens():
    z_old, z_new, tokens, signal = rollout()
    plain = {"clip_low": 0.2, "clip_high": 0.2, "dynamic_sampling": False}
    found = gradient_of("dapo", plain, z_old, z_new, tokens, signal)
    scale = token_scale(signal.mask, "token_mean")
    torch.testing.assert_close(found, gradient_of("grpo", {}, z_old, z_new, tokens, signal, scale=scale))


def test_dr_grpo_starts_as_rloo_up_to_constants():
    """(G − 1)/G and 1/L_max: groups of 3, limit 5."""
    assert_same_gradient(("dr_grpo", {}), ("rloo", {}), factor=2 / 3 / 5)


def test_pmd_mean_starts_as_rloo_divided_by_length():
    z_old, _, tokens, signal = rollout()
    by_length = token_scale(signal.mask, "seq_mean_token_mean")
    expected = gradient_of("rloo", {}, None, z_old, tokens, signal, scale=by_length)
    torch.testing.assert_close(gradient_of("pmd_mean", {}, None, z_old, tokens, signal), expected, rtol=1e-5, atol=1e-8)


def test_kimi_without_its_pull_is_reinforce_with_the_group_mean():
    z_old, _, tokens, signal = rollout()
    found = gradient_of("kimi", {"tau": 1e-6}, None, z_old, tokens, signal)
    by_hand = dataclasses.replace(signal, rewards=centred(signal.rewards, signal.groups))
    expected = gradient_of("reinforce", {"baseline": "none"}, None, z_old, tokens, by_hand)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_log_partition_lies_between_mean_and_maximum():
    rewards = torch.rand(12, generator=torch.Generator().manual_seed(3)).double()
    groups = torch.arange(12) // 4
    torch.testing.assert_close(
        soft_leave_one_out(rewards, groups, 1e5), leave_one_out(rewards, groups), atol=1e-5, rtol=0
    )
    greedy = torch.stack([
        rewards[i] - max(rewards[j] for j in range(12) if j != i and groups[j] == groups[i]) for i in range(12)
    ])  # fmt: skip
    torch.testing.assert_close(soft_leave_one_out(rewards, groups, 1e-4), greedy, atol=1e-3, rtol=0)
    assert (soft_leave_one_out(torch.full((4,), 0.1), torch.zeros(4, dtype=torch.int64), 0.01) == 0).all()


def test_clip_without_bounds_and_without_division_is_reinforce():
    signal = rollout()[3]
    inputs = {"advantage": torch.rand(signal.mask.shape).double() * signal.mask}
    for name in ("ppo", "grpo", "dr_grpo", "dapo", "cispo"):
        method = METHODS[name]
        r = {"logprob": torch.zeros_like(inputs["advantage"]), "old_logprob": torch.zeros_like(inputs["advantage"])}
        torch.testing.assert_close(weight(name, r, inputs), inputs["advantage"])
        assert method.scope == "token"


# --- advantages --------------------------------------------------------------------------------------------------------


def test_constant_rewards_without_a_baseline_raise_everything_sampled():
    """A documented failure of REINFORCE, kept as it is: weight 1 on every token, right or wrong."""
    signal = signal_of([1.0, 1.0], [3, 2])
    assert (METHODS["reinforce"].advantage(signal, {"baseline": "none"})["advantage"][signal.mask] == 1).all()
    assert (METHODS["reinforce"].advantage(signal, {"baseline": "batch_mean"})["advantage"] == 0).all()


def test_running_mean_knows_nothing_of_its_own_rollout():
    assert running_mean([]) == 0
    assert running_mean([0.5]) == 0.5
    assert running_mean([0.5, 1.0]) == pytest.approx(0.55)
    signal = signal_of([1.0, 0.0], [1, 1], reward_history=(0.5, 1.0))
    found = METHODS["reinforce"].advantage(signal, {"baseline": "running_mean"})["advantage"]
    assert found[:, 0].tolist() == pytest.approx([0.45, -0.55])


def test_gae_at_its_limits():
    """λ = γ = 1: the return minus the value; λ = 0: the one-step residual."""
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(6) < torch.tensor([6, 1, 3])[:, None]
    rewards, values = torch.rand(3, 6, generator=g) * mask, torch.rand(3, 6, generator=g) * mask
    found, _ = gae(rewards, values, mask, 1.0, 1.0)
    torch.testing.assert_close(found, return_to_go(rewards, mask) - values)
    found, _ = gae(rewards, values, mask, 0.9, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros(3, 1)], 1)
    torch.testing.assert_close(found, rewards + 0.9 * following - values)


def test_ppo_with_a_constant_critic_is_reinforce_with_that_baseline():
    signal = signal_of([1.0, 0.0, 1.0], [4, 2, 1])
    signal = dataclasses.replace(signal, values=torch.full(signal.mask.shape, 0.3))
    found = METHODS["ppo"].bind({"lam": 1.0, "whiten": False}).advantage(signal)["advantage"]
    torch.testing.assert_close(found, (signal.rewards - 0.3)[:, None] * signal.mask)


def test_reinforce_pp_normalises_over_all_tokens():
    signal = signal_of([1.0, 0.0, 1.0, 0.0], [4, 2, 1, 3], [0, 0, 1, 1])
    for name in ("reinforce_pp", "reinforce_pp_baseline"):
        found = METHODS[name].bind().advantage(signal)["advantage"][signal.mask]
        assert float(found.mean()) == pytest.approx(0, abs=1e-6)
        assert float(found.std(correction=0)) == pytest.approx(1, abs=1e-6)
        flat = dataclasses.replace(signal, rewards=torch.full((4,), 0.1))
        assert (METHODS[name].bind().advantage(flat)["advantage"] == 0).all()
        alone = signal_of([1.0], [1])
        assert (METHODS[name].bind().advantage(alone)["advantage"] == 0).all()


def test_whitening_constant_values_gives_zero_not_noise():
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert (whiten(torch.full((3, 5), 0.1), mask) == 0).all()


def test_the_reference_inside_the_reward_is_charged_token_by_token():
    mask = torch.tensor([[True, True, False]])
    old, ref = torch.tensor([[-1.0, -2.0, math.nan]]), torch.tensor([[-1.5, -1.0, math.inf]])
    found = penalised_rewards(torch.tensor([1.0]), mask, 0.1, old, ref)
    torch.testing.assert_close(found, torch.tensor([[-0.05, 1.1, 0.0]]))
    signal = signal_of([1.0, 0.0], [2, 2])
    signal = dataclasses.replace(signal, old_logprob=old[:, :2].repeat(2, 1), ref_logprob=ref[:, :2].repeat(2, 1))
    rows = METHODS["rloo"].bind({"beta_kl": 0.1}).advantage(signal)["advantage"]
    torch.testing.assert_close(rows, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # the same penalty on both cancels


def test_group_of_one_has_no_advantage_and_a_config_refuses_it():
    assert leave_one_out(torch.tensor([1.0]), torch.tensor([0])).tolist() == [0]
    for name in ("rloo", "grpo", "dapo", "gspo", "pmd_mean", "kimi", "cispo", "dr_grpo"):
        assert METHODS[name].bind().needs.group


# --- which rows are learnt from ----------------------------------------------------------------------------------------


def test_dapo_keeps_groups_with_signal_and_is_idempotent():
    method = METHODS["dapo"]
    signal = signal_of([1.0, 1, 1, 0, 0, 0], [2] * 6, [0, 0, 1, 1, 2, 2])
    kept = method.bind().keep(signal)
    assert kept.tolist() == [False, False, True, True, False, False]
    again = signal_of(signal.rewards[kept].tolist(), [2, 2], signal.groups[kept].tolist())
    assert method.bind().keep(again).all()
    cut = dataclasses.replace(signal, truncated=torch.tensor([False, False, True, False, False, False]))
    assert method.bind({"overlong": "filter"}).keep(cut).tolist() == [False] * 3 + [True] + [False] * 2


def test_dapo_judges_groups_before_it_shapes_their_rewards():
    """An all-right group stays degenerate though one of its answers is too long."""
    method = METHODS["dapo"]
    objective = method.bind({"overlong": "shape", "overlong_buffer": 20})
    signal = signal_of([1.0, 1.0, 1.0, 0.0], [100, 10, 10, 10], [0, 0, 1, 1])
    assert objective.keep(signal).tolist() == [False, False, True, True]
    assert objective.advantage(signal)["advantage"][0, 0] < 0


def test_rft_keeps_right_answers_distinct_ones_and_no_more_than_its_cap():
    method = METHODS["rft"]
    texts = ("1 + 1 = 2", "1 + 1  =  2\n", "so 2", "wrong", "so 2", "again 2")
    signal = signal_of([1.0, 1, 1, 0, 1, 1], [2] * 6, [0, 0, 0, 0, 1, 0], responses=texts)
    assert method.bind().keep(signal).tolist() == [True, True, True, False, True, True]
    assert method.bind({"distinct": True}).keep(signal).tolist() == [True, False, True, False, True, True]
    assert method.bind({"cap": 2}).keep(signal).tolist() == [True, True, False, False, True, False]
    assert signal.rewards.tolist() == [1, 1, 1, 0, 1, 1]


def test_pmd_can_leave_out_prompts_by_success():
    method = METHODS["pmd_mean"]
    signal = signal_of([1.0, 1, 1, 0, 0, 0], [2] * 6, [0, 0, 1, 1, 2, 2])
    assert method.bind().keep(signal).all()
    bounds = {"least_success": 0.1, "most_success": 0.9}
    assert method.bind(bounds).keep(signal).tolist() == [False, False, True, True, False, False]


# --- reductions --------------------------------------------------------------------------------------------------------


def test_dr_grpo_divides_by_the_limit_not_by_the_longest_row():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    scale = token_scale(mask, "seq_mean_token_sum_const", limit=10)
    torch.testing.assert_close(scale, mask / 2 / 10)  # rows without tokens do not count
    wider = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1)
    torch.testing.assert_close(token_scale(wider, "seq_mean_token_sum_const", limit=10)[:, :3], scale)
    torch.testing.assert_close(token_scale(mask.repeat(2, 1), "seq_mean_token_sum_const", limit=10)[:3], scale / 2)


def test_values_agree_with_a_plain_softmax_over_the_vocabulary():
    """Every method on sampled tokens, written out over the full vocabulary without the suite's helpers."""
    z_old, z_new, tokens, signal = rollout()
    new, old = (
        torch.log(torch.exp(z) / torch.exp(z).sum(-1, keepdim=True)).gather(-1, tokens[..., None])[..., 0]
        for z in (z_new, z_old)
    )
    r, lengths = torch.exp(new - old), signal.mask.sum(1)
    rows = [i for i in range(6) if lengths[i]]

    def advantages(name):
        return METHODS[name].bind().advantage(signal)["advantage"].double()

    def clipped(a, low, high):
        return -torch.minimum(r * a, torch.clamp(r, 1 - low, 1 + high) * a)

    def mean_of_means(x):
        return sum(x[i, : lengths[i]].mean() for i in rows) / len(rows)

    def over_tokens(x):
        return x[signal.mask].mean()

    s = {i: torch.exp((new - old)[i, : lengths[i]].mean()) for i in rows}
    total = {i: (new - old)[i, : lengths[i]].sum() for i in rows}
    a = {name: advantages(name) for name in ("gspo", "kimi", "pmd_mean")}
    expected = {
        "grpo": mean_of_means(clipped(advantages("grpo"), 0.2, 0.2)),
        "dr_grpo": sum(clipped(advantages("dr_grpo"), 0.2, 0.2)[i, : lengths[i]].sum() for i in rows) / len(rows) / 5,
        "dapo": over_tokens(clipped(advantages("dapo"), 0.2, 0.28)),
        "cispo": over_tokens(-torch.clamp(r, 0, 5) * advantages("cispo") * new),
        "rloo": sum((-advantages("rloo") * new)[i, : lengths[i]].sum() for i in rows) / len(rows),
        "reinforce_pp": over_tokens(clipped(advantages("reinforce_pp"), 0.2, 0.2)),
        "gspo": sum(
            -min(s[i] * a["gspo"][i, 0], torch.clamp(s[i], 1 - 3e-4, 1 + 4e-4) * a["gspo"][i, 0]) for i in rows
        ) / len(rows),
        "kimi": sum(0.05 * (a["kimi"][i, 0] / 0.1 - total[i]) ** 2 for i in rows) / len(rows),
        "pmd_mean": sum(
            0.005 * (a["pmd_mean"][i, 0] / 0.01 - total[i]) ** 2 / lengths[i] for i in rows
        ) / len(rows),
        "kimi_token": over_tokens(0.5 * (advantages("kimi_token") - (new - old)) ** 2),
    }  # fmt: skip
    for name, value in expected.items():
        found = loss_of(name, {}, z_old, z_new, tokens, signal)
        assert float(found) == pytest.approx(float(value), rel=1e-6), name
