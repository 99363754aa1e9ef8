"""Losses and gradients of TRL's own trainers on small random inputs, frozen in a JSON file.

    python tests/peers/trl_losses.py OUT.json

needs TRL, which the suite does not; the committed tests/peers/trl.json is read instead. Nothing of the suite is
imported here, so the numbers are TRL's alone. No model is loaded: each trainer is made without its constructor, a
policy is a table of log-probabilities, and from there on TRL's methods run unchanged:

    _prepare_inputs                   shuffles a rollout and cuts it into micro-batches
    _generate_and_score_completions   advantages, token count, old and reference log-probabilities
    _compute_loss                     the loss of one micro-batch

Replaced are only sampling (`_generate`), reward functions (`_calculate_rewards`) and the forward pass
(`_get_per_token_logps_and_entropies`; in DPO the model itself). All is in float64, also rewards, which TRL keeps in
float32; but TRL's standard deviation multiplies by n/(n − 1) in float32, so advantages that are divided by it are good
to 5e-8 only. Positions after a row's end hold random numbers, so that a loss that reads them is found out.

The file holds: versions, seed, pairs ([chosen row, rejected row], whatever the rewards), inputs {set: tables [8][6]
and rows [8]}, cases (one per loss and set) and refused (what TRL has no loss for, with its message).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import torch
import transformers
import trl
from torch import Tensor
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

Inputs = dict[str, Tensor]

SEED = 20260
LENGTHS = [6, 1, 4, 2, 5, 3, 2, 5]
REWARDS = [1, 0, 0, 1, 0, 1, 0, 0]
GROUPS = [0, 0, 0, 0, 1, 1, 1, 1]
PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7]]
NOISE = {"off_policy": 0.3, "far": 2.0, "on_policy": 0.0}
"""Input sets by the size of new − old; "far" reaches ratios that CISPO's cap of 5 and a delta of 3 cut."""

ACCUMULATE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
DAPO = {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28}
DR_GRPO = {"loss_type": "dr_grpo", "scale_rewards": "none"}
GSPO = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}
REFERENCE = {"beta": 0.04, "use_bias_correction_kl": False}
WEIGHTED_REFERENCE = {"beta": 0.04, "use_bias_correction_kl": True}
"""TRL's default: the KL estimate is multiplied by the ratio, and the gradient flows through both."""

GRPO_CASES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "grpo, reference": {"loss_type": "grpo", **REFERENCE},
    "grpo, reference, weighted": {"loss_type": "grpo", **WEIGHTED_REFERENCE},
    "grpo, unscaled": {"loss_type": "grpo", "scale_rewards": "none"},
    "grpo, batch-scaled": {"loss_type": "grpo", "scale_rewards": "batch"},
    "grpo, accumulated": {"loss_type": "grpo", **ACCUMULATE},
    "grpo, delta 1.3": {"loss_type": "grpo", "delta": 1.3},
    "grpo, delta 3": {"loss_type": "grpo", "delta": 3.0},
    "dr_grpo": DR_GRPO,
    "dr_grpo, reference": {**DR_GRPO, **REFERENCE},
    "dr_grpo, accumulated": {**DR_GRPO, **ACCUMULATE},
    "dapo": DAPO,
    "dapo, reference": {**DAPO, **REFERENCE},
    "dapo, accumulated": {**DAPO, **ACCUMULATE},
    "gspo": GSPO,
    "gspo, wide": {**GSPO, "epsilon": 0.1, "epsilon_high": 0.15},
    "gspo, reference": {**GSPO, **REFERENCE},
    "gspo, reference, weighted": {**GSPO, **WEIGHTED_REFERENCE},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "cispo, low cap": {"loss_type": "cispo", "epsilon_high": 1.2},
}
RLOO_CASES: dict[str, dict[str, Any]] = {
    "rloo": {"beta": 0.0},
    "rloo, reference": {"beta": 0.05},
    "rloo, normalised": {"beta": 0.0, "normalize_advantages": True},
    "rloo, accumulated": {"beta": 0.0, **ACCUMULATE},
}
REFUSED: dict[str, dict[str, Any]] = {
    "gspo-token": {"loss_type": "grpo", "importance_sampling_level": "sequence_token"},
}
SHARED = {"num_generations": 4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "epsilon": 0.2}
GRPO_SHARED = {**SHARED, "beta": 0.0, "scale_rewards": "group", "max_completion_length": 10}
HARDWARE = {"use_cpu": True, "bf16": False, "report_to": "none"}


def random_inputs() -> dict[str, Inputs]:
    """{set: new, old and reference log-probabilities, mask, rewards, groups}; rounded here, so that the file is exact.

    The sets share all but the new log-probabilities, and these share their noise.
    """
    generator = torch.Generator().manual_seed(SEED)

    def draw(function: Any) -> Tensor:
        return function(len(LENGTHS), max(LENGTHS), dtype=torch.float64, generator=generator)

    old = (-0.2 - 3 * draw(torch.rand)).round(decimals=6)
    reference = (old + 0.3 * draw(torch.randn)).clamp(max=-0.01).round(decimals=6)
    noise = draw(torch.randn)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    shared = {
        "old_logprob": old,
        "ref_logprob": reference,
        "mask": mask.long(),
        "rewards": torch.tensor(REWARDS, dtype=torch.float64),
        "groups": torch.tensor(GROUPS),
    }
    return {
        name: {"new_logprob": (old + scale * noise).clamp(max=-0.01).round(decimals=6), **shared}
        for name, scale in NOISE.items()
    }


class Policy(torch.nn.Module):
    """A table of log-probabilities [B, T] in a model's place. The first token of a sequence says which row it is."""

    is_gradient_checkpointing = False

    def __init__(self, logprob: Tensor):
        super().__init__()
        self.logprob = logprob

    def forward(self, input_ids: Tensor, labels: Tensor, **ignored: Any) -> SimpleNamespace:
        """What DPOTrainer reads of a model. Like TRL's fused head it is 0 where the label is −100; DPO relies on it."""
        mask = labels[:, 1:] != -100
        zeros = torch.zeros(mask.shape, dtype=torch.float64)
        return SimpleNamespace(
            log_probs=self.logprob[input_ids[:, 0]] * mask, entropy=zeros, mean_logits=zeros, is_top1=mask
        )


class WithoutModel:
    """Stands before a trainer class: its constructor loads nothing, and settings are read from the configuration."""

    def __init__(self, config: Any, inputs: Inputs):
        self.args = config
        self.inputs = inputs
        self.model = Policy(inputs["old_logprob"])
        self.ref_model = Policy(inputs["ref_logprob"])
        self.accelerator = accelerate.Accelerator(cpu=True)
        self.state = SimpleNamespace(global_step=0)
        self.current_gradient_accumulation_steps = config.gradient_accumulation_steps
        self.aux_loss_enabled = False
        self._metrics = {"train": defaultdict(list)}

    def __getattr__(self, name: str) -> Any:
        """Most attributes are copies of settings with the same name."""
        return getattr(self.args, name)


class Rollouts(WithoutModel):
    """What GRPOTrainer and RLOOTrainer share: 8 finished rows, in place of sampling and scoring."""

    def __init__(self, config: Any, inputs: Inputs):
        super().__init__(config, inputs)
        self.epsilon_low = config.epsilon
        self.epsilon_high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        self.tools, self.environment_factories, self.environments = [], None, None
        self.reward_func_names, self.reward_funcs, self.reward_weights = ["reward"], [None], torch.ones(1)
        self._tokenizer = SimpleNamespace(pad_token_id=0)
        self._entropy_bonus_enabled = False
        self._logs = {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": []}
        self._pending_extra_logs, self._pending_metrics = {}, {}
        self._step, self._buffered_inputs = 0, None

    def rows(self) -> tuple[list[list[int]], list[list[int]], list[str]]:
        """Token numbers of prompts (each one token, the row's number) and completions (only their lengths matter)."""
        lengths = self.inputs["mask"].sum(1).tolist()
        return [[row] for row in range(len(lengths))], [[1] * n for n in lengths], [""] * len(lengths)

    def _calculate_rewards(self, *ignored: Any) -> Tensor:
        return self.inputs["rewards"][:, None]

    def _get_per_token_logps_and_entropies(
        self, model: Policy, input_ids: Tensor, *ignored: Any, **also_ignored: Any
    ) -> tuple[Tensor, Tensor, None]:
        logprob = model.logprob[input_ids[:, 0]]
        return logprob, torch.zeros_like(logprob), None


class Grpo(Rollouts, GRPOTrainer):
    """GRPOTrainer without a model."""

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        prompt_ids, completion_ids, texts = self.rows()
        return prompt_ids, completion_ids, None, texts, None, {}, None, []


class Rloo(Rollouts, RLOOTrainer):
    """RLOOTrainer without a model."""

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        return self.rows()


class Dpo(WithoutModel, DPOTrainer):
    """DPOTrainer without a model."""

    def __init__(self, config: Any, inputs: Inputs):
        super().__init__(config, inputs)
        self.precompute_ref_logps = config.precompute_ref_log_probs
        self.loss_types, self.loss_weights = config.loss_type, [1.0]
        self._total_train_tokens, self._tp_size = 0, 1


def update(trainer: Rollouts, new: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of one optimizer step and advantages [B]: `_prepare_inputs` and `_compute_loss` per micro-batch, summed.

    Where a trainer says that its loss is not yet divided by the number of micro-batches, the Trainer of transformers
    divides before the backward pass; here, this script.
    """
    torch.manual_seed(SEED)  # _prepare_inputs shuffles
    steps = trainer.args.gradient_accumulation_steps
    total, advantages = torch.zeros((), dtype=new.dtype), torch.zeros(len(new), dtype=new.dtype)
    for _ in range(steps):
        batch = trainer._prepare_inputs([{"prompt": ""} for _ in new])
        loss = trainer._compute_loss(Policy(new), batch)
        total = total + (loss if trainer.loss_is_scaled_for_ga else loss / steps)
        advantages[batch["prompt_ids"][:, 0]] = batch["advantages"]
        trainer._step += 1
    return total, advantages


def rollout_case(trainer: str, name: str, settings: dict[str, Any], set_name: str, inputs: Inputs) -> dict[str, Any]:
    """One loss of GRPOTrainer or RLOOTrainer on one input set.

    With one iteration per rollout GRPOTrainer keeps no old log-probabilities and takes the new ones instead, which is
    what "on_policy" means; with two it measures them.
    """
    kind, config = {"GRPOTrainer": (Grpo, GRPOConfig), "RLOOTrainer": (Rloo, RLOOConfig)}[trainer]
    settings = {**settings, "num_iterations": 1 if set_name == "on_policy" else 2}
    new = inputs["new_logprob"].clone().requires_grad_()
    loss, advantages = update(kind(config(**settings, **HARDWARE), inputs), new)
    case = {"name": name, "trainer": trainer, "settings": settings, "inputs": set_name, "advantages": advantages}
    return case | loss_and_gradient(loss, new)


def dpo_case(set_name: str, inputs: Inputs) -> dict[str, Any]:
    """DPOTrainer's `_compute_loss` on 4 pairs; its batch holds all chosen rows, then all rejected ones."""
    settings = {"loss_type": ["sigmoid"], "beta": 0.1}
    new = inputs["new_logprob"].clone().requires_grad_()
    order = torch.tensor(PAIRS).T.flatten()
    mask = inputs["mask"][order]
    ids = torch.cat([order[:, None], torch.ones_like(mask)], dim=1)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1),
        "completion_mask": torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1),
    }
    trainer = Dpo(DPOConfig(**settings, **HARDWARE), inputs)
    loss = trainer._compute_loss(Policy(new), batch, return_outputs=False)
    case = {"name": "dpo", "trainer": "DPOTrainer", "settings": settings, "inputs": set_name}
    return case | loss_and_gradient(loss, new)


def loss_and_gradient(loss: Tensor, new: Tensor) -> dict[str, Tensor]:
    """The loss and its gradient for the new log-probabilities, [B, T]."""
    (gradient,) = torch.autograd.grad(loss, new)
    return {"loss": loss.detach(), "gradient": gradient}


def all_cases(sets: dict[str, Inputs]) -> list[dict[str, Any]]:
    """Every loss on every input set."""
    cases = []
    for set_name, inputs in sets.items():
        for name, settings in GRPO_CASES.items():
            cases.append(rollout_case("GRPOTrainer", name, {**GRPO_SHARED, **settings}, set_name, inputs))
        for name, settings in RLOO_CASES.items():
            cases.append(rollout_case("RLOOTrainer", name, {**SHARED, **settings}, set_name, inputs))
        cases.append(dpo_case(set_name, inputs))
    return cases


def refusals(sets: dict[str, Inputs]) -> list[dict[str, Any]]:
    """What GRPOTrainer answers to settings that it has no loss for."""
    found = []
    for name, settings in REFUSED.items():
        try:
            rollout_case("GRPOTrainer", name, {**GRPO_SHARED, **settings}, "off_policy", sets["off_policy"])
        except ValueError as error:
            found.append({"name": name, "settings": settings, "message": str(error)})
    return found


def plain(value: Any) -> Any:
    """Tensors as lists; floats with 9 significant digits, 0 where only rounding errors of a sum of zero are left."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if abs(value) > 1e-15 else 0.0
    return value


def text_of(record: dict[str, Any]) -> str:
    """JSON with one line per input set and per case."""
    parts = []
    for key, value in record.items():
        if isinstance(value, list):
            body = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        elif isinstance(value, dict):
            body = "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
        else:
            body = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(out: Path) -> None:
    """Computes all cases and writes them."""
    sets = random_inputs()
    record = {
        "versions": {module.__name__: module.__version__ for module in (trl, torch, transformers, accelerate)},
        "seed": SEED,
        "pairs": PAIRS,
        "inputs": sets,
        "cases": all_cases(sets),
        "refused": refusals(sets),
    }
    out.write_text(text_of(plain(record)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
