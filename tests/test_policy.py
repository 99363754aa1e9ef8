"""The policy's answers against the model's own logits, and what must not change them."""

import dataclasses

import pytest
import torch

from lco.config import Experiment
from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, HeadStep, spread
from lco.losses import token_scale
from lco.methods import METHODS
from lco.methods.objective import Signal
from lco.policy import FixedPolicy, PolicyModel, RowLoss, Snapshot, Statistics, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine
from lco.training.learner import Learner
from lco.training.plan import MicroBatch
from lco.training.state import Policies, UpdateInputs
from tests.conftest import tiny_model
from tests.methods.test_generic import HYPERS


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)

    def ids(n):
        return tuple(torch.randint(3, 64, (n,), generator=g).tolist())

    # A row without response, a row of one token, and a response that contains the pad id 0.
    return [
        Row("a", ids(4), ids(6), "stop", ()),
        Row("a", ids(7), ids(1), "stop", ()),
        Row("b", ids(2), (), "length", ()),
        Row("b", ids(3), (5, 0, 0, 7), "length", ()),
    ]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_statistics_equal_the_models_own_logits(kind, tied, temperature):
    model = tiny_model(kind, tied)
    found = PolicyModel(model, temperature)(collate(rows()), Statistics(["logprob", "entropy"]))
    for i, row in enumerate(rows()):
        if not row.response_ids:
            continue
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1] / temperature
        logp = logits.log_softmax(-1)
        n = len(row.response_ids)
        expected = logp[torch.arange(n), list(row.response_ids)]
        torch.testing.assert_close(found["logprob"][i, :n], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["entropy"][i, :n], -(logp.exp() * logp).sum(-1), rtol=1e-4, atol=1e-5)
        assert (found["logprob"][i, n:] == 0).all()


def request(kind, batch, old=None):
    method = METHODS["lco_kld"]
    objective = method.bind()
    g = torch.Generator().manual_seed(5)
    a = torch.randn(batch.response_mask.shape, generator=g)
    scale = batch.response_mask / batch.response_mask.sum()
    return ask(kind, batch, objective, {"tilt": a, "advantage": a}, scale, old)


def ask(kind, batch, objective, inputs, scale, old, fixed=None):
    """The request that a learner makes of the inputs [B, T] and the policies at the same rows."""
    mask = batch.response_mask
    head = HeadRequest(
        tokens=batch.response_ids[mask],
        statistics=objective.statistics,
        inputs={name: value[mask] for name, value in inputs.items()},
        scale=scale[mask],
        old=stacked(old),
        target=objective.target,
        fixed={name: stacked(policy) for name, policy in (fixed or {}).items()},
        report=("logprob", "entropy"),
    )
    return kind(objective.loss, head)


def stacked(policy):
    return None if policy is None else FixedHead(torch.cat(policy.hidden), policy.head)


def gradients(policy, batch, asked):
    policy.zero_grad()
    answer = policy(batch, asked)
    answer.loss.backward()
    return answer, {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def old_policy(batch, tied, kind="qwen"):
    return PolicyModel(tiny_model(kind, tied, seed=9))(batch, Snapshot())


def request_of(kind, batch, old, name, hyper):
    """What the loop asks for a method: its own advantage, target, and the fixed policies that the target reads."""
    method = METHODS[name]
    objective, mask = method.bind(hyper), batch.response_mask
    g = torch.Generator().manual_seed(5)
    values, reference, before = (-torch.rand(mask.shape, generator=g) for _ in range(3))
    signal = Signal(
        torch.tensor([1.0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), mask, torch.zeros(4, dtype=torch.bool), 6, tuple("abcd"),
        (0.5,), values, reference, before, torch.rand(4, generator=g),
    )  # fmt: skip
    inputs = objective.advantage(signal)
    target = objective.target
    fixed = {
        which: PolicyModel(tiny_model(seed=20 + i))(batch, Snapshot())
        for i, which in enumerate(target.fixed if target else ())
    }
    if objective.prepare_statistics:
        step = HeadStep(lr=1e-5) if objective.needs.head_step else None
        given = {name: value[mask] for name, value in inputs.items()}
        found = PolicyModel(tiny_model("qwen"))(batch, Statistics(objective.prepare_statistics, given, step))
        inputs |= objective.prepare_inputs(found, inputs, mask).inputs
    scale = token_scale(mask, method.reduction, inputs["advantage"], 6)
    return ask(kind, batch, objective, inputs, scale, old, fixed)


@pytest.mark.parametrize(("name", "hyper"), [(n, h) for n, h in HYPERS if METHODS[n].scope == "token"])
@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_token_and_row_requests_agree(tied, off_policy, name, hyper):
    """Both give the same loss, statistics and gradients for whatever both can express, with every setting of a method."""
    batch, policy = collate(rows()), PolicyModel(tiny_model("qwen", tied))
    old = old_policy(batch, tied) if off_policy else None
    token, token_gradient = gradients(policy, batch, request_of(TokenLoss, batch, old, name, hyper))
    row, row_gradient = gradients(policy, batch, request_of(RowLoss, batch, old, name, hyper))
    torch.testing.assert_close(token.loss, row.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(token.statistics["entropy"], row.statistics["entropy"])
    assert any(value.abs().max() > 0 for value in token_gradient.values())
    assert token_gradient.keys() == row_gradient.keys()
    for parameter, value in token_gradient.items():
        torch.testing.assert_close(value, row_gradient[parameter], rtol=1e-4, atol=1e-6)


def test_gradient_equals_plain_autograd_through_full_logits():
    """LCO-KLD off-policy against KL(π* ‖ π) written out on whole logits, for every parameter."""
    batch, model = collate(rows()), tiny_model("llama", True)
    policy, old_model = PolicyModel(model), tiny_model("llama", True, seed=9)
    asked = request(TokenLoss, batch, old_policy(batch, True, "llama"))
    _, ours = gradients(policy, batch, asked)
    tilt, scale = (spread(x, batch.response_mask) for x in (asked.head.inputs["tilt"], asked.head.scale))
    policy.zero_grad()
    total = torch.zeros(())
    for i, row in enumerate(rows()):
        n, start = len(row.response_ids), len(row.prompt_ids) - 1
        if not n:
            continue
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        z, z_old = model(ids).logits[0, start:-1], old_model(ids).logits[0, start:-1].detach()
        onehot = torch.nn.functional.one_hot(torch.tensor(row.response_ids), 64)
        target = (z_old + tilt[i, :n, None] * onehot).softmax(-1)
        total = total + (scale[i, :n] * (target * (target.log() - z.log_softmax(-1))).sum(-1)).sum()
    total.backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scope", ["token", "row"])
def test_garbage_in_padding_changes_nothing(scope):
    """From what a learner is given to the gradient: ids, constants and weights of padded places."""
    batch, policy = collate(rows()), PolicyModel(tiny_model())
    objective = dataclasses.replace(METHODS["lco_kld"].bind(), scope=scope)
    experiment = Experiment(model="tiny", lr=1e-3)
    learner = Learner(experiment, objective, Policies(TorchEngine(policy, experiment), None, {}, 8))
    old = old_policy(batch, True)
    snapshots = {row: FixedHead(hidden, old.head) for row, hidden in enumerate(old.hidden)}
    g, pad = torch.Generator().manual_seed(5), ~batch.response_mask
    constants = {"advantage": torch.randn(pad.shape, generator=g)}
    scale = dict(enumerate(batch.response_mask / batch.response_mask.sum()))
    part = MicroBatch(tuple(range(len(rows()))), real=True)

    def answer(batch, constants, scale):
        asked = learner.loss_request(UpdateInputs(batch, constants, snapshots, {}), part, scale)
        return gradients(policy, batch, asked)

    clean, clean_gradient = answer(batch, constants, scale)
    dirty = dataclasses.replace(batch, input_ids=batch.input_ids.masked_fill(batch.attention_mask == 0, 63))
    noise = {name: value.masked_fill(pad, float("nan")) for name, value in constants.items()}
    found, gradient = answer(dirty, noise, {row: x.masked_fill(pad[row], float("inf")) for row, x in scale.items()})
    assert clean.loss != 0
    torch.testing.assert_close(found.loss, clean.loss, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.statistics["entropy"], clean.statistics["entropy"])
    for name, value in clean_gradient.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-7)


def first_update_gap(policy, pass_policy):
    """Largest difference between a pass without gradient and the first update's forward."""
    batch = collate(rows())
    before = pass_policy(batch, Statistics(["logprob"]))["logprob"]
    during = policy(batch, request(TokenLoss, batch)).statistics["logprob"]
    return float((before - during).abs().max())


def test_the_first_updates_forward_repeats_a_separate_pass_and_two_controls_do_not():
    model = tiny_model("llama", attention_dropout=0.3)
    policy = PolicyModel(model)
    model.gradient_checkpointing_enable()  # which needs training mode, where dropout would act
    assert first_update_gap(policy, policy) <= 1e-5
    assert first_update_gap(policy, PolicyModel(model, temperature=0.7)) > 1e-2
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    assert first_update_gap(policy, policy) > 1e-2


def test_the_critic_reads_the_state_before_the_token_and_starts_at_zero():
    batch, policy = collate(rows()), PolicyModel(tiny_model(), critic=True)
    values = policy(batch, Statistics(["value"]))["value"]
    assert (values == 0).all()
    with torch.no_grad():
        policy.value_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    values = policy(batch, Statistics(["value"]))["value"]
    row = rows()[0]
    states = policy.model.base_model(torch.tensor([[*row.prompt_ids, *row.response_ids]])).last_hidden_state[0]
    expected = policy.value_head(states[len(row.prompt_ids) - 1 : -1]).squeeze(-1)
    torch.testing.assert_close(values[0, : len(row.response_ids)], expected, rtol=1e-4, atol=1e-5)


def test_a_soft_cap_is_refused():
    model = tiny_model()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(UserError, match="Qwen2ForCausalLM caps its final logits at 30"):
        PolicyModel(model)


def test_snapshot_keeps_hidden_states_and_a_copy_of_the_head():
    batch, policy = collate(rows()), PolicyModel(tiny_model())
    kept = policy(batch, Snapshot())
    assert isinstance(kept, FixedPolicy)
    assert [len(h) for h in kept.hidden] == [6, 1, 0, 4]
    with torch.no_grad():
        policy.model.lm_head.weight.add_(1)
    assert not torch.equal(kept.head.weight, policy.model.lm_head.weight)


def test_tied_heads_are_in_the_named_weights():
    names = dict(PolicyModel(tiny_model(tied=True)).named_weights())
    assert "lm_head.weight" in names
    assert "model.embed_tokens.weight" in names


def test_gradient_checkpointing_recomputes_and_changes_no_gradient():
    batch, model = collate(rows()), tiny_model("llama")
    policy, calls = PolicyModel(model), []
    _, plain = gradients(policy, batch, request(TokenLoss, batch))
    model.gradient_checkpointing_enable()
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    _, recomputed = gradients(policy, batch, request(TokenLoss, batch))
    assert len(calls) == 2
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, rtol=1e-5, atol=1e-7)
