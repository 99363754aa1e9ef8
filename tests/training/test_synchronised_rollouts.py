"""DeepSpeed on two ranks with vLLM rollouts: the policy that learns is the one that samples, also after a resume."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from lco.rollout.records import Sampling
from lco.rollout.transformers import TransformersSampler
from lco.training.launch import run_ranks
from tests.conftest import START
from tests.rollout.conftest import trainer_gap

ROOT = Path(__file__).parents[2]
NEAR = 1e-3
"""Above what kernels differ by (1e-6 here), below what one update at this learning rate moves."""

pytestmark = pytest.mark.long


def flags(kind, stage, steps, folder):
    """Rollouts of six prompts × four samples, two updates each, at a rate that moves the policy in every one."""
    return [
        *("train", "--engine", "deepspeed", "--processes", "2", "--zero-stage", str(stage), "--device", "cpu"),
        *("--rollouts", "vllm", "--vllm-cache-gib", "0.1", "--model", str(START / kind), "--problems", "arithmetic"),
        *("--extraction", "hash", "--max-prompt-tokens", "32", "--prompts-per-step", "6", "--samples", "4"),
        *("--minibatches", "2", "--lr", "1e-3", "--steps", str(steps), "--out", str(folder)),
    ]


def lco(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lco.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().split("\n") if line]


def between(old, new):
    """Largest |Δ log p| of two policies on rows that the first one samples."""
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (old, new)]
    prompts = [(str(i), (1, 5 + i, 6, 7)) for i in range(6)]
    rows = TransformersSampler(models[0]).sample(prompts, Sampling(1.0, 1.0, 0, 16, 4, (2,)), seed=1)
    return trainer_gap(models[1], rows)


@pytest.mark.parametrize(("kind", "stage"), [("llama", 2), ("qwen", 3)])
def test_every_rollout_is_the_trained_policys_across_a_resume(tmp_path, kind, stage):
    folder = tmp_path / "run"
    lco(*flags(kind, stage, 2, folder))
    before, halfway = lines(folder), folder / "checkpoints" / "final"
    assert [line["step"] for line in before] == [1, 2]
    # On a resume vLLM loads the start model's folder: sampling from that would be seen at once.
    assert between(START / kind, halfway) > 100 * NEAR
    lco("train", "--resume", "--config", str(folder / "config.json"), "--steps", "4")
    found = lines(folder)
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    assert found[:2] == before
    for line in found:
        assert line["updates"] == 2, line
        assert line["sampler_gap_max"] < NEAR, line
        # KL is about half the mean square of Δ log p; the first of the two updates alone moves it by more than NEAR.
        assert math.sqrt(2 * line["kl_old"]) > 5 * NEAR, line


def test_a_sampler_that_keeps_its_first_weights_is_seen_in_the_next_rollout(tmp_path, monkeypatch):
    """The control: the same run with the sync taken out."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "run"
    command = ["--module", "tests.training.unsynchronised_worker", *flags("llama", 2, 2, folder)]
    run_ranks(command, 2, cpu=True)
    first, second = lines(folder)
    assert first["sampler_gap_max"] < NEAR
    assert second["sampler_gap_max"] > 10 * NEAR
