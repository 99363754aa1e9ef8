"""Losses and gradients of TRL 1.16's own trainers on random inputs; run where `trl` can be imported.

    pip install --no-deps --target build/trl trl==1.16.0
    PYTHONPATH=build/trl python tests/peers/trl_losses.py OUT.json

Each case calls a trainer's `_compute_loss` as it is released, on an object that has the attributes which that method reads
and whose log-probabilities are our leaf tensor. Nothing of `lco` is imported. The file that it writes is committed as
trl.json, and tests/methods/test_trl.py compares the suite with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
import trl
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

LENGTHS = (6, 1, 4, 3, 2, 5, 6, 1)
WIDTH = 6
EPSILON_STD = 1e-4  # what TRL adds to a standard deviation


def drawn(on_policy: bool) -> dict[str, torch.Tensor]:
    """Log-probabilities [8, 6] of the new, the old and a reference policy, a ragged mask, rewards of two groups of four."""
    g = torch.Generator().manual_seed(7)
    old = -3 * torch.rand(8, WIDTH, generator=g, dtype=torch.float64)
    noise, away = (torch.randn(8, WIDTH, generator=g, dtype=torch.float64) for _ in range(2))
    return {
        "old": old,
        "new": old if on_policy else (old + 0.3 * noise).clamp(max=0),
        "ref": (old + 0.3 * away).clamp(max=0),
        "mask": (torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]).double(),
        "rewards": torch.tensor([1, 0, 1, 0, 0, 0, 1, 0], dtype=torch.float64),
    }


def group_advantages(rewards: torch.Tensor, scaled: bool) -> torch.Tensor:
    """What GRPOTrainer gives its loss: centred in groups of four, over the sample standard deviation (ddof 1) + 1e-4."""
    groups = rewards.view(-1, 4)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + EPSILON_STD) if scaled else centred).flatten()


def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    groups = rewards.view(-1, 4)
    return (groups - (groups.sum(1, keepdim=True) - groups) / 3).flatten()


def stand_in(new: torch.Tensor, **attributes: object) -> MagicMock:
    """An object that a trainer's method takes for its trainer; logging calls on it do nothing."""
    trainer = MagicMock()
    trainer.model.training = True
    trainer.accelerator.num_processes = 1
    trainer.accelerator.reduce = lambda tensor, reduction: tensor
    trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = lambda tensor: tensor
    trainer.accelerator.device = torch.device("cpu")
    trainer.current_gradient_accumulation_steps = 1
    trainer.args.steps_per_generation = 1
    trainer.aux_loss_enabled = False
    trainer._entropy_bonus_enabled = False
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (new, torch.zeros_like(new), None)
    for name, value in attributes.items():
        setattr(trainer, name, value)
    return trainer


def batch(data: dict[str, torch.Tensor], advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.zeros(8, WIDTH, dtype=torch.int64)
    return {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones(8, 1),
        "completion_ids": ids,
        "completion_mask": data["mask"],
        "advantages": advantages,
        "old_per_token_logps": data["old"],
        "ref_per_token_logps": data["ref"],
        "old_logps": (data["old"] * data["mask"]).sum(1),
        "num_items_in_batch": data["mask"].sum(),
    }


def grpo(data: dict[str, torch.Tensor], new: torch.Tensor, settings: dict[str, object]) -> torch.Tensor:
    """GRPOTrainer._compute_loss"""
    chosen = {"beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "level": "token", "scaled": True, **settings}
    trainer = stand_in(
        new, loss_type=chosen["loss_type"], beta=chosen["beta"], epsilon_low=chosen["epsilon_low"],
        epsilon_high=chosen["epsilon_high"], importance_sampling_level=chosen["level"], max_completion_length=10,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
    )  # fmt: skip
    trainer.args.delta = chosen.get("delta")
    trainer.args.use_bias_correction_kl = False
    return GRPOTrainer._compute_loss(
        trainer, None, batch(data, group_advantages(data["rewards"], bool(chosen["scaled"])))
    )


def rloo(data: dict[str, torch.Tensor], new: torch.Tensor, settings: dict[str, object]) -> torch.Tensor:
    """RLOOTrainer._compute_loss"""
    trainer = stand_in(new, epsilon_low=0.2, epsilon_high=0.2, beta=0.0)
    return RLOOTrainer._compute_loss(trainer, None, batch(data, leave_one_out(data["rewards"])))


def dpo(data: dict[str, torch.Tensor], new: torch.Tensor, settings: dict[str, object]) -> torch.Tensor:
    """DPOTrainer._compute_loss with the sigmoid loss; the first four rows are chosen, the last four rejected."""
    trainer = stand_in(
        new, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=["sigmoid"],
        loss_weights=[1.0], beta=0.1, label_smoothing=0.0, use_weighting=False,
    )  # fmt: skip
    logps = (data["ref"] * data["mask"]).sum(1)
    completion = torch.cat([torch.zeros(8, 1), data["mask"]], 1)
    inputs = {
        "input_ids": torch.zeros(8, WIDTH + 1, dtype=torch.int64),
        "attention_mask": torch.ones(8, WIDTH + 1),
        "completion_mask": completion,
        "ref_chosen_logps": logps[:4],
        "ref_rejected_logps": logps[4:],
    }
    nothing = torch.zeros(8, WIDTH)
    outputs = SimpleNamespace(
        log_probs=new * data["mask"], entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
    )
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


CASES = {
    "grpo": (grpo, {"loss_type": "grpo"}),
    "grpo-kl": (grpo, {"loss_type": "grpo", "beta": 0.04}),
    "grpo-dual": (grpo, {"loss_type": "grpo", "delta": 1.3}),
    "dr_grpo": (grpo, {"loss_type": "dr_grpo", "scaled": False}),
    "dapo": (grpo, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": (grpo, {"loss_type": "grpo", "level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
    "gspo-wide": (grpo, {"loss_type": "grpo", "level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.1}),
    "cispo": (grpo, {"loss_type": "cispo", "epsilon_high": 1.2}),
    "rloo": (rloo, {}),
    "dpo": (dpo, {}),
}


def case(name: str, on_policy: bool) -> dict[str, object]:
    """Loss, and its gradient in the new policy's log-probabilities."""
    compute, settings = CASES[name]
    data = drawn(on_policy)
    new = data["new"].clone().requires_grad_()
    loss = compute(data, new, settings)
    gradient = torch.autograd.grad(loss, new)[0] * data["mask"]
    return {
        "name": name,
        "on_policy": on_policy,
        "settings": settings,
        "loss": round(float(loss.detach()), 9),
        "gradient": [[float(f"{x:.9g}") for x in row] for row in gradient.tolist()],
    }


def main() -> None:
    found = {
        "trl": trl.__version__,
        "torch": torch.__version__.split("+")[0],
        "inputs": {
            "on_policy" if on else "off_policy": {k: v.tolist() for k, v in drawn(on).items()} for on in (True, False)
        },
        "cases": [case(name, on_policy) for name in CASES for on_policy in (True, False)],
    }
    Path(sys.argv[1]).write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
