"""Weights for another process: in buckets, under the names of the model's files, and the same policy on both sides."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from lco import models
from lco.errors import UserError
from lco.models.weights import check_names, checkpoint_shapes, checkpoint_weights
from lco.policy import PolicyModel, Statistics
from lco.rollout.agreement import check_agreement
from lco.rollout.records import Sampling
from lco.rollout.transfer import buckets, write_buckets
from lco.rollout.transformers import TransformersSampler
from tests.conftest import tiny_model

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def mixture(kind):
    """A random mixture of experts."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE, **EXPERTS)).eval()


def test_buckets_hold_every_weight_once_in_order_and_no_more_than_their_size():
    weights = [(str(i), torch.full((n,), float(i))) for i, n in enumerate((3, 3, 50, 1, 1, 1))]
    found = [*buckets(iter(weights), size=24)]
    assert [list(bucket) for bucket in found] == [["0", "1"], ["2"], ["3", "4", "5"]]
    assert all(torch.equal(bucket[name], dict(weights)[name]) for bucket in found for name in bucket)


def test_a_bucket_is_gone_before_the_weights_of_the_next_one_are_made(tmp_path):
    """What is gathered (under ZeRO-3, one parameter at a time) is let go as soon as its bucket is written."""
    import weakref

    alive, most = weakref.WeakSet(), []

    class Counted(torch.Tensor):
        pass

    def weights():
        for i in range(20):
            tensor = torch.zeros(256).as_subclass(Counted)
            alive.add(tensor)
            most.append(len(alive))
            yield str(i), tensor

    write_buckets(weights(), tmp_path, size=2048)
    assert len(most) == 20
    assert max(most) <= 2
    assert len(list(tmp_path.glob("*.safetensors"))) == 10


def test_tied_weights_are_written_under_both_names(tmp_path):
    model = tiny_model(tied=True)
    names = write_buckets(model.state_dict().items(), tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    found = load_file(file)
    assert set(names) == set(found) == set(model.state_dict())
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


def test_no_room_for_weights_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"the weights for vLLM do not fit into .*--rollouts transformers"):
        write_buckets(tiny_model().state_dict().items(), tmp_path / "not there" / "folder")


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "gpt_neox", "qwen2", "gpt2"])
def test_weights_go_out_under_the_names_that_save_pretrained_writes(tmp_path, kind):
    """The modules of a mixture of experts hold all experts of a layer in one tensor, under other names."""
    model = mixture(kind)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    saved = {name: t for file in tmp_path.glob("*.safetensors") for name, t in load_file(file).items()}
    sent = dict(checkpoint_weights(model, model.state_dict().items()))
    assert all(torch.equal(saved[name], sent[name]) for name in saved)
    assert sent.keys() - saved.keys() <= {"lm_head.weight"}
    if kind in ("qwen3_moe", "mixtral"):
        experts = {name for name in saved.keys() - model.state_dict().keys() if ".experts." in name}
        assert len(experts) == 2 * 3 * 4
    check_names(models.load_model(str(tmp_path), "float32", "cpu"), str(tmp_path))
    assert checkpoint_shapes(str(tmp_path)) == {name: tuple(t.shape) for name, t in saved.items()}


def test_weights_under_other_names_than_the_files_are_refused(tmp_path):
    """A checkpoint in the layout of the modules: transformers reads it, a reader of checkpoints would not know it."""
    model = mixture("qwen3_moe")
    model.save_pretrained(tmp_path, save_original_format=False)
    with pytest.raises(UserError, match=r"cannot be handed to vLLM: \d+ of its weights have other names .*experts"):
        check_names(model, str(tmp_path))


SAMPLING = Sampling(temperature=0.9, top_p=1.0, top_k=0, max_new_tokens=12, samples=3, stop_token_ids=(2,))
ASKED = [(str(i), (1, 5, 6 + i)) for i in range(6)]


def agree(sampler, policy, gather=lambda value: [value], **changes):
    def logprob(batch):
        return policy(batch, Statistics(["logprob"]))["logprob"]

    return check_agreement(sampler, logprob, gather, ASKED, dataclasses.replace(SAMPLING, **changes), "float32")


def test_a_sampler_of_the_same_weights_agrees_and_of_others_does_not():
    model = tiny_model(seed=1)
    policy = PolicyModel(model, temperature=0.9)
    assert agree(TransformersSampler(model), policy) < 1e-5
    with pytest.raises(
        UserError, match=r"differ by .* a token \(limit 0\.01\) right after the weights were handed over"
    ):
        agree(TransformersSampler(tiny_model(seed=2)), policy)
    with pytest.raises(UserError, match=r"differ by"):
        agree(TransformersSampler(model), PolicyModel(model, temperature=1.0))


def test_a_gap_that_is_no_number_is_no_agreement():
    broken = tiny_model(seed=1)
    with torch.no_grad():
        broken.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(UserError, match=r"differ by nan"):
        agree(TransformersSampler(tiny_model(seed=1)), PolicyModel(broken, temperature=0.9))


def test_a_rank_without_a_sampler_compares_the_rows_of_the_one_that_has():
    """Every rank calls forward once, with the same rows, as ZeRO-3 needs."""
    model, asked = tiny_model(seed=1), []
    policy = PolicyModel(model, temperature=0.9)

    def forward(batch, request):
        asked.append(len(batch.response_lengths))
        return policy(batch, request)

    rows = TransformersSampler(model).sample(
        ASKED[:4], dataclasses.replace(SAMPLING, samples=1, max_new_tokens=8), seed=0
    )
    assert agree(None, forward, gather=lambda value: [rows, value]) < 1e-5
    assert asked == [4]
