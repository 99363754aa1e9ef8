"""The clamp of the sparse tilt: |A/β| > 20 is taken for ±20, counted, and harmless in float32."""

import math

import pytest
import torch

from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss, token_statistics
from lco.heads.mixture import TILT_BOUND, sparse_target
from lco.methods import METHODS
from lco.targets import SparseTilt, UnbiasedSparseTilt
from tests.methods.oracles import losses_by_definition

V = 7
LOSSES = [
    ("lco_kld", {}),
    *(("lco_mse", {"target_space": s}) for s in ("centred", "weighted", "raw", "logprob", "token_logprob")),
    *(("lco_lch", {"target_space": s}) for s in ("centred", "raw")),
]


def extreme_positions():
    """(z, z_old, sampled tokens, A/β): tokens that are rare, middling and nearly certain under π_old, tilts of ±90."""
    g = torch.Generator().manual_seed(0)
    z, z_old = torch.randn(2, 6, V, generator=g, dtype=torch.float64)
    tokens = torch.tensor([0, 1, 2, 3, 4, 5])
    z_old[torch.arange(6), tokens] += torch.tensor([-12.0, 0, 12, -12, 0, 12]).double()
    return z, z_old, tokens, torch.tensor([90.0, 90, 90, -90, -90, -90]).double()


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize(("name", "hyper"), LOSSES)
def test_tilts_of_90_are_finite_in_float32_and_those_of_20(name, hyper, on_policy):
    """Loss and gradient are those of c = ±20 by the definition in float64: nothing of e⁹⁰ is left."""
    z, z_old, tokens, ratio = extreme_positions()
    beta = 0.5
    method = METHODS[name]
    objective = method.bind({"beta": beta, **hyper})
    head = LinearHead(torch.eye(V))
    new = z_old if on_policy else z
    free = new.float().requires_grad_()
    loss, reported = token_loss(
        free,
        head,
        objective.loss,
        HeadRequest(
            tokens,
            objective.statistics,
            {"advantage": (ratio * beta).float()},
            torch.ones(6),
            old=None if on_policy else FixedHead(z_old.float(), head),
            target=objective.target,
            report=("tilt_clamped", "target_tv", "target_kl"),
        ),
    )
    slope = torch.autograd.grad(loss, free)[0]
    assert torch.isfinite(loss)
    assert torch.isfinite(slope).all()
    assert all(torch.isfinite(value).all() for value in reported.values())
    assert (reported["tilt_clamped"] == 1).all()
    exact = new.clone().requires_grad_()
    expected = losses_by_definition(name, hyper.get("target_space"), exact, z_old, tokens, ratio.clamp(-20, 20)).sum()
    torch.testing.assert_close(slope.double(), torch.autograd.grad(expected, exact)[0], rtol=5e-4, atol=1e-4)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=5e-4)


def test_the_log_probability_target_of_a_nearly_certain_token_is_exact_in_float32():
    """1 − p = 1e-8 and c = −20: log π*(a) is −1.79, which LCO-KLD gets right here from the other tokens' sum."""
    rest = 1e-8
    z_old = torch.tensor([[0.0, math.log(rest / 2), math.log(rest / 2)]])
    free, method = torch.zeros(1, 3, requires_grad=True), METHODS["lco_mse"]
    objective = method.bind({"beta": 1.0, "target_space": "token_logprob"})
    head = LinearHead(torch.eye(3))
    loss, _ = token_loss(
        free,
        head,
        objective.loss,
        HeadRequest(
            torch.tensor([0]),
            objective.statistics,
            {"advantage": torch.tensor([-20.0])},
            torch.ones(1),
            old=FixedHead(z_old, head),
            target=objective.target,
        ),
    )
    goal = -20 - math.log(rest + (1 - rest) * math.exp(-20))
    assert float(loss.detach()) == pytest.approx((-math.log(3) - goal) ** 2 / 2, rel=1e-3)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_clamp_is_counted_where_it_acts_and_bounds_the_tilt(scale):
    """β is multiplied for negative advantages before the bound is asked, so at 100 no negative one reaches it."""
    advantage = torch.tensor([0.5, 9.9, 10.1, 45.0, -9.9, -10.1, -45.0]).double()
    z = torch.zeros(len(advantage), V).double()
    found = token_statistics(
        z,
        LinearHead(torch.eye(V).double()),
        HeadRequest(
            torch.zeros(len(advantage), dtype=torch.int64),
            ["tilt", "tilt_clamped"],
            inputs={"advantage": advantage},
            target=SparseTilt(0.5, scale),
        ),
    )
    negative = [-19.8, -20.0, -20.0] if scale == 1 else [-0.198, -0.202, -0.9]
    assert found["tilt"].tolist() == pytest.approx([1.0, 19.8, 20.0, 20.0, *negative])
    assert found["tilt_clamped"].tolist() == [0, 0, 1, 1, *([0, 1, 1] if scale == 1 else [0, 0, 0])]


@pytest.mark.parametrize("estimator", ["sparse", "sparse_ips"])
def test_a_run_chooses_the_bound_and_what_reaches_it_is_counted(estimator):
    """At the default nothing of this is clamped; in a dense estimator, which clamps nothing, the bound is refused."""
    advantage = torch.tensor([0.5, 2.0, -2.0, 8.0]).double()
    inputs = {"advantage": advantage}

    def measured(**hyper):
        target = METHODS["lco_mse"].bind({"beta": 1.0, "estimator": estimator, **hyper}).target
        request = HeadRequest(torch.zeros(4, dtype=torch.int64), ["tilt", "tilt_clamped"], inputs, target=target)
        z = torch.tensor([[40.0, 0, 0]]).double().expand(4, 3)  # the sampled token is certain, so both tilts are A/β
        return token_statistics(z, LinearHead(torch.eye(3).double()), request)

    free, bounded = measured(), measured(tilt_bound=2.0)
    assert free["tilt"].tolist() == pytest.approx(advantage.tolist())
    assert free["tilt_clamped"].tolist() == [0, 0, 0, 0]
    assert bounded["tilt"].tolist() == pytest.approx([0.5, 2, -2, 2])
    assert bounded["tilt_clamped"].tolist() == [0, 1, 1, 1]
    with pytest.raises(UserError, match=r"tilt_bound is 2\.0, which only estimator=sparse or sparse_ips reads"):
        METHODS["lco_mse"].bind({"estimator": "logprob", "tilt_bound": 2.0})


def test_the_unbiased_tilt_is_bounded_after_its_division():
    """A/(β π_old(a)) of a rare token passes the bound where A/β does not."""
    z_old = torch.tensor([[-9.0, 0, 0], [0, 0, 0]]).double()
    for least, expected in ((1e-3, [TILT_BOUND, 3.0]), (0.1, [10.0, 3.0])):
        found = token_statistics(
            z_old,
            LinearHead(torch.eye(3).double()),
            HeadRequest(
                torch.tensor([0, 0]),
                ["tilt", "tilt_clamped"],
                inputs={"advantage": torch.ones(2).double()},
                target=SparseTilt(1.0) if least is None else UnbiasedSparseTilt(1.0, least_probability=least),
            ),
        )
        assert found["tilt"].tolist() == pytest.approx(expected)
        assert found["tilt_clamped"].tolist() == [float(expected[0] == TILT_BOUND), 0]


@pytest.mark.parametrize("c", [-90.0, 90.0])
@pytest.mark.parametrize("p", [1e-9, 0.5, 1 - 1e-6, 1.0])
def test_the_target_itself_is_finite_in_float32_beyond_the_clamp(p, c):
    """e⁹⁰ is infinite in float32; a caller that gives its own tilt (the ρ-target does) is not clamped."""
    found = sparse_target(torch.tensor(p).log(), torch.tensor(c))
    values = (found.stay, found.imitate, found.probability, found.others, found.log_partition, found.kl, found.moved)
    assert all(torch.isfinite(value) for value in values), found
    assert 0 <= float(found.probability) <= 1
