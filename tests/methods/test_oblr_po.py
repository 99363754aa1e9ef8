"""OBLR-PO: the weighted baseline, what it is weighted by, and the learning rate from the noise of the gradients before."""

import dataclasses
import itertools
import shutil

import pytest
import torch

from lco.advantages import leave_one_out, weighted_leave_one_out
from lco.config import Experiment
from lco.errors import UserError
from lco.heads import HeadRequest
from lco.heads.norms import row_score_norms
from lco.methods import METHODS
from lco.policy import HeadNorms, PolicyModel, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine
from lco.training.learner import policy_gradient
from lco.training.noise import GradientMeter, GradientNoise, estimate_noise
from lco.training.once_per_rollout import ask_row_norms
from lco.training.resolve import resolve
from lco.training.state import Policies
from tests.conftest import START, lines, small, tiny_model, train, without_time

ONE = torch.zeros(5, dtype=torch.int64)


def test_the_weighted_baseline_has_its_golden_values():
    rewards, norms = torch.tensor([1.0, 0, 0, 1, 0]), torch.tensor([3.0, 1, 2, 2, 4])
    found = weighted_leave_one_out(rewards, ONE, norms)
    assert found.tolist() == pytest.approx([0.777778, -0.454545, -0.5, 0.7, -0.625], abs=1e-6)


def test_equal_norms_make_it_rloos_and_equal_rewards_nothing():
    rewards, groups = torch.tensor([1.0, 0, 0, 1, 0.5]), torch.tensor([0, 0, 1, 0, 1])
    torch.testing.assert_close(
        weighted_leave_one_out(rewards, groups, torch.full((5,), 3.0)), leave_one_out(rewards, groups)
    )
    assert not weighted_leave_one_out(torch.full((5,), 0.1), groups, torch.rand(5)).any()
    # Rows without tokens have no gradient: where only they are left the plain mean stands.
    alone = weighted_leave_one_out(torch.tensor([1.0, 0, 0]), ONE[:3], torch.tensor([2.0, 0, 0]))
    assert alone.tolist() == pytest.approx([1.0, -1.0, -1.0])


def test_the_baseline_without_the_row_itself_is_unbiased_and_the_weighted_one_has_the_least_variance():
    """All pairs of arms of a bandit with five: the expected gradient is the exact one."""
    g = torch.Generator().manual_seed(0)
    p = torch.randn(5, generator=g, dtype=torch.float64).softmax(0)
    rewards = torch.randn(5, generator=g, dtype=torch.float64)
    scores = torch.eye(5, dtype=torch.float64) - p
    norms = scores.square().sum(1)
    expected = torch.zeros(5, dtype=torch.float64)
    for arms in itertools.product(range(5), repeat=2):
        drawn = torch.tensor(arms)
        a = weighted_leave_one_out(rewards[drawn], ONE[:2], norms[drawn])
        expected += p[drawn].prod() * (a[:, None] * scores[drawn]).mean(0)
    torch.testing.assert_close(expected, (p * rewards) @ scores)
    best = float((p * norms * rewards).sum() / (p * norms).sum())
    variance = {
        b: float((p * norms * (rewards - b).square()).sum()) for b in (best, *torch.linspace(-2, 2, 41).tolist())
    }
    assert min(variance, key=variance.__getitem__) == best


ROWS = [Row("a", (3, 4), (5, 6, 7), "stop", ()), Row("a", (3, 4), (), "stop", ()), Row("b", (8,), (12, 13), "stop", ())]


def autograd_norms(policy, parameters):
    """[R] by one backward pass a row through whole logits."""
    found = []
    for row in ROWS:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        states = policy.model.model(ids).last_hidden_state[0, len(row.prompt_ids) - 1 : -1]
        z = policy.model.lm_head(states).log_softmax(1)
        total = z.gather(1, torch.tensor(row.response_ids, dtype=torch.int64)[:, None]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        found.append(sum(float(g.square().sum()) for g in gradients if g is not None))
    return found


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_norms_of_rows_are_autograds(micro_batch):
    policy = PolicyModel(tiny_model("llama", tied=False).double())
    policies = Policies(TorchEngine(policy, Experiment(model="x")), None, {}, micro_batch)
    batch = collate(ROWS)
    head, every = [policy.head().weight], [p for p in policy.parameters() if p.requires_grad]
    for kind, parameters in (("head", head), ("exact", every)):
        found = ask_row_norms(policies, kind, batch)
        assert found.tolist() == pytest.approx(autograd_norms(policy, parameters), rel=1e-5)
        assert found[1] == 0
    logits = ask_row_norms(policies, "logit", batch)
    with torch.no_grad():
        z = policy._hidden(batch) @ policy.head().weight.T
        away = torch.nn.functional.one_hot(batch.response_ids[batch.response_mask], 64) - z.softmax(1)
    squares = away.square().sum(1)
    assert logits.tolist() == pytest.approx([float(squares[:3].sum()), 0, float(squares[3:].sum())])
    assert ask_row_norms(policies, "", batch) is None


def test_norms_of_the_head_know_the_temperature_and_no_chunk():
    policy = PolicyModel(tiny_model("qwen", tied=False).double(), temperature=2.0)
    batch = collate(ROWS)
    with torch.no_grad():
        hidden, found = policy._hidden(batch), policy(batch, HeadNorms())
    tokens = batch.response_ids[batch.response_mask]
    assert row_score_norms(hidden, policy.head(), tokens, [3, 0, 2], 1).tolist() == pytest.approx(found.tolist())
    z = (hidden @ policy.head().weight.detach().T / 2).softmax(1)
    away = torch.nn.functional.one_hot(tokens, 64) - z
    whole = away[:3].T @ hidden[:3] / 2
    assert float(found[0]) == pytest.approx(float(whole.square().sum()))


def test_signal_and_noise_are_unbiased_and_the_factor_is_the_best_step():
    """Over many draws of K micro-batch gradients; their two numbers add up to the square of the whole."""
    g = torch.Generator().manual_seed(1)
    mean, count, draws = torch.tensor([1.0, -0.5, 0.2]).double(), 4, 4000
    parts = (mean + torch.randn(draws, count, 3, generator=g, dtype=torch.float64)) / count
    found = [estimate_noise(part.square().sum(1).tolist(), float(part.sum(0).square().sum())) for part in parts]
    signal, noise = torch.tensor(found).mean(0).tolist()
    assert noise == pytest.approx(3 / count, rel=0.05)
    assert signal == pytest.approx(float(mean.square().sum()), rel=0.1)  # the bound at 0 lifts it a little
    factor = METHODS["oblr_po"].bind({"rate_floor": 0.01}).rate.factor
    for share in (0.0, 0.3, 1.0):  # of E[−η g·ĝ + ½ η² ‖ĝ‖²], minimised over η
        bound = {eta / 100: -eta / 100 * share + (eta / 100) ** 2 / 2 * (share + 1) for eta in range(101)}
        assert factor(share, 1.0) == pytest.approx(max(0.01, min(bound, key=bound.__getitem__)), abs=0.006)
    assert factor(1.0, 0.0) == 1.0
    assert factor(0.0, 0.0) == 0.01  # all rewards equal: no number is made of 0/0


def test_averages_begin_with_the_first_estimate_and_go_on_from_a_record():
    noise = GradientNoise()
    assert noise.describe() == {}
    noise.add(1.0, 2.0, 0.9)
    noise.add(2.0, 4.0, 0.9)
    assert (noise.signal, noise.noise) == pytest.approx((1.1, 2.2))
    again = GradientNoise()
    again.restore([noise.describe(), {"skipped": "no row"}])
    assert again == noise


def test_the_meter_reads_each_backward_pass_by_itself():
    engine = TorchEngine(PolicyModel(tiny_model("llama")), Experiment(model="x", clip_norm=0.0))
    meter = GradientMeter(engine.policy)
    parameters, whole = [p for p in engine.policy.parameters() if p.requires_grad], 0
    for number, row in enumerate((0, 2)):
        part = collate([ROWS[row]])
        given = {"advantage": torch.full(part.response_ids[part.response_mask].shape, 1.0 - 1.5 * number)}
        request = HeadRequest(
            part.response_ids[part.response_mask], ("logprob",), given, torch.ones(len(given["advantage"]))
        )
        before = [0 if p.grad is None else p.grad.clone() for p in parameters]
        engine.backward(engine.forward(part, TokenLoss(policy_gradient, request)).loss, last=bool(number))
        expected = sum(float((p.grad - old).square().sum()) for p, old in zip(parameters, before, strict=True))
        assert meter.take() == pytest.approx(expected, rel=1e-4)
        whole += expected
    assert whole > 0
    assert meter.take() == 0


def test_a_learning_rate_follows_the_noise_and_a_resume_goes_on_with_it(tmp_path):
    run = small(tmp_path / "run", method="oblr_po", save_every=1, eval_every=0)
    folder = train(run)
    whole = lines(folder)
    assert all(0.1 <= line["lr_factor"] <= 1 for line in whole)
    assert any(line["lr_factor"] < 1 for line in whole)
    assert all(line["gradient_noise"] > 0 for line in whole)
    shutil.rmtree(folder / "checkpoints" / "final")
    shutil.rmtree(folder / "checkpoints" / "step-000003")
    train(run, resume=True)
    assert [without_time(x) for x in lines(folder)] == [without_time(x) for x in whole]


def test_one_micro_batch_leaves_the_learning_rate_and_says_so_once(tmp_path, capsys):
    run = small(tmp_path / "run", method="oblr_po", micro_batch=16, steps=2, eval_every=0)
    assert [(line["lr_factor"], line["lr"]) for line in lines(train(run))] == [(1.0, 1e-3)] * 2
    assert capsys.readouterr().err.count("oblr_po: an update of one micro-batch has no noise to estimate") == 1


def test_the_gradient_of_a_row_is_refused_where_no_rank_has_it_whole(tmp_path):
    run = small(
        tmp_path, method="oblr_po", hyper={"norm_proxy": "exact"}, engine="deepspeed", model=str(START / "llama")
    )
    with pytest.raises(UserError, match="needs the gradient of each row by itself"):
        resolve(run)
    with pytest.raises(UserError, match="needs the gradient of each micro-batch by itself"):
        resolve(dataclasses.replace(run, hyper={}))
    assert resolve(dataclasses.replace(run, hyper={"norm_proxy": "head", "adaptive_rate": False}))
