"""Every statistic and its gradient against brute-force float64 autograd over the full vocabulary."""

import pytest
import torch

from lco.heads import (
    STATISTICS,
    FixedHead,
    HeadRequest,
    LinearHead,
    row_loss,
    statistic,
    token_loss,
    token_statistics,
)
from lco.heads.vocabulary import token_loss_by_vocabulary
from lco.methods import METHODS

N, V, D = 7, 37, 5
TEMPERATURE = 0.7


TOP = 4


class DenseTilt:
    """A tilt of the whole vocabulary, from one fixed policy."""

    dense, fixed = True, ("verifier",)

    def tilt(self, chunk):
        return chunk.fixed_logprobs("verifier") * 0.7


def brute_force(z, z_old, targets, tilt):
    """The definitions written out on whole [N, V] matrices; `tilt` is [N, V]."""
    rows = torch.arange(len(targets))
    logp, logp_old = z.log_softmax(1), z_old.log_softmax(1)
    p, p_old = logp.exp(), logp_old.exp()
    d = z - z_old
    log_target = (z_old + tilt).log_softmax(1)
    target = log_target.exp()
    residual = d - tilt
    centred = residual - residual.mean(1, keepdim=True)
    spread = residual - (p_old * residual).sum(1, keepdim=True)
    known = d - (tilt - (p_old * tilt).sum(1, keepdim=True))
    top = z_old.topk(TOP, 1).indices
    return {
        "token": targets,
        "logit": z[rows, targets],
        "logsumexp": z.logsumexp(1),
        "logprob": logp[rows, targets],
        "entropy": -(p * logp).sum(1),
        "sq_prob": (p**2).sum(1),
        "kl_old": (p_old * (logp_old - logp)).sum(1),
        "kl_target": (target * (log_target - logp)).sum(1),
        "kl_from_target": (p * (logp - log_target)).sum(1),
        "sq_residual": (centred**2).sum(1),
        "var_residual": (p_old * spread**2).sum(1),
        "logcosh_residual": centred.cosh().log().sum(1),
        "sq_logprob_residual": ((logp - log_target) ** 2).sum(1),
        "sq_gap_known": (known**2).sum(1),
        "logcosh_gap_known": known.cosh().log().sum(1),
        "old_logit": z_old[rows, targets],
        "old_logsumexp": z_old.logsumexp(1),
        "old_logprob": logp_old[rows, targets],
        "old_rest": 1 - p_old[rows, targets],
        "tilt": tilt[rows, targets],
        "tilt_clamped": torch.zeros(len(targets)).double(),
        "target_kl": (target * (log_target - logp_old)).sum(1),
        "target_tv": (target - p_old).abs().sum(1) / 2,
        "sampler_logprob": logp_old[rows, targets],
        f"sampler_top/{TOP}": top,
        f"sampler_logprob_at_top/{TOP}": logp_old.gather(1, top),
        f"logprob_at_sampler_top/{TOP}": logp.gather(1, top),
        f"logprob_at_top/{TOP}": logp.gather(1, top),
        f"old_logit_at_top/{TOP}": z_old.gather(1, top),
        f"old_top/{TOP}": top,
        f"outside_top/{TOP}": (top != targets[:, None]).all(1).double(),
    }


DENSE_ONLY = {"sq_gap_known", "logcosh_gap_known"}
SPARSE_ONLY = {"tilt"}
OF_TOP = (
    *("logprob_at_top", "old_logit_at_top", "old_top", "outside_top"),
    *("logprob_at_sampler_top", "sampler_logprob_at_top", "sampler_top"),
)
NAMES = [
    *(name for name in STATISTICS if not name.startswith("step_")),  # of an optimizer's step: test_step.py
    *(f"{name}/{TOP}" for name in OF_TOP),
]


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
        "verifier_hidden": draw(N, 3),
        "verifier_weight": draw(V, 3),
        "targets": torch.randint(V, (N,), generator=g),
        "tilt": draw(N) * 3,
        "mix": draw(N),
    }


def parts(case, on_policy, dense=False):
    """(head, what the head's calls take besides, the expected statistics)"""
    head = LinearHead(case["weight"], case["bias"], TEMPERATURE)
    old = None if on_policy else FixedHead(case["old_hidden"], LinearHead(case["old_weight"], None, TEMPERATURE))
    z = (case["hidden"] @ case["weight"].T + case["bias"]) / TEMPERATURE
    z_old = z.detach() if on_policy else case["old_hidden"] @ case["old_weight"].T / TEMPERATURE
    if not dense:
        onehot = torch.nn.functional.one_hot(case["targets"], V)
        tilt = case["tilt"][:, None] * onehot
        return head, {"old": old}, {"tilt": case["tilt"]}, brute_force(z, z_old, case["targets"], tilt)
    verifier = FixedHead(case["verifier_hidden"], LinearHead(case["verifier_weight"]))
    tilt = 0.7 * (case["verifier_hidden"] @ case["verifier_weight"].T).log_softmax(1)
    options = {"old": old, "target": DenseTilt(), "fixed": {"verifier": verifier}}
    return head, options, {}, brute_force(z, z_old, case["targets"], tilt)


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
@pytest.mark.parametrize("request_kind", ["token", "row"])
def test_value_and_gradient(case, name, dense, on_policy, chunk_size, request_kind):
    if name in (SPARSE_ONLY if dense else DENSE_ONLY):
        return
    head, options, inputs, expected = parts(case, on_policy, dense)
    value = token_statistics(
        case["hidden"], head, HeadRequest(case["targets"], [name], inputs=inputs, **options), chunk_size=chunk_size
    )
    torch.testing.assert_close(value[name], expected[name].detach(), rtol=1e-9, atol=1e-9)
    if statistic(name).backward is None:
        return
    mix = case["mix"] if expected[name].ndim == 1 else case["mix"][:, None] * torch.arange(1.0, TOP + 1)

    def function(s, x):
        weighted = s[name] * x["mix"]
        return weighted if weighted.ndim == s["logit"].ndim else weighted.sum(-1)

    leaves = [case["hidden"], case["weight"], case["bias"]]
    ones = torch.ones(N, dtype=torch.float64)
    request = HeadRequest(case["targets"], [name, "logit"], {**inputs, "mix": mix}, ones, **options)
    if request_kind == "token":
        loss, _ = token_loss(case["hidden"], head, function, request, chunk_size)
    else:
        mask = torch.tensor([[True] * 5 + [False], [True] * 2 + [False] * 4])
        loss, _ = row_loss(case["hidden"], head, mask, function, request, chunk_size)
    ours = torch.autograd.grad(loss, leaves)
    theirs = torch.autograd.grad((expected[name] * mix).sum(), leaves, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_token_loss_equals_autograd_of_a_nonlinear_function(case, on_policy, chunk_size):
    head, options, inputs, expected = parts(case, on_policy)
    names = ["logprob", "entropy", "kl_old", "sq_residual", "var_residual", "kl_target", "old_logprob"]

    def function(s, x):
        ratio = (s["logprob"] - s["old_logprob"]).exp() * x["tilt"]
        return ratio + s["entropy"] * s["kl_old"] + s["sq_residual"] ** 2 * s["var_residual"] + s["kl_target"] ** 2

    loss, reported = token_loss(
        case["hidden"],
        head,
        function,
        HeadRequest(
            case["targets"], names, inputs, case["mix"], report=("entropy", "sq_prob", "hidden_gradient_sq"), **options
        ),
        chunk_size=chunk_size,
    )
    brute = (function(expected, inputs) * case["mix"]).sum()
    torch.testing.assert_close(loss.double(), brute, rtol=1e-6, atol=1e-6)
    leaves = [case["hidden"], case["weight"], case["bias"]]
    ours, theirs = torch.autograd.grad(2.5 * loss, leaves), torch.autograd.grad(2.5 * brute, leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reported["sq_prob"], expected["sq_prob"].detach())
    torch.testing.assert_close(reported["hidden_gradient_sq"], (theirs[0] / 2.5).square().sum(1))
    assert not reported["entropy"].requires_grad


def test_the_same_hidden_states_as_old_give_exactly_zero_divergence(case):
    head = LinearHead(case["weight"].detach().float())
    hidden = case["hidden"].detach().float()
    tilt = {"tilt": torch.zeros(N)}
    names = ["kl_old", "sq_residual"]
    s = token_statistics(hidden, head, HeadRequest(case["targets"], names, inputs=tilt, old=FixedHead(hidden, head)))
    assert s["kl_old"].abs().max() < 1e-6
    assert (s["sq_residual"] == 0).all()


def test_bf16_inputs_give_float32_statistics_close_to_float64(case):
    hidden, weight = case["hidden"].detach().bfloat16(), case["weight"].detach().bfloat16()
    got = token_statistics(hidden, LinearHead(weight), HeadRequest(case["targets"], ["logprob"]))["logprob"]
    exact = (hidden.double() @ weight.double().T).log_softmax(1)[torch.arange(N), case["targets"]]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


def test_no_tokens_give_a_zero_loss_with_zero_gradient(case):
    head = LinearHead(case["weight"])
    empty = case["hidden"][:0]
    loss, _ = token_loss(
        empty, head, lambda s, x: s["logprob"], HeadRequest(case["targets"][:0], ["logprob"], {}, case["mix"][:0])
    )
    gradient = torch.autograd.grad(loss, case["weight"])[0]
    assert loss == 0
    assert (gradient == 0).all()


def test_more_than_sixty_five_thousand_tokens():
    """Beyond 16-bit counts of rows the loss and its gradient are still those of the parts."""
    g = torch.Generator().manual_seed(2)
    count = 70_000
    hidden, weight = torch.randn(count, 4, generator=g), torch.randn(8, 4, generator=g)
    tokens = torch.randint(8, (count,), generator=g)
    x = hidden.clone().requires_grad_()
    loss, _ = token_loss(
        x,
        LinearHead(weight),
        lambda s, _: -s["logprob"],
        HeadRequest(tokens, ("logprob",), {}, torch.full((count,), 1 / count)),
    )
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, tokens)
    assert float(loss.detach()) == pytest.approx(float(plain), rel=1e-5)
    slope = torch.autograd.grad(loss, x)[0]
    error = (hidden @ weight.T).softmax(1) - torch.nn.functional.one_hot(tokens, 8)
    torch.testing.assert_close(slope[-5000:], (error @ weight)[-5000:] / count, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("logits", [[30.0, 15.5], [30.0, 20.0], [100.0, 88.0]])
def test_a_nearly_certain_token_keeps_its_gradient_in_float32(logits):
    """π(a) is 1 minus something far below the logits' rounding, and what the token loses is what the other gains."""
    z = torch.tensor([logits])
    hidden = torch.ones(1, 1).requires_grad_()
    weight = z.T.clone().requires_grad_()
    target = torch.tensor([0])
    loss, _ = token_loss(
        hidden, LinearHead(weight), lambda s, _: -s["logprob"], HeadRequest(target, ("logprob",), {}, torch.ones(1))
    )
    slope = torch.autograd.grad(loss, weight)[0].squeeze(1)
    other = float(torch.sigmoid(z.double()[0, 1] - z.double()[0, 0]))
    assert float(slope[1]) == pytest.approx(other, rel=1e-5)
    assert float(slope[0]) == pytest.approx(-other, abs=1.2e-7)


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("by_vocabulary", [True, False])
def test_the_divergence_is_from_the_old_logits_whatever_was_measured_before(case, on_policy, by_vocabulary):
    """`old_logprob` as an input replaces log π_old(a) in ratios; KL(π_old ‖ π) and its gradient know the whole of π_old."""
    head, options, _, expected = parts(case, on_policy)
    inputs = {"old_logprob": torch.full((N,), -0.1, dtype=torch.float64)}
    call = token_loss_by_vocabulary if by_vocabulary else token_loss
    found = call(
        case["hidden"],
        head,
        lambda s, _: s["kl_old"],
        HeadRequest(case["targets"], ["kl_old"], inputs, case["mix"], **options),
    )
    loss = found if by_vocabulary else found[0]
    ours = torch.autograd.grad(loss, case["hidden"])[0]
    theirs = torch.autograd.grad((expected["kl_old"] * case["mix"]).sum(), case["hidden"])[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_coefficients_that_cancel_do_not_take_the_dense_part_along(case):
    """kl_target − kl_old at tilt 0 is nothing; what stands beside it must come out as if alone."""
    head, options, _, expected = parts({**case, "tilt": torch.zeros(N, dtype=torch.float64)}, on_policy=False)
    inputs = {"tilt": torch.zeros(N, dtype=torch.float64)}
    loss, _ = token_loss(
        case["hidden"],
        head,
        lambda s, _: s["kl_target"] - s["kl_old"] + s["sq_residual"],
        HeadRequest(case["targets"], ["kl_target", "kl_old", "sq_residual"], inputs, case["mix"], **options),
    )
    ours = torch.autograd.grad(loss, case["hidden"])[0]
    theirs = torch.autograd.grad((expected["sq_residual"] * case["mix"]).sum(), case["hidden"])[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("tilt", [-2.0, -0.5, 0.5, 2.0])
@pytest.mark.parametrize("rest", [1e-6, 1e-7, 1e-9])
def test_the_push_on_a_nearly_certain_token_has_its_sign_and_size_in_float32(rest, tilt):
    """On-policy LCO-KLD: the sampled token's logit gradient is p − q = −w (1 − p), and hangs on 1 − p alone."""
    objective = METHODS["lco_kld"].bind()
    exact = torch.tensor([1 - rest, rest / 2, rest / 2], dtype=torch.float64).log()
    hidden = exact.float()[None].requires_grad_()
    request = HeadRequest(torch.tensor([0]), objective.statistics, {"tilt": torch.tensor([tilt])}, torch.ones(1))
    loss, _ = token_loss(hidden, LinearHead(torch.eye(3)), objective.loss, request)
    found = torch.autograd.grad(loss, hidden)[0][0]
    p = exact.softmax(0)
    target = (exact + torch.tensor([tilt, 0, 0]).double()).softmax(0)
    # What the sampled token loses the others gain: their sum is known to full relative precision.
    expected = float(target[1:].sum() - p[1:].sum())
    assert float(found[0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("tilt", [-2.0, -0.5, 0.5, 2.0])
@pytest.mark.parametrize("moved", [0.3, -0.3])
@pytest.mark.parametrize("rest", [1e-6, 1e-7, 1e-9])
def test_so_it_has_after_the_policy_has_moved(rest, moved, tilt):
    """Off-policy LCO-KLD: π(a) − q of two numbers next to 1 is (1 − q) − (1 − π(a)), each known to its own size."""
    objective = METHODS["lco_kld"].bind()
    old = torch.tensor([1 - rest, rest / 2, rest / 2], dtype=torch.float64).log()
    now = old + torch.tensor([moved, 0, 0]).double()
    hidden = now.float()[None].requires_grad_()
    request = HeadRequest(
        torch.tensor([0]),
        objective.statistics,
        {"tilt": torch.tensor([tilt])},
        torch.ones(1),
        old=FixedHead(old.float()[None], LinearHead(torch.eye(3))),
    )
    loss, _ = token_loss(hidden, LinearHead(torch.eye(3)), objective.loss, request)
    found = torch.autograd.grad(loss, hidden)[0][0]
    target = (old.float().double() + torch.tensor([tilt, 0, 0]).double()).softmax(0)
    expected = float(target[1:].sum() - hidden.detach()[0].double().softmax(0)[1:].sum())
    assert float(found[0]) == pytest.approx(expected, rel=1e-3)
    assert float(found.sum()) == pytest.approx(0, abs=1e-3 * abs(expected))


def test_statistics_of_no_tokens_have_their_own_type_and_width():
    """A micro-batch of empty rows on one rank must not change what the ranks put together."""
    empty, head = torch.zeros(0, 3), LinearHead(torch.eye(3))
    request = HeadRequest(torch.zeros(0, dtype=torch.int64), ["old_top/2", "token", "logprob", "old_logit_at_top/2"])
    found = token_statistics(empty, head, request)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in found.items()} == {
        "old_top/2": (torch.int64, (0, 2)),
        "token": (torch.int64, (0,)),
        "logprob": (torch.float32, (0,)),
        "old_logit_at_top/2": (torch.float32, (0, 2)),
    }
