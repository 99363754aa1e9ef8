"""A GGUF file trains like a folder does, with vLLM rollouts too; vLLM itself cannot read this one's de-quantised form."""

import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
import pytest

from lco import models
from lco.config import Experiment
from lco.errors import UserError
from lco.policy import PolicyModel
from lco.scratch import LOCK
from lco.training.load import folder_for_vllm
from tests.conftest import train

WIDTH, LAYERS, HEADS, CONTEXT = 64, 2, 2, 128
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}<|endoftext|>{% endfor %}<|assistant|>"


def byte_tokens():
    """The 256 byte tokens of GPT-2's alphabet, as strings."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(other))]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def written(path, without=""):
    """A random Llama of two layers with a byte tokenizer; one of its tensors may be left out."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    tokens = ["<|endoftext|>", "<|user|>", "<|assistant|>", *byte_tokens(), "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATE)
    draws = np.random.default_rng(0)

    def tensor(name, *shape):
        if name == without:
            return
        writer.add_tensor(name, (draws.standard_normal(shape) / 8).astype(np.float32))

    tensor("token_embd.weight", len(tokens), WIDTH)
    tensor("output.weight", len(tokens), WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for i in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{i}.{name}.weight", WIDTH, WIDTH)
        tensor(f"blk.{i}.ffn_gate.weight", 2 * WIDTH, WIDTH)
        tensor(f"blk.{i}.ffn_up.weight", 2 * WIDTH, WIDTH)
        tensor(f"blk.{i}.ffn_down.weight", WIDTH, 2 * WIDTH)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_that_vllm_reads_in_its_place_has_an_owner(path, tmp_path, monkeypatch):
    """It holds a whole model: after a kill it goes with the next process, as every scratch folder does."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    policy = PolicyModel(models.load_model(str(path), "float32", "cpu"), 1.0)
    with folder_for_vllm(str(path), policy) as folder:
        assert (Path(folder) / LOCK).is_file()
        assert list(Path(folder).glob("*.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_a_gguf_file_lacks_is_named(tmp_path):
    path = written(tmp_path / "tiny.gguf", without="blk.1.ffn_up.weight")
    with pytest.raises(UserError, match=r"lacks the weights model\.layers\.1\.mlp\.up_proj\.weight"):
        models.load_model(str(path), "float32", "cpu")


@pytest.mark.parametrize("rollouts", ["transformers", pytest.param("vllm", marks=pytest.mark.long)])
def test_a_gguf_file_trains(path, tmp_path, rollouts):
    run = Experiment(
        model=str(path), method="sft" if rollouts == "transformers" else "reinforce", problems="addition", limit=20,
        prompt="number_only", extraction="last_number", max_prompt_tokens=100, max_new_tokens=8, prompts_per_step=2,
        samples=2, steps=1, lr=1e-4, rollouts=rollouts, vllm_cache_gib=0.1, device="cpu", out=str(tmp_path / "run"),
    )  # fmt: skip
    folder = train(run)
    line = json.loads((folder / "metrics.jsonl").read_text())
    if rollouts == "vllm":
        assert line["sampler_gap_max"] < 1e-4
    assert models.load_model(str(folder / "checkpoints" / "final"), "float32", "cpu").config.num_hidden_layers == LAYERS
    assert json.loads((folder / "manifest.json").read_text())["model"]["name"] == "tiny.gguf"
