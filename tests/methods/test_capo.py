"""CAPO: limits, divisors, the step that it predicts against the one that the optimizer makes, and what a run says."""

import dataclasses

import pytest
import torch

from lco.config import Experiment
from lco.errors import UserError
from lco.heads import HeadRequest
from lco.losses import token_scale
from lco.methods import METHODS
from lco.methods.invariants import rollout
from lco.policy import PolicyModel, Statistics, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine
from lco.training.learner import policy_gradient
from lco.training.resolve import resolve
from tests.conftest import START, lines, small, tiny_model, train
from tests.methods.test_generic import gradient_of

FREE = {"delta_fisher": 1e30, "delta_hessian": 1e30}


@pytest.mark.parametrize(("name", "base"), [("capo", "grpo"), ("dr_capo", "dr_grpo")])
def test_without_bounds_it_is_its_base_to_the_last_bit(name, base):
    z_old, z_new, tokens, signal = rollout()
    hyper = {"epsilon_std": 1e-4} if base == "grpo" else {}
    found = gradient_of(name, FREE, z_old, z_new, tokens, signal)
    assert torch.equal(found, gradient_of(base, hyper, z_old, z_new, tokens, signal))


def test_the_reward_itself_is_the_advantage_of_the_variant_without_a_baseline():
    *_, signal = rollout()
    found = METHODS["rein_capo"].bind().advantage(signal)["advantage"]
    assert torch.equal(found, signal.rewards[:, None] * signal.mask)


@pytest.mark.parametrize("name", ["capo", "dr_capo"])
def test_tokens_that_are_left_out_leave_the_divisor_too(name):
    """A row without a token that stays leaves the count of rows; a row with some is averaged over these."""
    objective = METHODS[name].bind({"delta_fisher": 1.0, "delta_hessian": 1.0})
    mask = torch.arange(4) < torch.tensor([4, 2, 0, 3])[:, None]
    slope = torch.zeros(4, 4)
    slope[0, 1], slope[1, :2] = 9.0, 9.0
    slope[~mask] = torch.nan
    stays = mask & (slope < 1)
    x = {"advantage": torch.ones(4, 4) * mask}
    found = objective.prepare_inputs({"step_slope": slope, "step_spread": torch.zeros(4, 4)}, x, mask)
    whole = token_scale(mask, objective.reduction, limit=7)
    expected = token_scale(stays, objective.reduction, limit=7)
    torch.testing.assert_close(found.inputs["weight"] * whole, expected)
    assert found.numbers["rejected"] == pytest.approx(3 / 9)
    assert found.numbers["predicted_fisher"] == pytest.approx(3 * 40.5 / 9)


def test_both_rules_keep_what_they_say():
    slope = torch.tensor([[-0.2, -0.05, 0.0, 0.05, 0.2]])
    s, mask = {"step_slope": slope, "step_spread": slope.square()}, torch.ones(1, 5, dtype=torch.bool)
    hyper = {"delta_fisher": 1.0, "delta_hessian": 0.1}
    x = {"advantage": torch.ones(1, 5)}
    rules = {"symmetric": [0, 1, 1, 1, 0], "band": [0, 0, 1, 1, 0]}
    for rule, stays in rules.items():
        found = METHODS["capo"].bind({**hyper, "hessian_rule": rule}).prepare_inputs(s, x, mask)
        assert (found.inputs["weight"] > 0).int().tolist() == [stays]
    tight = METHODS["capo"].bind({**hyper, "delta_fisher": 0.5 * 0.04**2}).prepare_inputs(s, x, mask)
    assert (tight.inputs["weight"] > 0).int().tolist() == [[0, 0, 1, 0, 0]]
    with pytest.raises(UserError, match=r"hessian_low is 0\.1, which only hessian_rule=band reads"):
        METHODS["capo"].bind({"hessian_low": 0.1})


ROWS = [Row("a", (3, 4), (5,), "stop", ()), Row("a", (9, 8, 7), (6,), "stop", ())]


def test_the_predicted_step_of_a_token_is_the_one_that_the_optimizer_makes_of_it():
    """A minibatch of one token: log π moves, to first order in lr and as far as the head moves it, by the slope."""
    experiment = Experiment(model="x", lr=1e-5, clip_norm=0.0, weight_decay=0.0, beta1=0.8, beta2=0.95)
    policy = PolicyModel(tiny_model("llama", tied=False).double())
    engine = TorchEngine(policy, experiment)
    assert engine.head_step(True).first is None  # no step has left any moments
    for row, advantage in ((ROWS[0], 1.0), (ROWS[1], -0.7)):
        batch, given = collate([row]), {"advantage": torch.tensor([advantage]).double()}
        asked = Statistics(("step_slope", "logprob"), given, engine.head_step(True))
        with torch.no_grad():
            before = engine.forward(batch, asked)
            hidden = policy._hidden(batch)
        request = HeadRequest(batch.response_ids[batch.response_mask], ("logprob",), given, torch.ones(1).double())
        engine.backward(engine.forward(batch, TokenLoss(policy_gradient, request)).loss, last=True)
        weight = policy.head().weight.detach().clone()
        engine.step()
        delta = (hidden @ (policy.head().weight.detach() - weight).T)[0]
        p = (hidden @ weight.T).softmax(1)[0]
        moved = delta[row.response_ids[0]] - p @ delta
        if engine.updates == 2:  # before the first step the prediction is plain descent's, as in the released code
            assert float(before["step_slope"][0, 0]) == pytest.approx(float(moved), rel=1e-5)
    assert engine.head_step(True).count == 2
    assert engine.head_step(False).first is None


def test_the_learning_rate_is_that_of_the_step_to_come():
    engine = TorchEngine(PolicyModel(tiny_model("llama")), Experiment(model="x", lr=1e-3, warmup_updates=3))
    assert engine.head_step(False).lr == pytest.approx(2.5e-4)
    step = engine.step()
    assert step.lr == pytest.approx(2.5e-4)
    assert engine.head_step(False).lr == pytest.approx(5e-4)


def test_a_run_leaves_tokens_out_and_says_how_many(tmp_path):
    hyper = {"delta_fisher": 1e-3, "delta_hessian": 0.05}
    runs = {}
    for name, more in {"token": {}, "sgd": {"optimizer": "sgd"}, "batch": {"direction": "batch"}}.items():
        run = small(tmp_path / name, method="capo", hyper={**hyper, **more}, steps=2, eval_every=0)
        runs[name] = lines(train(run))
    for found in runs.values():
        for line in found:
            assert 0 <= line["rejected"] <= line["rejected_fisher"] + line["rejected_hessian"]
            assert line["predicted_fisher"] >= 0
    assert any(line["rejected"] > 0 for line in runs["token"])


def test_a_minibatch_without_a_token_that_stays_teaches_nothing_and_says_so():
    objective, mask = METHODS["capo"].bind(), torch.ones(2, 3, dtype=torch.bool)
    s = {"step_slope": torch.ones(2, 3), "step_spread": torch.zeros(2, 3)}
    found = objective.prepare_inputs(s, {"advantage": torch.ones(2, 3)}, mask)
    assert not found.inputs["weight"].any()
    assert found.numbers["rejected"] == 1
    assert set(found.notes) == {"minibatches_all_rejected"}


def test_micro_batches_change_no_token_that_is_left_out(tmp_path):
    hyper = {"delta_fisher": 1e-3, "delta_hessian": 0.05}
    found = [
        lines(train(small(tmp_path / str(size), method="capo", hyper=hyper, steps=1, eval_every=0, micro_batch=size)))[
            0
        ]
        for size in (3, 16)
    ]
    assert found[0]["rejected"] == pytest.approx(found[1]["rejected"], abs=0.02)
    assert found[0]["gradient_norm"] == pytest.approx(found[1]["gradient_norm"], rel=0.02)


@pytest.mark.parametrize("hyper", [{}, {"direction": "batch", "optimizer": "sgd"}])
def test_a_step_that_no_rank_knows_whole_is_refused_before_anything_is_loaded(tmp_path, hyper):
    run = small(tmp_path, method="capo", hyper=hyper, engine="deepspeed", model=str(START / "llama"))
    with pytest.raises(UserError, match="reads the head's moments or gradient before a step, which DeepSpeed spreads"):
        resolve(run)
    assert resolve(dataclasses.replace(run, hyper={"optimizer": "sgd"}))
