"""The same losses and gradients as TRL 1.16's trainers, where TRL computes the same method (tests/peers/trl_losses.py).

What is compared with is frozen in tests/peers/trl.json. `make test-long` installs TRL apart, makes the file anew and compares.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lco.losses import token_scale
from lco.methods import METHODS, Signal

PEERS = Path(__file__).parents[1] / "peers"
FROZEN = json.loads((PEERS / "trl.json").read_text(encoding="utf-8"))
OURS = {
    "grpo": ("grpo", {"epsilon_std": 1e-4}),
    "grpo-kl": ("grpo", {"epsilon_std": 1e-4, "beta": 0.04}),
    "grpo-dual": ("grpo", {"epsilon_std": 1e-4}),
    "dr_grpo": ("dr_grpo", {}),
    "dapo": ("dapo", {"epsilon_std": 1e-4, "dynamic_sampling": False}),
    "gspo": ("gspo", {"epsilon_std": 1e-4}),
    "gspo-wide": ("gspo", {"epsilon_std": 1e-4, "clip_low": 0.1, "clip_high": 0.1}),
    # TRL bounds the weight itself, the paper writes 1 + ε.
    "cispo": ("cispo", {"epsilon_std": 1e-4, "clip_high": 0.2}),
    "rloo": ("rloo", {}),
    "dpo": ("dpo", {}),
}


def computed(case):
    """(our loss, its gradient in the sampled tokens' log-probabilities)"""
    data = {k: torch.tensor(v) for k, v in FROZEN["inputs"]["on_policy" if case["on_policy"] else "off_policy"].items()}
    data = {k: v.double() for k, v in data.items()}
    name, hyper = OURS[case["name"]]
    method = METHODS[name]
    knobs = method.hyper(hyper)
    order = torch.arange(8)
    if method.scope == "pair":  # TRL keeps chosen and rejected halves, we keep pairs
        order = torch.arange(8).reshape(2, 4).T.flatten()
        data["rewards"] = torch.tensor([1.0] * 4 + [0.0] * 4).double()
    mask = data["mask"][order].bool()
    reference = data["ref"][order] if method.needs(knobs).reference else None
    signal = Signal(
        data["rewards"][order], torch.arange(8) // 4, mask, torch.zeros(8, dtype=torch.bool), 10, ref_logprob=reference
    )
    inputs = method.advantage(signal, knobs)
    new = data["new"].clone().requires_grad_()
    statistics = {"logprob": new[order] * mask, "old_logprob": data["old"][order] * mask}
    if case["name"] == "grpo-dual":
        loss_of = METHODS["ppo"].loss(METHODS["ppo"].hyper({"dual_clip": case["settings"]["delta"]}))
    else:
        loss_of = method.loss(knobs)
    per_token = loss_of(statistics, inputs)
    loss = (per_token * token_scale(mask, method.reduction, inputs["advantage"], 10).double()).sum()
    return float(loss.detach()), torch.autograd.grad(loss, new)[0]


def check(cases):
    for case in cases:
        loss, gradient = computed(case)
        expected = torch.tensor(case["gradient"], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, rtol=2e-6, atol=1e-8, msg=f"{case['name']} {case['on_policy']}")
        # TRL writes REINFORCE's value as a ratio's; of CISPO's only the gradient means anything, and it is the same.
        if case["name"] != "rloo":
            assert loss == pytest.approx(case["loss"], rel=2e-6, abs=1e-8), case["name"]


@pytest.mark.parametrize("name", OURS)
def test_losses_and_gradients_are_trls(name):
    cases = [c for c in FROZEN["cases"] if c["name"] == name]
    assert len(cases) == 2
    # TRL's RLOO clips a ratio of whole responses, which the paper does not have: equal while the policy is the old one.
    check([c for c in cases if c["on_policy"] or name != "rloo"])


def test_a_wrong_reduction_or_clip_would_be_noticed():
    case = next(c for c in FROZEN["cases"] if c["name"] == "dapo" and not c["on_policy"])
    with pytest.raises(AssertionError):
        check([{**case, "name": "grpo"}])
    with pytest.raises(AssertionError):
        check([{**case, "name": "cispo"}])


@pytest.mark.long
def test_the_frozen_values_are_what_trl_computes_now(tmp_path):
    """Installs TRL apart, without its dependencies, and runs its losses again."""
    target = tmp_path / "trl"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), "trl==1.16.0"]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "trl.json"
    command = [sys.executable, str(PEERS / "trl_losses.py"), str(out)]
    done = subprocess.run(command, env={"PYTHONPATH": str(target), "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["trl"] == FROZEN["trl"] == "1.16.0"
    for now, then in zip(found["cases"], FROZEN["cases"], strict=True):
        assert (now["name"], now["loss"]) == (then["name"], pytest.approx(then["loss"], rel=1e-6, abs=1e-9))
        torch.testing.assert_close(torch.tensor(now["gradient"]), torch.tensor(then["gradient"]), rtol=1e-6, atol=1e-9)
