"""Tiny models of both classes, the committed start models, and small runs of these."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lco.config import Experiment
from lco.training.resolve import resolve
from lco.training.run import train as train_plan

START = Path(__file__).parent.parent / "reproduce" / "miniature" / "start"


def tiny_model(kind="qwen", tied=True, vocabulary=64, seed=0, layers=2, **extra):
    """A random model of two layers, or more, of a real transformers class, float32, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config_class, model_class = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[
        kind
    ]
    config = config_class(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, **extra,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config).eval()


def small(out, **changes):
    """Three rollouts of 4 prompts × 4 samples, two updates each."""
    values = {
        "model": str(START / "llama"), "problems": "arithmetic", "extraction": "hash", "max_prompt_tokens": 32,
        "prompts_per_step": 4, "samples": 4, "minibatches": 2, "micro_batch": 5, "steps": 3, "lr": 1e-3, "limit": 50,
        "device": "cpu", "out": str(out), "eval_every": 2, "eval_problems": 4,
    }  # fmt: skip
    return Experiment(**{**values, **changes})


def train(experiment, resume=False, on_step=None, start_over=False):
    """Runs an experiment; returns its folder."""
    return train_plan(resolve(experiment), resume, on_step, start_over)


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().split("\n") if line]


@pytest.fixture(autouse=True)
def threads_as_before():
    """The last bits of a product depend on how many threads share it; a test that leaves fewer would decide later ones."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(params=["qwen", "llama"])
def start_folder(request):
    """The committed start model of each class."""
    return START / request.param


def weights(folder):
    return load_file(folder / "checkpoints" / "final" / "model.safetensors")


def without_time(line):
    return {key: value for key, value in line.items() if key != "seconds"}
