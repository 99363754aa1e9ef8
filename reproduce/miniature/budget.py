"""The miniature's budget: what is equal for all methods, and the four tries that each method gets.

Everything that decides a comparison stands here, so that `run.py` (the final runs) and `tune.py` (the tries on validation
problems) cannot disagree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lco.config import Experiment

HERE = Path(__file__).parent
START = HERE / "start"
PRESETS = HERE / "presets.json"
WIDER_PRESETS = HERE / "presets_wider.json"

CLASSES = {"qwen": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
METHODS = ("lco_kld", "lco_mse", "lco_lch", "ppo", "grpo", "reinforce", "rft", "sft")
"""What `make reproduce` runs."""
BASELINES = (
    *("dr_grpo", "dapo", "dapo_refill", "gspo", "cispo", "reinforce_pp", "reinforce_pp_baseline", "rloo"),
    *("kimi", "kimi_token", "pmd_mean", "pmd_partition"),
)
"""What `--methods all` adds. GSPO-token is left out: with one advantage a row its gradient is GSPO's."""

TUNING_CLASS = "llama"
TUNING_SEED = 1000
"""Seeds of the tries and of the final runs never meet."""

COMMON: dict[str, Any] = {
    "problems": "arithmetic",
    "prompt": "plain",
    "extraction": "hash",
    "limit": 20_000,
    "max_prompt_tokens": 32,
    "max_new_tokens": 32,
    "prompts_per_step": 32,
    "samples": 8,
    "steps": 16,
    "minibatches": 4,
    "epochs": 2,
    "micro_batch": 64,
    "temperature": 1.0,
    "beta1": 0.9,
    "beta2": 0.99,
    "clip_norm": 1.0,
    "eval_every": 4,
    "eval_problems": 128,
    "device": "cpu",
}
"""The equal budget: 16 rollouts of 32 prompts × 8 samples, 8 optimizer steps on each (2 passes of 4 minibatches)."""

TRIES: dict[str, list[dict[str, Any]]] = {
    "lco_kld": [
        {"lr": 5e-4, "hyper": {"beta": 2.0}},
        {"lr": 5e-4, "hyper": {"beta": 0.7}},
        {"lr": 1e-3, "hyper": {"beta": 2.0}},
        {"lr": 1e-3, "hyper": {"beta": 0.7}},
    ],
    "lco_mse": [
        {"lr": 5e-4, "hyper": {"beta": 2.0}},
        {"lr": 5e-4, "hyper": {"beta": 0.7}},
        {"lr": 1e-3, "hyper": {"beta": 2.0}},
        {"lr": 1e-3, "hyper": {"beta": 0.7}},
    ],
    "lco_lch": [
        {"lr": 5e-4, "hyper": {"beta": 2.0}},
        {"lr": 5e-4, "hyper": {"beta": 0.7}},
        {"lr": 1e-3, "hyper": {"beta": 2.0}},
        {"lr": 1e-3, "hyper": {"beta": 0.7}},
    ],
    "ppo": [
        {"lr": 2.5e-4, "critic_lr": 1e-3},
        {"lr": 5e-4, "critic_lr": 1e-3},
        {"lr": 1e-3, "critic_lr": 1e-3},
        {"lr": 2e-3, "critic_lr": 1e-3},
    ],
    "grpo": [{"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}, {"lr": 2e-3}],
    "reinforce": [{"lr": 6e-5}, {"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}],
    # The released code's gradients do not depend on how far the policy has come, so its presets try rates, not β.
    "lco_kld_reference": [{"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}],
    "lco_mse_reference": [{"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}],
    "lco_lch_reference": [{"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}],
    **{
        name: [{"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}]
        for name in ("dr_grpo", "dapo", "dapo_refill", "gspo", "cispo", "reinforce_pp", "reinforce_pp_baseline")
    },
    "rloo": [{"lr": 6e-5}, {"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}],
    "kimi": [{"lr": lr, "hyper": {"tau": tau}} for lr in (1.25e-4, 2.5e-4) for tau in (0.02, 0.2)],
    "kimi_token": [{"lr": lr, "hyper": {"beta": beta}} for lr in (2.5e-4, 5e-4) for beta in (0.3, 1.0)],
    "pmd_mean": [{"lr": lr, "hyper": {"tau": tau}} for lr in (2.5e-4, 5e-4) for tau in (0.01, 0.1)],
    "pmd_partition": [{"lr": lr, "hyper": {"tau": tau}} for lr in (2.5e-4, 5e-4) for tau in (0.01, 0.1)],
    "rft": [{"lr": 1.25e-4}, {"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}],
    "sft": [{"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}, {"lr": 2e-3}],
}
"""Four tries a method. Methods with a pull of their own (beta, tau) spend them on lr × that, the others on lr."""

LCO_WIDER = [
    {"lr": 2.5e-4, "hyper": {"beta": 0.7}},
    *({"lr": lr, "hyper": {"beta": beta}} for beta in (0.25, 0.1) for lr in (2.5e-4, 5e-4, 1e-3)),
]
WIDER: dict[str, list[dict[str, Any]]] = {
    **dict.fromkeys(("lco_kld", "lco_mse", "lco_lch"), LCO_WIDER),
    "ppo": [{"lr": 6e-5, "critic_lr": 1e-3}, {"lr": 1.25e-4, "critic_lr": 1e-3}],
    "grpo": [{"lr": 6e-5}, {"lr": 1.25e-4}],
}
"""Further tries of methods whose best of the four lies at the edge of them. The presets do not come from these; the best of
all stand in a file of their own, to show how much of a method's place in the table the four tries cost it."""


def experiment(family: str, method: str, seed: int, knobs: dict[str, Any], out: Path) -> Experiment:
    """One training run of the miniature."""
    return Experiment(model=str(START / family), method=method, seed=seed, out=str(out), **{**COMMON, **knobs})


def read_presets(file: Path = PRESETS) -> dict[str, dict[str, Any]]:
    """What `tune.py` chose on validation problems, {method: {"lr": …, "hyper": …}}."""
    return {name: chosen["knobs"] for name, chosen in json.loads(file.read_text(encoding="utf-8")).items()}
