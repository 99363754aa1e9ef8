"""The same advantages, losses and gradients as TRL 1.16's trainers, where TRL computes the same method.

What is compared with is frozen in tests/peers/trl.json, made by tests/peers/trl_losses.py. `make test-long` installs TRL apart
and makes the file anew. TRL's standard deviations are float32, so what is divided by one is good to 5e-8 only.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lco.losses import token_scale
from lco.methods import METHODS
from lco.methods.objective import Signal

PEERS = Path(__file__).parents[1] / "peers"
FROZEN = json.loads((PEERS / "trl.json").read_text(encoding="utf-8"))
STD = {"epsilon_std": 1e-4}  # what TRL adds to a standard deviation
OURS = {
    "grpo": ("grpo", STD),
    "grpo, accumulated": ("grpo", STD),
    "grpo, reference": ("grpo", {**STD, "beta": 0.04}),
    "grpo, delta 1.3": ("grpo", {**STD, "dual_clip": 1.3}),
    "grpo, delta 3": ("grpo", {**STD, "dual_clip": 3.0}),
    "dr_grpo": ("dr_grpo", {}),
    "dr_grpo, accumulated": ("dr_grpo", {}),
    "dr_grpo, reference": ("dr_grpo", {"beta": 0.04}),
    "dapo": ("dapo", STD),
    "dapo, accumulated": ("dapo", STD),
    "gspo": ("gspo", STD),
    "gspo, wide": ("gspo", {**STD, "clip_low": 0.1, "clip_high": 0.15}),
    # TRL's epsilon_high bounds the weight itself; the paper writes 1 + ε.
    "cispo": ("cispo", {**STD, "clip_high": 4.0}),
    "cispo, low cap": ("cispo", {**STD, "clip_high": 0.2}),
    "rloo": ("rloo", {}),
    "rloo, accumulated": ("rloo", {}),
    "rloo, reference": ("rloo", {"beta_kl": 0.05}),
    "dpo": ("dpo", {}),
}
ON_POLICY_ALONE = {"rloo", "rloo, accumulated", "rloo, reference"}
"""TRL's RLOO clips a ratio of whole responses, which the paper does not have: equal while the policy is the old one."""


def computed(case):
    """(our advantages [B], loss, its gradient in the sampled tokens' log-probabilities) on a case's inputs."""
    data = {name: torch.tensor(value) for name, value in FROZEN["inputs"][case["inputs"]].items()}
    name, hyper = OURS[case["name"]]
    method = METHODS[name]
    objective = method.bind(hyper)
    mask = data["mask"].bool()
    rewards = data["rewards"].double()
    if method.scope == "pair":
        rewards = torch.tensor([1.0, 0.0] * 4).double()
    needs = objective.needs
    signal = Signal(
        rewards, data["groups"], mask, torch.zeros(8, dtype=torch.bool), length_limit=10,
        ref_logprob=data["ref_logprob"].double() if needs.reference else None,
        old_logprob=data["old_logprob"].double() if needs.old_logprob else None,
    )  # fmt: skip
    inputs = objective.advantage(signal)
    new = data["new_logprob"].double().requires_grad_()
    statistics = {"logprob": new * mask, "old_logprob": data["old_logprob"].double() * mask}
    scale = token_scale(mask, method.reduction, inputs["advantage"], signal.length_limit).double()
    loss = (objective.loss(statistics, inputs) * scale)[mask].sum()
    return inputs["advantage"][:, 0], float(loss.detach()), torch.autograd.grad(loss, new)[0]


@pytest.mark.parametrize("inputs", ["on_policy", "off_policy", "far"])
@pytest.mark.parametrize("name", OURS)
def test_advantages_losses_and_gradients_are_trls(name, inputs):
    if name in ON_POLICY_ALONE and inputs != "on_policy":
        return
    (case,) = (c for c in FROZEN["cases"] if c["name"] == name and c["inputs"] == inputs)
    advantages, loss, gradient = computed(case)
    if "advantages" in case:
        torch.testing.assert_close(advantages, torch.tensor(case["advantages"]).double(), rtol=2e-7, atol=2e-7)
    torch.testing.assert_close(gradient, torch.tensor(case["gradient"]).double(), rtol=5e-7, atol=1e-7)
    if name not in ON_POLICY_ALONE:  # TRL writes their value as a ratio's, we as a log-probability's
        assert loss == pytest.approx(case["loss"], rel=5e-7, abs=2e-7)


def test_a_wrong_reduction_or_clip_would_be_noticed():
    case = next(c for c in FROZEN["cases"] if c["name"] == "dapo" and c["inputs"] == "far")
    gradient = computed(case)[2]
    for other in ("grpo", "cispo", "dr_grpo", "gspo"):
        assert (computed({**case, "name": other})[2] - gradient).abs().max() > 1e-4


@pytest.mark.long
def test_the_frozen_values_are_what_trl_computes_now(tmp_path):
    """Installs TRL apart, without its dependencies, and runs its trainers again."""
    target = tmp_path / "trl"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), "trl==1.16.0"]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "trl.json"
    command = [sys.executable, str(PEERS / "trl_losses.py"), str(out)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["versions"]["trl"] == FROZEN["versions"]["trl"] == "1.16.0"
    assert found["inputs"] == FROZEN["inputs"]
    for now, then in zip(found["cases"], FROZEN["cases"], strict=True):
        assert (now["name"], now["inputs"]) == (then["name"], then["inputs"])
        assert now["loss"] == pytest.approx(then["loss"], rel=1e-6, abs=1e-9)
        torch.testing.assert_close(torch.tensor(now["gradient"]), torch.tensor(then["gradient"]), rtol=1e-6, atol=1e-9)
