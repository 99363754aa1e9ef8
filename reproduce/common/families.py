"""Model families as data: which models there are of a scale, their architecture, and the reason for every setting.

Architectures are facts of the published configurations, so that a plan needs no download; a test builds each of them without
weights and counts its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lco.errors import UserError, nearest


@dataclass(frozen=True)
class Choice:
    """A setting and why it is what it is."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Scale:
    """One size of a family.

    Attributes:
        name: as typed on the command line.
        models: {variant: hub id}; the first is the default.
        kind: the `model_type` of transformers.
        architecture: arguments of its configuration class.
        gpus: of 80 GB, on which the suite's budget fits.
        settings: configuration keys that this scale sets apart from its family's, with reasons.
        tasks: of lm-eval, in place of its family's where it is trained on other problems.
        licence: what its licence asks of a user, or what the weights lack; "" for nothing.
    """

    name: str
    models: Mapping[str, str]
    kind: str
    architecture: Mapping[str, Any]
    gpus: int
    settings: Mapping[str, Choice] = field(default_factory=dict)
    tasks: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    licence: str = ""


def architecture(
    hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, tied: bool, context: int, **more: int
) -> dict[str, Any]:
    """Arguments of a configuration class: sizes of body and head, key-value heads, whether the head is the embedding."""
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "intermediate_size": inner, "vocab_size": vocabulary, "tie_word_embeddings": tied, "max_position_embeddings": context,
        **more,
    }  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Models of one architecture and tokenizer.

    Attributes:
        name: as records call it.
        stand_in: the miniature's start model whose tokenizer the stand-in of `--smoke` has.
        settings: configuration keys of all its scales, with reasons.
        tasks: of lm-eval, with (samples, temperature) a problem.
    """

    name: str
    stand_in: str
    scales: tuple[Scale, ...]
    settings: Mapping[str, Choice]
    tasks: Mapping[str, tuple[tuple[int, float], ...]]


def scale_named(family: Family, name: str) -> Scale:
    """
    Raises:
        UserError: no such scale; the nearest is named.
    """
    found = next((scale for scale in family.scales if scale.name == name), None)
    if found is None:
        raise UserError(f"there is no scale {name!r}{nearest(name, [scale.name for scale in family.scales])}")
    return found


def model_of(scale: Scale, variant: str) -> str:
    """The hub id of a variant ("" is the default).

    Raises:
        UserError: the scale has no such variant.
    """
    if variant and variant not in scale.models:
        raise UserError(f"{scale.name} has no variant {variant!r}{nearest(variant, scale.models)}")
    return scale.models[variant or next(iter(scale.models))]


def engine_of(scale: Scale) -> dict[str, Choice]:
    """Under what a scale is trained."""
    if scale.gpus == 1:
        return {"engine": Choice("torch", "one GPU of 80 GB holds states, activations and the sampler's weights")}
    return {
        "engine": Choice("deepspeed", "masters, moments and gradients are shared out: whole they leave a GPU no room"),
        "processes": Choice(scale.gpus, "a rank for each GPU"),
    }


GREEDY_AND_SAMPLED = ((1, 0.0), (4, 1.0))
"""Large test sets: greedy, and four samples at the temperature of training."""
SAMPLED_OFTEN = ((1, 0.0), (16, 1.0))
"""Sets of 30 to 40 problems, on which one problem is three points."""

TASKS: Mapping[str, tuple[tuple[int, float], ...]] = {
    "lco_gsm8k": GREEDY_AND_SAMPLED,
    "lco_math500": GREEDY_AND_SAMPLED,
    "lco_aime24": SAMPLED_OFTEN,
    "lco_aime25": SAMPLED_OFTEN,
}

COMMON: Mapping[str, Choice] = {
    "problems": Choice(
        "gsm8k", "verifiable whole numbers, on which models from 0.5 to 8 B parameters have signal and room"
    ),
    "prompts_per_step": Choice(
        128, "with 8 samples 1024 rows a rollout, as the released runner and most of its baselines"
    ),
    "samples": Choice(8, "smallest group on which most prompts are neither all right nor all wrong"),
    "steps": Choice(100, "about 1.7 passes over the training set"),
    "minibatches": Choice(
        4, "π_old is not π in three of four updates, without which no clipping and no target is tried"
    ),
    "max_prompt_tokens": Choice(512, "the longest question of the set has fewer"),
    "max_new_tokens": Choice(1024, "the paper's length limit"),
    "temperature": Choice(1.0, "the policy that is trained is the one that samples"),
    "extraction": Choice("lenient", "a box, or the words that announce an answer; the same for all methods"),
    "stop": Choice(
        [], "no stop strings: a response ends with any end token of the model's generation_config or template"
    ),
    "lr": Choice(1e-6, "full fine-tuning in the methods' own papers; equal for all methods in the suite's budget"),
    "critic_lr": Choice(1e-5, "the usual ten times of the policy's"),
    "warmup_updates": Choice(8, "two rollouts"),
    "dtype": Choice("bfloat16", "with float32 masters, so that small updates are not lost"),
    "rollouts": Choice("vllm", "sampling is most of the time"),
    "gradient_checkpointing": Choice(True, "activations of 1536 tokens a row would outgrow the states"),
    "micro_batch": Choice(8, "12 288 tokens at once at most"),
    "eval_every": Choice(0, "gsm8k has no validation split; the tasks score the last model"),
    "save_every": Choice(10, "a kill loses at most ten rollouts"),
}
"""The suite's budget, equal for every method."""

ZERO_3: Mapping[str, Choice] = {
    "zero_stage": Choice(3, "weights and gradients of a rank would not fit beside each other"),
    "micro_batch": Choice(4, "half the activations"),
}
"""What models of seven billion parameters and more set apart."""

SHORT: Mapping[str, Choice] = {
    "prompts_per_step": Choice(32, "256 rows a rollout"),
    "steps": Choice(12, "enough to see a curve's direction, not where it ends"),
    "max_new_tokens": Choice(320, "most right answers of a base model of this set are shorter"),
    "warmup_updates": Choice(4, "one rollout"),
    "save_every": Choice(6, "twice a run"),
}
"""What `--budget short` cuts from the suite's: two methods of half a billion parameters in ten minutes of one GPU."""
SHORT_TASKS: Mapping[str, tuple[tuple[int, float], ...]] = {"lco_gsm8k": ((1, 0.0),)}
SHORT_LIMIT = 400
"""Test problems of a short study's evaluation: a 95 % interval of 5 points."""

METHODS = ("lco_mse", "lco_lch", "lco_kld", "grpo", "ppo", "reinforce", "rloo")
"""The paper's three losses and what it compares them with."""
