"""LoRA: adapters at full rank train what full training trains; samplers and folders get merged weights, checkpoints adapters."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from lco.config import Experiment
from lco.errors import UserError
from lco.heads import HeadRequest
from lco.models.lora import add_adapters, merged_weights
from lco.policy import PolicyModel, Statistics, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine
from lco.training.resolve import resolve
from tests.conftest import lines, small, tiny_model, train, weights, without_time

BATCH = collate([Row("a", (1, 4, 5), (6, 7, 8, 9), "length", ()), Row("b", (1, 9), (11, 12), "length", ())])


def updates(engine, count):
    """Steps of cross-entropy."""
    mask = BATCH.response_mask
    for _ in range(count):
        request = HeadRequest(BATCH.response_ids[mask], ("logprob",), {}, torch.ones(int(mask.sum())).double())
        engine.backward(engine.forward(BATCH, TokenLoss(lambda s, _: -s["logprob"], request)).loss, last=True)
        engine.step()


def linear_layers(model):
    return {
        f"{name}.weight": part
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and part is not model.get_output_embeddings()
    }


@pytest.mark.parametrize("kind", ["qwen", "llama"])
def test_at_full_rank_with_a_fixed_identity_it_is_full_training_of_the_same_layers(kind):
    """With A the identity, B is the change of W, and AdamW's steps on one are its steps on the other."""
    experiment = Experiment(model="tiny", lr=1e-3)
    full, adapted = tiny_model(kind).double(), tiny_model(kind).double()
    trained = linear_layers(full)
    full.requires_grad_(False)
    for layer in trained.values():
        layer.weight.requires_grad_()
    add_adapters(adapted, rank=64, alpha=64)
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False).copy_(torch.eye(*parameter.shape))
    before = {name: value.clone() for name, value in full.state_dict().items()}
    for model in (full, adapted):
        updates(TorchEngine(PolicyModel(model), experiment), 4)
    found = dict(merged_weights(adapted))
    assert found.keys() == before.keys()
    for name, value in full.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-8)
        assert torch.equal(value, before[name]) == (name not in trained), name


def test_fresh_adapters_change_nothing_and_merged_weights_are_what_the_model_computes():
    model, plain = tiny_model("llama"), tiny_model("llama")
    add_adapters(model, rank=4, alpha=8)
    asked = Statistics(["logprob"])
    assert torch.equal(PolicyModel(model)(BATCH, asked)["logprob"], PolicyModel(plain)(BATCH, asked)["logprob"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    there = PolicyModel(model)(BATCH, asked)["logprob"]
    assert not torch.allclose(there, PolicyModel(plain)(BATCH, asked)["logprob"], atol=0.1)
    plain.load_state_dict(dict(merged_weights(model)))
    torch.testing.assert_close(PolicyModel(plain)(BATCH, asked)["logprob"], there, rtol=1e-4, atol=1e-4)


def test_a_run_trains_adapters_alone_saves_them_alone_and_leaves_an_ordinary_model(tmp_path):
    whole = train(small(tmp_path / "whole", method="grpo", lora_rank=2, steps=4, save_every=2, lr=1e-2, eval_every=0))
    assert all(line["sampler_gap_max"] < 1e-3 for line in lines(whole))
    saved = load_file(whole / "checkpoints" / "step-000004" / "model.safetensors")
    assert saved
    assert all(".lora_" in name for name in saved)
    final = weights(whole)
    assert not [name for name in final if "lora" in name or "base_layer" in name]
    start = load_file(small("x").model + "/model.safetensors")
    moved = {name for name, value in final.items() if not torch.equal(value, start[name])}
    assert moved == {name for name in final if name.endswith("_proj.weight")}

    part = small(tmp_path / "part", method="grpo", lora_rank=2, steps=2, lr=1e-2, eval_every=0)
    train(part)
    resumed = train(dataclasses.replace(part, steps=4), resume=True)
    assert [without_time(line) for line in lines(resumed)] == [without_time(line) for line in lines(whole)]
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in final.items())


def test_adapters_with_recomputed_activations_have_the_same_gradient():
    found = []
    for checkpointing in (False, True):
        model = tiny_model("llama")
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        add_adapters(model, rank=2, alpha=4)
        engine = TorchEngine(PolicyModel(model), Experiment(model="tiny", lr=1e-2))
        updates(engine, 2)
        found.append(engine.masters())
    assert found[0]
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_adapters_under_deepspeed_are_refused():
    with pytest.raises(UserError, match=r"lora_rank is 8, and adapters are trained in one process alone"):
        resolve(Experiment(model="m", lora_rank=8, engine="deepspeed"))
