"""Model folders that vLLM accepts, each with a generation_config.json that would ruin every draw if it were read."""

import json
import shutil

import pytest
import torch

from lco.policy import PolicyModel, Statistics
from lco.rollout.records import collate
from tests.conftest import START

VOCABULARY = 64
HOSTILE = {
    "repetition_penalty": 5.0, "top_k": 1, "top_p": 0.01, "temperature": 0.01, "max_new_tokens": 2, "eos_token_id": [9],
    "do_sample": False,
}  # fmt: skip


def small_model(kind="qwen", tied=True, seed=0):
    """Two layers, heads of 32 (the least that vLLM's CPU attention takes), random weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config, model = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model(
            config(
                vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=tied,
                initializer_range=0.15, bos_token_id=1, eos_token_id=9, pad_token_id=0,
            )
        ).eval()  # fmt: skip


def save(model, folder):
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):  # vLLM wants one there, though it is only given ids
        shutil.copy(START / "llama" / file, folder)
    (folder / "generation_config.json").write_text(json.dumps(HOSTILE))
    return str(folder)


def trainer_gap(model, rows, temperature=1.0):
    """Largest |Δ log p| between what a sampler reports and the trainer's statistics of the same rows."""
    logprobs = PolicyModel(model, temperature)(collate(rows), Statistics(["logprob"]))["logprob"]
    return max(
        float((logprobs[i, : len(row.logprobs)] - torch.tensor(row.logprobs)).abs().max()) for i, row in enumerate(rows)
    )


@pytest.fixture(scope="module")
def model():
    return small_model()
