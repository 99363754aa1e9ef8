"""The head in blocks of the vocabulary, and spread over ranks, against the head that sees the vocabulary at once."""

import math
import os

import pytest
import torch
import torch.distributed as dist

from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss
from lco.heads.vocabulary import Shard, token_loss_by_vocabulary
from lco.methods import METHODS
from lco.targets import LogProbabilityTilt, PreferenceRatioTilt, UnbiasedSparseTilt

N, V, D = 7, 37, 5
METHODS_HERE = ("lco_kld", "grpo", "reinforce", "sft", "dppo")


def case(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return {
        "hidden": draw(N, D), "weight": draw(V, D), "bias": draw(V), "old_hidden": draw(N, D), "old_weight": draw(V, D),
        "targets": torch.randint(V, (N,), generator=g), "tilt": 3 * draw(N), "scale": draw(N),
    }  # fmt: skip


def ask(call, x, name, off_policy, rows=slice(None), given=("tilt", "advantage"), target=None, **options):
    """(loss, gradients of hidden states, weight rows, bias rows)"""
    method = METHODS[name]
    objective = method.bind()
    leaves = [x["hidden"].clone().requires_grad_()] + [x[k][rows].clone().requires_grad_() for k in ("weight", "bias")]
    old = FixedHead(x["old_hidden"], LinearHead(x["old_weight"][rows], None, 0.7)) if off_policy else None
    found = call(
        leaves[0],
        LinearHead(leaves[1], leaves[2], 0.7),
        objective.loss,
        HeadRequest(
            x["targets"], objective.statistics, dict.fromkeys(given, x["tilt"]), x["scale"], old=old, target=target
        ),
        **options,
    )
    loss = found[0] if isinstance(found, tuple) else found
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def ask_recorded(call, x, rows=slice(None), **options):
    """As `ask`, of a loss that learns through log-probabilities at tokens that a sampler recorded, the sampled one among them
    in some places, and through their distance from what it recorded."""
    g = torch.Generator().manual_seed(1)
    tokens = torch.stack([torch.randperm(V, generator=g)[:4] for _ in range(N)])
    tokens[::2, 1] = x["targets"][::2]
    inputs = {"sampler_top/4": tokens, "sampler_logprob_at_top/4": -3 * torch.rand(N, 4, generator=g).double()}
    leaves = [x["hidden"].clone().requires_grad_()] + [x[k][rows].clone().requires_grad_() for k in ("weight", "bias")]

    def function(s, _):
        apart = s["logprob_at_sampler_top/4"] - s["sampler_logprob_at_top/4"]
        return (apart.square() * torch.arange(1, 5)).sum(-1) + s["logprob"] * (s["sampler_top/4"] == 7).sum(-1)

    names = ("logprob", "logprob_at_sampler_top/4", "sampler_logprob_at_top/4", "sampler_top/4")
    request = HeadRequest(x["targets"], names, inputs, x["scale"])
    found = call(leaves[0], LinearHead(leaves[1], leaves[2], 0.7), function, request, **options)
    loss = found[0] if isinstance(found, tuple) else found
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("block", [1, 5, 100])
def test_recorded_tokens_are_found_in_whatever_block_they_are(block):
    whole = ask_recorded(token_loss, case())
    for a, b in zip(ask_recorded(token_loss_by_vocabulary, case(), block=block), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_likeliest_tokens_that_nobody_recorded_are_refused_where_the_vocabulary_comes_in_blocks():
    x, name = case(), "logprob_at_sampler_top/4"
    request = HeadRequest(x["targets"], (name,), {}, x["scale"])
    with pytest.raises(ValueError, match=r"'sampler_top/4' is no input, .*; use token_loss"):
        token_loss_by_vocabulary(x["hidden"], LinearHead(x["weight"]), lambda s, _: s[name].sum(-1), request)


@pytest.mark.parametrize("name", METHODS_HERE)
@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("block", [1, 5, 100])
def test_blocks_of_any_size_give_the_whole(name, off_policy, block):
    whole = ask(token_loss, case(), name, off_policy)
    parts = ask(token_loss_by_vocabulary, case(), name, off_policy, block=block)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_certain_tokens_and_strong_tilts_are_as_exact_in_blocks():
    x = case()
    x["hidden"], x["old_hidden"] = 6 * x["hidden"], 6 * x["old_hidden"]
    x["targets"] = (x["old_hidden"] @ x["old_weight"].T).argmax(1)
    x["tilt"] = torch.full((N,), -15.0).double()
    for a, b in zip(
        ask(token_loss_by_vocabulary, x, "lco_kld", True, block=5), ask(token_loss, x, "lco_kld", True), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["lco_mse", "lco_lch"])
def test_what_needs_the_vocabulary_at_once_is_refused(name):
    with pytest.raises(ValueError, match="use token_loss"):
        ask(token_loss_by_vocabulary, case(), name, True)


@pytest.mark.parametrize("dense", [LogProbabilityTilt(2.0), PreferenceRatioTilt(2.0)])
@pytest.mark.parametrize("name", ["lco_kld", "grpo"])
def test_a_dense_target_is_refused_by_name(dense, name):
    with pytest.raises(ValueError, match=f"{type(dense).__name__} tilts every token .*; use token_loss"):
        ask(token_loss_by_vocabulary, case(), name, True, given=("advantage",), target=dense)


def test_a_sparse_target_gives_what_the_whole_head_gives():
    parts, whole = (
        ask(call, case(), "lco_kld", True, given=("advantage",), target=UnbiasedSparseTilt(2.0, least_probability=0.05))
        for call in (token_loss_by_vocabulary, token_loss)
    )
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_loss_that_is_not_affine_in_a_divergence_is_refused():
    x = case()
    with pytest.raises(ValueError, match="not affine"):
        token_loss_by_vocabulary(
            x["hidden"],
            LinearHead(x["weight"]),
            lambda s, _: s["kl_old"] ** 2,
            HeadRequest(
                x["targets"], ("kl_old",), {}, x["scale"], old=FixedHead(x["old_hidden"], LinearHead(x["old_weight"]))
            ),
        )


def rank_of_two(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    rows = slice(0, 20) if rank == 0 else slice(20, V)
    shard = Shard(rows.start, dist.group.WORLD)
    found = {
        f"{name} {off}": ask(token_loss_by_vocabulary, case(), name, off, rows, block=6, shard=shard)
        for name in METHODS_HERE
        for off in (False, True)
    }
    found["recorded tokens"] = ask_recorded(token_loss_by_vocabulary, case(), rows, block=6, shard=shard)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_a_head_spread_over_two_ranks_is_the_whole_head(tmp_path):
    """Tensor parallel: every rank gets the loss and ∂L/∂h, and the gradient of its own rows."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.spawn(rank_of_two, (port, tmp_path), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for key in ranks[0]:
        name, off = key.split()
        whole = ask_recorded(token_loss, case()) if name == "recorded" else ask(token_loss, case(), name, off == "True")
        loss, hidden, weight, bias = whole
        for rank in ranks:
            torch.testing.assert_close(rank[key][0], loss, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(rank[key][1], hidden, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(torch.cat([r[key][2] for r in ranks]), weight, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(torch.cat([r[key][3] for r in ranks]), bias, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["lco_mse", "lco_lch"])
def test_a_statistic_that_was_measured_before_the_update_is_read_in_blocks_too(name):
    """`raw` off-policy at z = (1, 0, 0) with no tilt and old logit 0: x = 1, so ½ and (1, 0, 0) for the square."""
    objective = METHODS[name].bind({"target_space": "raw"})
    losses = []
    for call in (token_loss, token_loss_by_vocabulary):
        hidden = torch.tensor([[1.0, 0, 0]]).double().requires_grad_()
        inputs = {
            "tilt": torch.zeros(1).double(),
            "old_logit": torch.zeros(1).double(),
            "old_logprob": torch.zeros(1).double(),
        }
        request = HeadRequest(torch.tensor([0]), objective.statistics, inputs, torch.ones(1).double())
        found = call(hidden, LinearHead(torch.eye(3).double()), objective.loss, request)
        loss = found[0] if isinstance(found, tuple) else found
        losses.append((float(loss.detach()), torch.autograd.grad(loss, hidden)[0][0].tolist()))
    assert losses[0] == losses[1]
    if name == "lco_mse":
        assert losses[0] == (0.5, [1.0, 0.0, 0.0])
    else:
        assert losses[0][0] == pytest.approx(math.log(math.cosh(1)))
