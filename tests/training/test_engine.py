"""The torch engine: float32 masters behind bfloat16 parameters, exact state, refused gradients."""

import pytest
import torch

from lco.config import Experiment
from lco.heads import HeadRequest
from lco.policy import PolicyModel, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine, exact_norm, learning_rate_factor
from tests.conftest import tiny_model


def engine(dtype, lr=1e-6, **extra):
    return TorchEngine(PolicyModel(tiny_model("llama").to(dtype)), Experiment(model="tiny", lr=lr, **extra))


def update(e, scale=1.0):
    batch = collate([Row("a", (3, 4), (5, 6, 7), "stop", ()), Row("b", (8,), (9,), "stop", ())])
    weight = batch.response_mask / batch.response_mask.sum() * scale
    for row in (0, 1):
        scale = (weight * (torch.arange(2)[:, None] == row))[batch.response_mask]
        head = HeadRequest(batch.response_ids[batch.response_mask], ("logprob",), {}, scale)
        asked = TokenLoss(lambda s, x: -s["logprob"], head)
        e.backward(e.forward(batch, asked).loss, last=row == 1)
    return e.step()


def test_small_updates_are_not_lost_in_bfloat16():
    """At lr 1e-6 no single update moves a bfloat16 weight; the masters add them up as float32 does."""
    low, full = engine(torch.bfloat16), engine(torch.float32)
    before = {name: value.clone() for name, value in low.masters().items()}
    for _ in range(20):
        update(low)
        update(full)
    for name, value in low.masters().items():
        moved, expected = (
            value - before[name],
            full.masters()[name] - tiny_model("llama").state_dict()[name[len("model.") :]],
        )
        assert value.dtype == torch.float32
        large = expected.abs() > 1.5e-5
        agree = (moved[large].sign() == expected[large].sign()).float().mean() if large.any() else torch.ones(())
        assert agree > 0.9, name
    for p, copy in low.pairs:
        assert torch.equal(p, copy.to(torch.bfloat16))


def test_state_is_restored_exactly(tmp_path):
    for dtype in (torch.bfloat16, torch.float32):
        folder = tmp_path / str(dtype)
        folder.mkdir()
        first, second = engine(dtype, lr=1e-3), engine(dtype, lr=1e-3)
        update(first)
        first.save(folder)
        second.load(folder)
        update(first)
        update(second)
        for name, value in first.masters().items():
            assert torch.equal(value, second.masters()[name]), name


def test_a_gradient_that_is_not_finite_is_not_applied():
    e = engine(torch.float32, lr=1e-2)
    before = {name: value.clone() for name, value in e.masters().items()}
    assert not update(e, scale=float("nan")).applied
    assert all(torch.equal(value, before[name]) for name, value in e.masters().items())
    assert update(e).applied


def test_warm_up_is_linear_then_constant():
    warm = Experiment(warmup_updates=3, steps=9)
    assert [learning_rate_factor(u, warm) for u in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate_factor(0, Experiment()) == 1.0


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_decay_is_the_one_of_transformers_after_the_warm_up(schedule, warmup):
    from transformers import get_scheduler

    run = Experiment(lr_schedule=schedule, warmup_updates=warmup, steps=5, epochs=2, minibatches=2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    peer = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=20)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step()
    ours = [learning_rate_factor(u, run) for u in range(20)]
    assert ours[warmup:] == pytest.approx(expected[warmup:])
    assert ours[:warmup] == sorted(ours[:warmup])
    assert 0 < ours[-1] < 0.1
    assert learning_rate_factor(20, run) == 0.0


def test_the_norm_of_a_large_tensor_is_exact():
    """torch's own float32 sum of squares loses the small ones: a control that the case is hard enough."""
    x = 1e-5 * torch.randn(2**25 + 3, generator=torch.Generator().manual_seed(0))
    expected = sum(float(part.double().square().sum()) for part in x.split(2**20)) ** 0.5
    assert float(exact_norm(x)) == pytest.approx(expected, rel=1e-6)
    assert float(x.norm()) != pytest.approx(expected, rel=1e-4)
    small = x[:1000]
    assert float(exact_norm(small)) == float(small.norm())
