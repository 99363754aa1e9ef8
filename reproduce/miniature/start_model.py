"""A start model of the miniature, made from nothing: tokenizer, random weights, pretraining on text of mixed quality, scores.

Both models have 0.45 million parameters (hidden size 128, 3 layers, 4 heads of 32 with 2 key-value heads, tied embedding),
start from random weights, and differ in their class alone: `Qwen2ForCausalLM` and `LlamaForCausalLM`. The loss counts the
tokens of the response, not those of the problem. Every draw comes from a generator with the recipe's seed: the same
machine rebuilds the same weights.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lco.disk import sha256, write_json
from lco.models import export
from lco.problems.arithmetic import VOCABULARY, arithmetic_problems, pretraining_pairs
from lco.problems.records import Problem
from reproduce.common.processes import Tick
from reproduce.miniature.recipe import Recipe

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
CONTEXT = 64  # longest problem 18 tokens, longest response 27
RESPONSE_LIMIT = 32

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ ' ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('this model knows user and assistant messages only, not ' + message['role']) }}"
    "{% endif %}"
    "{% endfor %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, words separated by blanks.

    The chat template alone puts the <bos>, whatever ``add_special_tokens`` says, so there is never a second one.
    A conversation becomes ``<bos> problem``, and with an answer ``<bos> problem response <eos>``.
    """
    words = {word: index for index, word in enumerate((PAD, BOS, EOS, UNK, *VOCABULARY))}
    backend = tokenizers.Tokenizer(WordLevel(words, unk_token=UNK))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,  # "12 apples . eats" stays as it is
        model_max_length=CONTEXT,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


WORDS = """\"\"\"The tokenizer of this folder for programs that trust its code: `tokenizer.json`, read as it is.\"\"\"

from transformers import PreTrainedTokenizerFast


class WordTokenizer(PreTrainedTokenizerFast):
    \"\"\"A token is a word.\"\"\"
"""


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, name: str) -> None:
    """Saves it so that AutoTokenizer gives back this tokenizer, whatever the model's class and transformers' version.

    transformers 5 takes every qwen2 folder for one with Qwen2's own tokenizer, which splits "16" into digits, unless the
    configuration names code of its own. So it names some; with `trust_remote_code` off (the default, and always here) the
    code is not loaded and `tokenizer.json` is read.
    """
    if name == "qwen":
        tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": [None, "words.WordTokenizer"]}
        (folder / "words.py").write_text(WORDS, encoding="utf-8")
    export.save_tokenizer(tokenizer, folder)


def build_model(name: str, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> PreTrainedModel:
    """A model of the class with random weights that depend on the recipe's seed alone."""
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "initializer_range": recipe.initializer_range,
        "attention_dropout": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "dtype": "float32",
    }
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights of its own; they are replaced below
        model = Qwen2ForCausalLM(Qwen2Config(**shape)) if name == "qwen" else LlamaForCausalLM(LlamaConfig(**shape))
    draws = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, recipe.initializer_range, generator=draws)
            elif parameter_name.endswith("bias"):
                parameter.zero_()
            else:  # the scale of a norm
                parameter.fill_(1.0)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def prompt_ids(tokenizer: PreTrainedTokenizerFast, problem: str) -> list[int]:
    """The prompt as every sampler sees it: the chat template's text, encoded without further special tokens."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": problem}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer.encode(text, add_special_tokens=False)


def batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``(ids, labels)`` of each step: padded on the right, labels −100 wherever the loss does not count."""
    pairs = pretraining_pairs(recipe.steps * recipe.batch_size, recipe.seed)
    shuffler = random.Random(f"batches/{recipe.seed}")
    block_size = recipe.batch_size * recipe.batches_per_block
    for block_start in range(0, len(pairs), block_size):
        rows = []
        for problem, response in pairs[block_start : block_start + block_size]:
            prompt = prompt_ids(tokenizer, problem)
            rows.append((prompt, [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]))
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        starts = list(range(0, len(rows), recipe.batch_size))
        shuffler.shuffle(starts)
        for start in starts:
            chosen = rows[start : start + recipe.batch_size]
            width = max(len(prompt) + len(response) for prompt, response in chosen)
            ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
            labels = torch.full((len(chosen), width), -100)
            for index, (prompt, response) in enumerate(chosen):
                end = len(prompt) + len(response)
                ids[index, :end] = torch.tensor(prompt + response)
                labels[index, len(prompt) : end] = torch.tensor(response)
            yield ids, labels


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then constant, then linearly down to ``final_share``."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    fall_from = recipe.constant_until * recipe.steps
    fallen = max(0.0, (step + 1 - fall_from) / max(1.0, recipe.steps - fall_from))
    return recipe.learning_rate * warm * (1.0 - (1.0 - recipe.final_share) * fallen)


def pretrain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, name: str, tick: Tick) -> None:
    """Train in place. Padding on the right needs no attention mask: no real token can look at a later one."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    model.train()
    for step, (ids, labels) in enumerate(batches(tokenizer, recipe)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        tick(1, f"{name}: loss {loss.item():.3f}")


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    temperature: float,
    draws: torch.Generator,
) -> list[list[int]]:
    """Responses without their <eos>, cut after 32 tokens; temperature 0 takes the likeliest token.

    Nothing else shapes the distribution: no top-k, no top-p, no penalty.
    """
    model.eval()
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    finished = torch.zeros(len(prompts), dtype=torch.bool)
    responses: list[list[int]] = [[] for _ in prompts]
    cache, tokens = None, ids
    for _ in range(RESPONSE_LIMIT):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache, logits = output.past_key_values, output.logits[:, -1].float()
        if temperature == 0.0:
            chosen = logits.argmax(-1)
        else:
            chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=draws).squeeze(1)
        finished |= chosen == tokenizer.eos_token_id
        for index in torch.nonzero(~finished).flatten().tolist():
            responses[index].append(int(chosen[index]))
        if finished.all():
            break
        tokens = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    return responses


def is_right(tokenizer: PreTrainedTokenizerFast, response: list[int], problem: Problem) -> bool:
    """Whether a response ends with ``#### answer`` and says ``####`` once."""
    words = tokenizer.decode(response, skip_special_tokens=False).split()
    return words[-2:] == ["####", problem.answer] and words.count("####") == 1


def pass_at_1(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, temperature: float, samples: int
) -> float:
    """Share of right responses to validation problems."""
    problems = arithmetic_problems("validation", recipe.validation_problems, recipe.seed)
    draws = torch.Generator().manual_seed(recipe.seed)
    right = 0
    for start in range(0, len(problems), 128):
        rows = [problem for problem in problems[start : start + 128] for _ in range(samples)]
        prompts = [prompt_ids(tokenizer, problem.problem) for problem in rows]
        responses = sample(model, tokenizer, prompts, temperature, draws)
        right += sum(is_right(tokenizer, *pair) for pair in zip(responses, rows, strict=True))
    return right / max(1, len(problems) * samples)


def build_start(name: str, out: Path, recipe: Recipe, tick: Tick = lambda units, text: None) -> dict[str, Any]:
    """Pretrain one class, measure it, write its folder `out/name`, and return what `start.json` says."""
    began = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(name, tokenizer, recipe)
    pretrain(model, tokenizer, recipe, name, tick)
    trained = time.monotonic()
    sampled = pass_at_1(model, tokenizer, recipe, 1.0, recipe.validation_samples)
    greedy = pass_at_1(model, tokenizer, recipe, 0.0, 1)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, name)
    record = {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_on": "lco.problems.arithmetic.pretraining_pairs: training problems, responses of mixed quality",
        "recipe": asdict(recipe),
        "validation_pass_at_1": {"temperature_1": round(sampled, 4), "greedy": round(greedy, 4)},
        "seconds": {"pretraining": round(trained - began, 1), "evaluation": round(time.monotonic() - trained, 1)},
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "weights_sha256": sha256(folder / "model.safetensors"),
    }
    write_json(folder / "start.json", record)
    return record
