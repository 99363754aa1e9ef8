"""The optimizer's coming step on the head: golden values, brute force over the whole vocabulary, and the optimizer itself."""

import pytest
import torch

from lco.heads import HeadRequest, HeadStep, LinearHead, step, token_statistics

F64 = torch.float64


def predicted(head_step, probs, tokens, states, advantage):
    found = step.predict_step(head_step, probs, tokens, states, advantage)
    return found.slope, found.spread


def bounds(slope, spread, advantage):
    """m_F and m_H of arXiv 2510.00819."""
    return slope.square() / 2, advantage * (slope + (slope.square() - spread) / 2)


@pytest.mark.parametrize(
    ("moments", "advantage", "slope", "fisher", "hessian"),
    [
        (False, 1.0, 0.19, 0.01805, 0.18985),
        (False, -1.0, -0.19, 0.01805, 0.19015),
        (True, 1.0, 0.2013670, 0.020274, 0.201331),
        (True, -1.0, -0.2312389, 0.026736, 0.231434),
    ],
)
def test_one_position_has_its_golden_values(moments, advantage, slope, fisher, hessian):
    """π = (.5, .3, .2), h = (1, 2), lr .1; Adam after one update with a gradient of the objective g₀."""
    g = torch.tensor([[0.1, -0.2], [0.05, 0.1], [-0.15, 0.1]], dtype=F64)
    held = {"first": -0.1 * g, "second": 0.001 * g * g, "count": 1} if moments else {}
    probs, states = torch.tensor([[0.5, 0.3, 0.2]], dtype=F64), torch.tensor([[1.0, 2.0]], dtype=F64)
    a = torch.tensor([advantage], dtype=F64)
    found, spread = predicted(HeadStep(0.1, **held), probs, torch.tensor([0]), states, a)
    assert float(found) == pytest.approx(slope, abs=1e-6)
    small, curved = bounds(found, spread, a)
    assert (float(small), float(curved)) == pytest.approx((fisher, hessian), abs=1e-6)


class Case:
    """N positions of a head in float64, with moments, and everything written out on [V, d]."""

    def __init__(self, seed=0, count=7, size=11, width=5):
        g = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=g, dtype=F64)

        self.weight, self.states, self.advantage = draw(size, width), draw(count, width), draw(count)
        self.tokens = torch.randint(size, (count,), generator=g)
        self.moments = {"first": 0.1 * draw(size, width), "second": 0.01 * draw(size, width).square(), "count": 3}
        self.logits = self.states @ self.weight.T

    def moved(self, i, lr, kind):
        """[V, d]: the head's change by the step of token i."""
        onehot = torch.nn.functional.one_hot(self.tokens[i], len(self.weight))
        g = -self.advantage[i] * torch.outer(onehot - self.logits[i].softmax(0), self.states[i])
        if kind == "sgd":
            return -lr * g
        mean = (0.9 * self.moments["first"] + 0.1 * g) / (1 - 0.9**4)
        square = (0.999 * self.moments["second"] + 0.001 * g * g) / (1 - 0.999**4)
        return -lr * mean / (square.sqrt() + 1e-8)

    def statistics(self, lr, kind="adam", top=0, **more):
        head_step = HeadStep(lr, **(self.moments if kind == "adam" else {}), top=top, **more)
        request = HeadRequest(self.tokens, ("step_slope", "step_spread"), {"advantage": self.advantage}, step=head_step)
        found = token_statistics(self.states, LinearHead(self.weight), request, chunk_size=3)
        return found["step_slope"], found["step_spread"]

    def restricted(self, i, delta, top):
        """(slope, spread) of one token with the vocabulary cut to its likeliest ones and itself."""
        p = self.logits[i].softmax(0)
        chosen = sorted({*p.topk(top).indices.tolist(), int(self.tokens[i])})
        p, delta = p[chosen] / p[chosen].sum(), delta[chosen]
        mean = p @ delta
        return delta[chosen.index(int(self.tokens[i]))] - mean, p @ (delta - mean) ** 2


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("entries", [1, 23, 1 << 22])
def test_the_prediction_is_brute_forces_on_the_whole_vocabulary_however_it_is_cut(kind, entries, monkeypatch):
    monkeypatch.setattr(step, "ENTRIES", entries)
    case = Case()
    slope, spread = case.statistics(0.05, kind)
    for i in range(len(case.tokens)):
        delta = case.moved(i, 0.05, kind) @ case.states[i]
        expected = case.restricted(i, delta, len(case.weight))
        assert (float(slope[i]), float(spread[i])) == pytest.approx(tuple(map(float, expected)), rel=1e-9, abs=1e-13)
    assert (spread >= 0).all()


@pytest.mark.parametrize("top", [1, 4, 10, 11, 50])
def test_the_likeliest_tokens_and_the_sampled_one_stand_for_the_vocabulary(top):
    """Under Adam the rows move by themselves, so only π changes; from V on it is exact."""
    case = Case(seed=1)
    slope, spread = case.statistics(0.05, top=top)
    for i in range(len(case.tokens)):
        p = case.logits[i].softmax(0)
        chosen = sorted({*p.topk(min(top, len(p))).indices.tolist(), int(case.tokens[i])})
        cut = torch.full_like(case.logits[i], -torch.inf)
        cut[chosen] = case.logits[i][chosen]
        one = Case(seed=1)
        one.logits[i] = cut
        expected = one.restricted(i, one.moved(i, 0.05, "adam") @ one.states[i], min(top, len(p)))
        assert (float(slope[i]), float(spread[i])) == pytest.approx(tuple(map(float, expected)), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_the_curvature_bound_is_the_change_of_the_objective_up_to_third_order(kind):
    case, errors = Case(seed=2), {}
    for lr in (1e-3, 1e-4):
        slope, spread = case.statistics(lr, kind)
        _, curved = bounds(slope, spread, case.advantage)
        exact = []
        for i in range(len(case.tokens)):
            after = ((case.weight + case.moved(i, lr, kind)) @ case.states[i]).log_softmax(0)
            before = case.logits[i].log_softmax(0)
            exact.append(case.advantage[i] * torch.expm1((after - before)[case.tokens[i]]))
        errors[lr] = float((curved - torch.stack(exact)).abs().max())
    assert errors[1e-4] < 2e-3 * errors[1e-3]
    assert errors[1e-4] < 1e-6


def test_plain_descent_is_bounded_by_one_number_whatever_the_sign():
    """s = lr A ‖e_a − π‖² ‖h‖², so m_F does not know the sign of A."""
    case = Case(seed=3)
    slope, _ = case.statistics(0.05, "sgd")
    v = torch.nn.functional.one_hot(case.tokens, len(case.weight)) - case.logits.softmax(1)
    expected = 0.05 * case.advantage * v.square().sum(1) * case.states.square().sum(1)
    torch.testing.assert_close(slope, expected)
    case.advantage = -case.advantage
    torch.testing.assert_close(case.statistics(0.05, "sgd")[0].square(), slope.square())


def test_a_step_that_moves_all_logits_alike_moves_no_policy():
    case = Case(seed=4)
    alike = torch.ones_like(case.weight)
    for slope, spread in (
        case.statistics(0.05, "sgd", gradient=alike),
        case.statistics(0.05, "sgd", 4, gradient=alike),
    ):
        assert float(slope.abs().max()) < 1e-12
        assert float(spread.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_one_gradient_for_all_tokens_moves_each_by_the_same_step(kind):
    case = Case(seed=5)
    gradient = 0.2 * case.weight.roll(1, 0)
    slope, _ = case.statistics(0.05, kind, gradient=gradient)
    change = 0.05 * gradient
    if kind == "adam":
        mean = (0.9 * case.moments["first"] + 0.1 * gradient) / (1 - 0.9**4)
        square = (0.999 * case.moments["second"] + 0.001 * gradient**2) / (1 - 0.999**4)
        change = 0.05 * mean / (square.sqrt() + 1e-8)
    delta = -case.states @ change.T
    expected = delta.gather(1, case.tokens[:, None])[:, 0] - (case.logits.softmax(1) * delta).sum(1)
    torch.testing.assert_close(slope, expected)


def test_the_temperature_divides_what_a_step_moves():
    case = Case(seed=6)
    request = HeadRequest(
        case.tokens, ("step_slope",), {"advantage": case.advantage}, step=HeadStep(0.05, **case.moments)
    )
    warm = token_statistics(case.states, LinearHead(case.weight, temperature=2.0), request)["step_slope"]
    case.states = case.states / 2
    cooled = token_statistics(case.states, LinearHead(case.weight), request)["step_slope"]
    torch.testing.assert_close(warm, cooled)


def test_bfloat16_states_give_a_finite_float32_prediction():
    case = Case(seed=7)
    moments = {name: value.float() if name != "count" else value for name, value in case.moments.items()}
    request = HeadRequest(
        case.tokens, ("step_slope", "step_spread"), {"advantage": case.advantage.float()}, step=HeadStep(0.05, **moments, top=4)
    )  # fmt: skip
    found = token_statistics(case.states.bfloat16(), LinearHead(case.weight.bfloat16()), request)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in found.values())
