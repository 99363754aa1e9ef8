"""What a run takes: bytes on each GPU term by term, tokens, hours and disk, from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lco.config import Experiment
from lco.disk import in_words


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory.

    Attributes:
        parameters: in all, a tied head once.
        largest: parameters of the largest module (an embedding, a head, a projection), which ZeRO-3 gathers at once.
        layers, hidden, vocabulary, kv_width: of the body; kv_width is key-value heads × their size.
    """

    parameters: int
    largest: int
    layers: int
    hidden: int
    vocabulary: int
    kv_width: int


def shape_of(kind: str, architecture: Mapping[str, Any]) -> Shape:
    """The shape of a model, built without weights (on PyTorch's meta device)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **architecture)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    sizes = {id(p): p.numel() for p in model.parameters()}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    modules = [sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules()]
    return Shape(
        parameters=sum(sizes.values()),
        largest=max(modules),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        kv_width=config.num_key_value_heads * head,
    )


SHARED = "gradients, masters, moments"
"""The states that ranks share out, under ZeRO-3 with the weights: 18 bytes a parameter."""

VOCABULARY_CHUNK = 2048
"""Tokens whose logits exist at once."""


def memory_terms(shape: Shape, run: Experiment, gpus: int, fixed: int = 0) -> dict[str, float]:
    """{term: bytes on one GPU} of training and sampling on `gpus` GPUs, bfloat16 with float32 masters.

    Args:
        fixed: how many policies beside the trained one are read and do not learn, each as large as it and whole on every GPU.

    States are those of ZeRO-2 (weights whole, the rest shared out) or ZeRO-3 (all shared out, the largest module gathered), as
    DeepSpeed's own estimator counts them; in one process they are the same with one GPU.
    """
    p, d, tokens = shape.parameters, shape.hidden, run.micro_batch * (run.max_prompt_tokens + run.max_new_tokens)
    if run.zero_stage == 3 and gpus > 1:
        states = {SHARED: 18 * p / gpus, "the largest module, gathered": 4.0 * shape.largest}
    else:
        states = {"weights": 2.0 * p, SHARED: 18 * p / gpus}
    return {
        **states,
        **({"policies that do not learn": 2.0 * p * fixed} if fixed else {}),
        "checkpointed activations": 2.0 * shape.layers * tokens * d,
        "one layer's activations": 34.0 * tokens * d,
        "logits of a chunk": 2 * 4.0 * VOCABULARY_CHUNK * shape.vocabulary,
        "π_old: hidden states": 2.0 * d * tokens,
        "π_old: its head": 2.0 * shape.vocabulary * d,
        "vLLM: weights": 2.0 * p,
        "vLLM: cache": run.vllm_cache_gib * 2**30,
    }


@dataclass(frozen=True)
class Rate:
    """What a GPU is taken to do; stated beside every hour that is computed from it."""

    flops: float = 4e14
    used: float = 0.35
    sampled_tokens: float = 1.5e13
    """Sampled tokens a second, times the model's parameters in all."""

    def __str__(self) -> str:
        return (
            f"{self.flops / 1e12:.0f} TFLOP/s, {self.used:.0%} of them used in training, and {self.sampled_tokens / 1e9:.0f} "
            "sampled tokens a second for a model of one billion parameters"
        )


def tokens_of(run: Experiment) -> tuple[int, int]:
    """(tokens sampled, tokens trained on) of a run, at most: every response as long as it may be."""
    sampled = run.steps * run.rows_per_step * run.max_new_tokens
    return sampled, run.epochs * run.steps * run.rows_per_step * (run.max_prompt_tokens + run.max_new_tokens)


def hours_of(shape: Shape, run: Experiment, gpus: int, rate: Rate, length: float = 0.3) -> float:
    """Hours of a run where responses take `length` of their limit: sampling, which one GPU does, and one pass for π_old,
    forward, backward and recomputation (10 FLOP a parameter and token), which all of them do."""
    sampled, trained = (length * count for count in tokens_of(run))
    training = 10 * shape.parameters * trained / (rate.flops * rate.used)
    return (training / gpus + sampled * shape.parameters / rate.sampled_tokens) / 3600


def disk_of(shape: Shape) -> float:
    """Bytes of a run folder: two checkpoints with masters and moments, and the last model."""
    return 2 * 12.0 * shape.parameters + 2.0 * shape.parameters


def table(terms: Mapping[str, float]) -> str:
    """The terms as lines, largest first, and their sum."""
    rows = [*sorted(terms.items(), key=lambda term: -term[1]), ("together", sum(terms.values()))]
    wide = max(len(name) for name, _ in rows)
    return "\n".join(f"    {name:<{wide}}  {in_words(size):>9}" for name, size in rows)
