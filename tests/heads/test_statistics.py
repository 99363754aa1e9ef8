"""Every statistic and its gradient against brute-force float64 autograd over the full vocabulary."""

import pytest
import torch

from lco.heads import STATISTICS, LinearHead, OldHead, differentiable_statistics, statistics, token_loss

N, V, D = 7, 37, 5
TEMPERATURE = 0.7


def brute_force(z, z_old, targets, tilt):
    """The definitions of methods.md 0.3 written out, on whole [N, V] matrices."""
    rows = torch.arange(len(targets))
    logp, logp_old = z.log_softmax(1), z_old.log_softmax(1)
    p, p_old = logp.exp(), logp_old.exp()
    d = z - z_old
    onehot = torch.nn.functional.one_hot(targets, z.shape[1]).to(z)
    residual = d - tilt[:, None] * onehot
    residual = residual - residual.mean(1, keepdim=True)
    return {
        "logit": z[rows, targets],
        "logsumexp": z.logsumexp(1),
        "logprob": logp[rows, targets],
        "entropy": -(p * logp).sum(1),
        "mean_logit": z.mean(1),
        "sq_prob": (p**2).sum(1),
        "kl_old": (p_old * (logp_old - logp)).sum(1),
        "sum_gap": d.sum(1),
        "sq_gap": (d**2).sum(1),
        "old_mean_gap": (p_old * d).sum(1),
        "old_mean_sq_gap": (p_old * d**2).sum(1),
        "logcosh_gap": residual.cosh().log().sum(1),
        "vocabulary_size": torch.full_like(tilt, z.shape[1]),
        "old_logit": z_old[rows, targets],
        "old_logprob": logp_old[rows, targets],
        "old_entropy": -(p_old * logp_old).sum(1),
    }


@pytest.fixture
def case():
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return {
        "hidden": draw(N, D).requires_grad_(),
        "weight": draw(V, D).requires_grad_(),
        "bias": draw(V).requires_grad_(),
        "old_hidden": draw(N, D),
        "old_weight": draw(V, D),
        "targets": torch.randint(V, (N,), generator=g),
        "tilt": draw(N) * 3,
        "mix": draw(N),
    }


def parts(case, on_policy):
    head = LinearHead(case["weight"], case["bias"], TEMPERATURE)
    old = None if on_policy else OldHead(case["old_hidden"], LinearHead(case["old_weight"], None, TEMPERATURE))
    z = (case["hidden"] @ case["weight"].T + case["bias"]) / TEMPERATURE
    z_old = z.detach() if on_policy else case["old_hidden"] @ case["old_weight"].T / TEMPERATURE
    return head, old, brute_force(z, z_old, case["targets"], case["tilt"])


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_value_and_gradient(case, name, on_policy, chunk_size):
    head, old, expected = parts(case, on_policy)
    leaves = [case["hidden"], case["weight"], case["bias"]]
    got = differentiable_statistics(
        case["hidden"], head, case["targets"], [name], inputs={"tilt": case["tilt"]}, old=old, chunk_size=chunk_size
    )[name]
    torch.testing.assert_close(got, expected[name], rtol=1e-9, atol=1e-9)
    if STATISTICS[name].backward is None:
        assert not got.requires_grad
        return
    ours = torch.autograd.grad((got * case["mix"]).sum(), leaves)
    theirs = torch.autograd.grad((expected[name] * case["mix"]).sum(), leaves, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_token_loss_equals_autograd_of_a_nonlinear_function(case, on_policy, chunk_size):
    head, old, expected = parts(case, on_policy)
    names = ["logprob", "entropy", "kl_old", "sq_gap", "old_logprob"]

    def function(s, x):
        return (s["logprob"] - s["old_logprob"]).exp() * x["tilt"] + s["entropy"] * s["kl_old"] + s["sq_gap"] ** 2

    inputs = {"tilt": case["tilt"]}
    loss, reported = token_loss(
        case["hidden"], head, case["targets"], function, inputs, case["mix"], names,
        old=old, report=("entropy", "sq_prob"), chunk_size=chunk_size,
    )  # fmt: skip
    brute = (function(expected, inputs) * case["mix"]).sum()
    torch.testing.assert_close(loss.double(), brute, rtol=1e-6, atol=1e-6)
    leaves = [case["hidden"], case["weight"], case["bias"]]
    ours, theirs = torch.autograd.grad(2.5 * loss, leaves), torch.autograd.grad(2.5 * brute, leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reported["sq_prob"], expected["sq_prob"].detach())
    assert not reported["entropy"].requires_grad


def test_the_same_hidden_states_as_old_give_exactly_zero_divergence(case):
    head = LinearHead(case["weight"].detach().float())
    hidden = case["hidden"].detach().float()
    s = statistics(hidden, head, case["targets"], ["kl_old", "sq_gap"], old=OldHead(hidden, head))
    assert s["kl_old"].abs().max() < 1e-6
    assert (s["sq_gap"] == 0).all()


def test_bf16_inputs_give_float32_statistics_close_to_float64(case):
    hidden, weight = case["hidden"].detach().bfloat16(), case["weight"].detach().bfloat16()
    got = statistics(hidden, LinearHead(weight), case["targets"], ["logprob"])["logprob"]
    exact = (hidden.double() @ weight.double().T).log_softmax(1)[torch.arange(N), case["targets"]]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


def test_no_tokens_give_a_zero_loss_with_zero_gradient(case):
    head = LinearHead(case["weight"])
    empty = case["hidden"][:0]
    loss, _ = token_loss(empty, head, case["targets"][:0], lambda s, x: s["logprob"], {}, case["mix"][:0], ["logprob"])
    gradient = torch.autograd.grad(loss, case["weight"])[0]
    assert loss == 0
    assert (gradient == 0).all()
