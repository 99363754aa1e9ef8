"""Every knob of a training run: one frozen dataclass, the single source for command line, file and result record."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lco.errors import UserError, nearest
from lco.outside import label

REDUCTIONS = ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_const")
"""How per-token losses may become one number where a run chooses it; `lco.losses.token_scale` says what each divides by."""


def knob(
    default: Any,
    group: str,
    text: str,
    choices: tuple[Any, ...] = (),
    least: float | None = None,
    below: float | None = None,
) -> Any:
    """A configuration field: default, group on the help page, one line of help, valid values."""
    metadata = {"group": group, "help": text, "choices": choices, "least": least, "below": below}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Experiment:
    """One training run. Field order is the order of `lco train --help`."""

    model: str = knob("", "model", "local folder, hub id, or GGUF file of a causal language model")
    dtype: str = knob("float32", "model", "parameters and activations", ("float32", "bfloat16"))
    gradient_checkpointing: bool = knob(False, "model", "recompute the body's activations in the backward pass")
    lora_rank: int = knob(0, "model", "train adapters of this rank (LoRA) in place of the weights (0: none)", least=0)
    lora_alpha: float = knob(0.0, "model", "LoRA's scale times its rank (0: twice the rank)", least=0)
    device: str = knob("auto", "model", "auto takes CUDA where there is one", ("auto", "cpu", "cuda"))

    method: str = knob("lco_kld", "method", "see `lco methods`; or path/to/file.py:NAME, which runs that file")
    hyper: dict[str, Any] = knob({}, "method", "the method's knobs, NAME=VALUE (see `lco methods NAME`)")  # noqa: RUF009

    reduction: str = knob(
        "", "method", "how per-token losses become one number (default: the method's own)", ("", *REDUCTIONS)
    )

    reference_model: str = knob(
        "", "method", "policy that KL terms, DPO and preference pairs refer to (default: --model)"
    )
    verifier_model: str = knob("", "method", "LCO with estimator=logprob: the model that scores every token")
    dpo_model: str = knob("", "method", "LCO with estimator=dpo_ratio: the model that DPO trained from the reference")

    critic: str = knob(
        "shared", "method", "PPO: a value head on the policy's body, or a model of its own", ("shared", "separate")
    )
    critic_model: str = knob(
        "", "method", "with --critic separate: the model that the critic starts from (default: --model)"
    )

    problems: str = knob(
        "arithmetic",
        "problems",
        "a set's name (see `lco problems`), a file (.jsonl, .json, .csv, .parquet), or a hub id owner/name[:config]",
    )
    split: str = knob("train", "problems", "split to train on")
    data_dir: str = knob("", "problems", "folder of JSON Lines files instead of hub ids")
    columns: dict[str, str] = knob({}, "problems", "a file's or hub set's own names: problem=question answer=final")  # noqa: RUF009
    limit: int = knob(0, "problems", "use the first N problems only (0: all)", least=0)
    prompt: str = knob("plain", "problems", "prompt style (see `lco problems`)")
    thinking: str = knob(
        "", "problems", "whether a model that can think does (default: its template's own)", ("", "on", "off")
    )
    max_prompt_tokens: int = knob(512, "problems", "longer prompts are dropped before training and counted", least=1)
    reward: dict[str, float] = knob(  # noqa: RUF009
        {"verifier": 1.0}, "problems", "what a response is rewarded for, NAME=WEIGHT …, added up: verifier, format (an "
        "answer was found), or path/to/file.py:FUNCTION, which runs that file on (responses, problems); or random alone: the "
        "verifier's, dealt out by chance, as a control (default: verifier)",
    )  # fmt: skip
    extraction: str = knob("lenient", "problems", "where the verifier looks for the answer (see `lco verify --help`)")

    rollouts: str = knob("transformers", "rollouts", "sampling engine", ("transformers", "vllm", "vllm-server"))
    prompts_per_step: int = knob(32, "rollouts", "prompts of one rollout", least=1)
    samples: int = knob(8, "rollouts", "responses per prompt", least=1)
    max_new_tokens: int = knob(32, "rollouts", "length limit of a response in tokens", least=1)
    stop: list[str] = knob(  # noqa: RUF009
        [], "rollouts", "stop strings: a response also ends with the token that completes one, and is judged up to it"
    )
    thought_tokens: int = knob(
        0,
        "rollouts",
        "close a thought that is still open after so many tokens, so that an answer follows (0: never)",
        least=0,
    )
    temperature: float = knob(1.0, "rollouts", "sampling temperature; part of the policy in training too", least=1e-3)
    vllm_cache_gib: float = knob(1.0, "rollouts", "memory for vLLM's key-value cache, GiB", least=0.01)

    engine: str = knob("torch", "training", "one process (torch) or several (deepspeed)", ("torch", "deepspeed"))
    processes: int = knob(2, "training", "ranks on this machine, with --engine deepspeed", least=1)
    zero_stage: int = knob(2, "training", "DeepSpeed ZeRO stage", (2, 3))
    steps: int = knob(20, "training", "rollouts in all", least=1)
    minibatches: int = knob(1, "training", "optimizer steps per pass over a rollout", least=1)
    epochs: int = knob(1, "training", "passes over a rollout", least=1)
    staleness: int = knob(
        0, "training", "rollouts that each one waits between sampling and its updates (0: none)", least=0
    )
    micro_batch: int = knob(256, "training", "rows per forward pass", least=1)
    lr: float = knob(1e-6, "training", "peak learning rate of AdamW", least=0)
    critic_lr: float = knob(1e-5, "training", "learning rate of the critic, where a method has one", least=0)
    beta1: float = knob(0.9, "training", "AdamW", least=0, below=1)
    beta2: float = knob(0.99, "training", "AdamW", least=0, below=1)
    weight_decay: float = knob(0.0, "training", "AdamW", least=0)
    warmup_updates: int = knob(0, "training", "optimizer steps of linear warm-up", least=0)
    lr_schedule: str = knob(
        "constant",
        "training",
        "learning rate after the warm-up, down to 0 at the end",
        ("constant", "linear", "cosine"),
    )
    clip_norm: float = knob(1.0, "training", "gradient norm limit (0: none)", least=0)
    seed: int = knob(0, "training", "data order, sampling, new heads", least=0)

    eval_every: int = knob(0, "watching", "rollouts between validations (0: never)", least=0)
    eval_split: str = knob("validation", "watching", "split of the validations; never the test split")
    eval_share: float = knob(
        0.0,
        "watching",
        "validate on this share of --split, kept out of training by hash, in place of --eval-split",
        least=0,
        below=1,
    )
    eval_problems: int = knob(128, "watching", "problems of a validation", least=1)
    diagnose_every: int = knob(
        0, "watching", "rollouts between gradient norms by sign of advantage (0: never)", least=0
    )
    save_every: int = knob(10, "watching", "rollouts between checkpoints (0: only on exit and at the end)", least=0)
    keep: int = knob(2, "watching", "newest checkpoints that are kept, beside the best validated one", least=1)
    track: str = knob(
        "none", "watching", "send the numbers of each rollout to a tracker too", ("none", "tensorboard", "wandb")
    )
    out: str = knob("", "watching", "run folder (default: runs/<problems>/<method>/seed-<seed>)")

    @property
    def folder(self) -> Path:
        problems = Path(self.problems).stem
        return Path(self.out) if self.out else Path("runs") / problems / label(self.method) / f"seed-{self.seed}"

    @property
    def rows_per_step(self) -> int:
        return self.prompts_per_step * self.samples

    @property
    def planned_updates(self) -> int:
        """Optimizer steps of the whole run, where no rollout is skipped."""
        return self.steps * self.epochs * self.minibatches


def fields() -> dict[str, dataclasses.Field[Any]]:
    return {spec.name: spec for spec in dataclasses.fields(Experiment)}


def from_mapping(values: Mapping[str, Any], origin: str) -> Experiment:
    """An experiment from parsed JSON.

    Raises:
        UserError: an unknown key or a value of another type, named with its origin.
    """
    known, types = fields(), typing.get_type_hints(Experiment)
    clean: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{origin}: unknown key {name!r}{nearest(name, known)}")
        clean[name] = convert(name, value, types[name], origin)
    return Experiment(**clean)


def convert(name: str, value: Any, kind: Any, origin: str) -> Any:
    """`value` as `kind`; whole numbers are accepted where a float is meant, nothing else is bent."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = typing.get_origin(kind) or kind
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise UserError(f"{origin}: {name} is {value!r}; give a value of type {plain.__name__}")
    if plain is list and not all(isinstance(item, str) for item in value):
        raise UserError(f"{origin}: {name} is {value!r}; give a list of texts")
    return value


def dump(experiment: Experiment) -> str:
    return json.dumps(dataclasses.asdict(experiment), indent=2, ensure_ascii=False) + "\n"
