"""The golden values computed once, in float64, by an independent script."""

import math

import pytest
import torch

from lco.advantages import penalised_rewards
from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss, token_statistics
from lco.lab.position import Positions, logit_gradient
from lco.lab.ray import centred, cosines
from lco.methods import METHODS
from lco.targets import SparseTilt

Z_OLD = torch.tensor([[1.0, 0.0, -1.0, 2.0]], dtype=torch.float64)
Z_NEW = torch.tensor([[1.2, 0.3, -0.8, 1.5]], dtype=torch.float64)
ACTION = torch.tensor([1])
BETA = 2.0


def loss_and_gradient(name, advantage, **hyper):
    """Loss and logit gradient at one position: the head is the identity, so hidden states are logits."""
    method = METHODS[name]
    objective = method.bind({"beta": BETA, **hyper})
    hidden = Z_NEW.clone().requires_grad_()
    eye = torch.eye(4, dtype=torch.float64)
    inputs = {"advantage": torch.tensor([advantage]).double(), "tilt": torch.tensor([advantage / BETA]).double()}
    loss, _ = token_loss(
        hidden,
        LinearHead(eye),
        objective.loss,
        HeadRequest(
            ACTION, objective.statistics, inputs, torch.ones(1).double(), old=FixedHead(Z_OLD, LinearHead(eye))
        ),
    )
    return float(loss.detach()), torch.autograd.grad(loss, hidden)[0][0]


@pytest.mark.parametrize(
    ("name", "hyper", "advantage", "loss", "gradient"),
    [
        ("lco_kld", {}, 1.0, 0.047702, (0.121602, 0.004607, 0.016457, -0.142666)),
        ("lco_kld", {}, -1.0, 0.090472, (0.100516, 0.085863, 0.013603, -0.199983)),
        ("lco_mse", {"target_space": "raw"}, 1.0, 0.020000, (0, -0.2, 0, 0)),
        ("lco_mse", {"target_space": "raw"}, -1.0, 0.320000, (0, 0.8, 0, 0)),
        ("lco_mse", {"target_space": "centred"}, 1.0, 0.173750, (0.275, -0.125, 0.275, -0.425)),
        ("lco_mse", {"target_space": "centred"}, -1.0, 0.423750, (0.025, 0.625, 0.025, -0.675)),
        ("lco_mse", {"target_space": "weighted"}, 1.0, 0.046828, None),
        ("lco_mse", {"target_space": "weighted"}, -1.0, 0.094062, None),
        ("lco_mse", {"target_space": "token_logprob"}, 1.0, 0.000555, None),
        ("lco_mse", {"target_space": "token_logprob"}, -1.0, 0.445033, None),
        ("lco_lch", {"target_space": "raw"}, 1.0, 0.019868, (0, -0.197375, 0, 0)),
        ("lco_lch", {"target_space": "raw"}, -1.0, 0.290754, (0, 0.664037, 0, 0)),
        ("lco_lch", {"target_space": "centred"}, 1.0, 0.170201, None),
        ("lco_lch", {"target_space": "centred"}, -1.0, 0.396768, None),
    ],
)
def test_one_position(name, hyper, advantage, loss, gradient):
    got, slope = loss_and_gradient(name, advantage, **hyper)
    assert got == pytest.approx(loss, abs=1e-6)
    if gradient is not None:
        torch.testing.assert_close(slope, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


def test_target_of_one_position():
    from lco.heads.mixture import sparse_target

    old = Z_OLD.log_softmax(1)[0, 1]
    cases = ((0.5, 0.054992, 0.053507, 0.135989, 0.013002), (-0.5, -0.034890, -0.035506, 0.054732, 0.007524))
    for c, log_z, w, q, kl in cases:
        target = sparse_target(old, torch.tensor(c).double())
        found = (target.log_partition, target.imitate, target.probability, target.kl)
        assert [float(x) for x in found] == pytest.approx([log_z, w, q, kl], abs=1e-6)


def test_the_target_is_so_far_from_the_old_policy():
    for advantage, tv in ((1.0, 0.048845), (-1.0, 0.032412)):
        found = token_statistics(
            Z_OLD,
            LinearHead(torch.eye(4).double()),
            HeadRequest(
                ACTION, ["target_tv"], inputs={"advantage": torch.tensor([advantage]).double()}, target=SparseTilt(BETA)
            ),
        )
        assert float(found["target_tv"]) == pytest.approx(tv, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "hyper", "advantage", "cosine"),
    [
        ("lco_kld", {}, 1.0, 0.883386), ("lco_kld", {}, -1.0, 0.866357),
        # r = 1.61, so at A > 0 the surrogate is clipped, and its direction is that of a clip that does not reach so far.
        ("ppo", {"clip": 0.7}, 1.0, 0.027782), ("ppo", {}, -1.0, 0.881229),
    ],
)  # fmt: skip
def test_cosine_with_the_way_to_the_target(name, hyper, advantage, cosine):
    """Of −∇L with P(z* − z); the policy gradient's weight r A has no part in it but its sign."""
    method = METHODS[name]
    c = torch.tensor([advantage]).double()
    objective = method.bind(
        {
            **({"beta": BETA} if "beta" in method.hyperparameters and "estimator" in method.hyperparameters else {}),
            **hyper,
        }
    )
    at = Positions(Z_OLD, ACTION, c, c / BETA)
    way = Z_OLD + c / BETA * torch.nn.functional.one_hot(ACTION, 4) - Z_NEW
    found = cosines(-centred(logit_gradient(objective, Z_NEW, at).gradient), centred(way))
    assert float(found) == pytest.approx(cosine, abs=1e-6)


def test_k1_has_its_golden_value():
    """It stands in rewards alone, as a penalty."""
    old, reference = (torch.tensor([[p]]).double().log() for p in (0.5, 0.3))
    found = penalised_rewards(torch.zeros(1).double(), torch.ones(1, 1, dtype=torch.bool), 1.0, old, reference)
    assert float(found) == pytest.approx(-0.510826, abs=1e-6)


def test_k3_has_its_golden_value():
    from lco.losses import k3

    assert float(k3(torch.tensor(0.5).log(), torch.tensor(0.3).log())) == pytest.approx(0.110826, abs=1e-6)


def test_group_advantages_have_their_golden_values():
    from lco.advantages import leave_one_out, standardised

    rewards, groups = torch.tensor([1.0, 0, 0, 1, 0]), torch.zeros(5, dtype=torch.int64)
    for ddof, right, wrong in ((0, 1.224745, -0.816497), (1, 1.095445, -0.730297)):
        found = standardised(rewards, groups, ddof, 0.0)
        assert found[:2].tolist() == pytest.approx([right, wrong], abs=1e-5)
    assert leave_one_out(rewards, groups)[:2].tolist() == pytest.approx([0.75, -0.5])


def test_gae_has_its_golden_values():
    from lco.advantages import gae

    values, mask = torch.tensor([[0.2, 0.4, 0.5]]), torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = gae(torch.tensor([[0.0, 0, 1]]), values, mask, 1.0, 0.95)
    assert advantages[0].tolist() == pytest.approx([0.74625, 0.575, 0.5])
    assert returns[0].tolist() == pytest.approx([0.94625, 0.975, 1.0])


def test_trust_region_of_the_sparse_target():
    """TV(π*, π_old) = |q − p| ≤ tanh(|c|/4), attained where p = σ(−c/2)."""
    from lco.heads.mixture import sparse_target

    for c in (0.1, 0.5, 2.0, -3.0):
        p = torch.linspace(1e-4, 1 - 1e-4, 20001, dtype=torch.float64)
        moved = (sparse_target(p.log(), torch.full_like(p, c)).probability - p).abs().max()
        assert float(moved) == pytest.approx(math.tanh(abs(c) / 4), rel=1e-6)
