"""What only a CUDA device can show (`make test-gpu`; the Triton kernels' tests stand in tests/heads/test_fused.py). Each test
stands alone, so that a short loan of a machine can run some: `pytest -m gpu -k memory`."""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lco import models
from lco.heads import HeadRequest, LinearHead, token_loss
from lco.methods import METHODS
from lco.policy import PolicyModel, Statistics
from lco.rollout.records import Sampling, collate
from lco.rollout.transformers import TransformersSampler
from tests.benchmarks import head_speed
from tests.conftest import START, lines, small, train
from tests.gpu.conftest import DEVICE, settings
from tests.rollout.conftest import save, small_model, trainer_gap

ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA device; make test-gpu runs it there"
    ),
]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=16, samples=4, stop_token_ids=(2, 5))
PROMPTS = [(str(i), (1, 5 + i, 6, 9)) for i in range(8)]
ROOT = Path(__file__).parents[2]


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


def synchronise():
    if ON_GPU:
        torch.cuda.synchronize()


def test_float32_is_multiplied_as_float32(figures):
    figures.update(settings())
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(512, 512, generator=g), torch.randn(512, 512, generator=g)
    exact = a.double() @ b.double()
    gap = float(((a.to(DEVICE) @ b.to(DEVICE)).cpu().double() - exact).abs().max())
    figures["largest error of a float32 product"] = gap
    assert gap < 1e-3  # TF32 is off by 3e-2 here


@pytest.mark.parametrize("name", ["grpo", "lco_kld", "lco_mse", "sft"])
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_a_gradient_is_that_of_float64(name, dtype, limit, figures):
    tokens, vocabulary, width = (512, 32_000, 256) if ON_GPU else (32, 500, 16)
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(tokens, width, generator=g), torch.randn(vocabulary, width, generator=g) / width**0.5
    hidden, weight = (x.to(getattr(torch, dtype)).double() for x in (hidden, weight))  # the same numbers in both
    targets, tilt = torch.randint(vocabulary, (tokens,), generator=g), torch.randn(tokens, generator=g)

    def gradients(device, kind):
        objective = METHODS[name].bind()
        h, w = (x.to(device, kind).requires_grad_() for x in (hidden, weight))
        t = tilt.to(device, torch.float64 if kind == torch.float64 else torch.float32)
        inputs = {"tilt": t, "advantage": t, "old_logprob": torch.full_like(t, -9.0)}
        asked = HeadRequest(targets.to(device), objective.statistics, inputs, torch.full_like(t, 1 / tokens))
        loss, _ = token_loss(h, LinearHead(w), objective.loss, asked)
        return [x.double().cpu() for x in torch.autograd.grad(loss, [h, w])]

    for what, found, exact in zip(
        ("hidden", "weight"), gradients(DEVICE, getattr(torch, dtype)), gradients("cpu", torch.float64), strict=True
    ):
        figures[what] = gap = float((found - exact).norm() / exact.norm())
        assert gap < limit, what


@pytest.mark.skipif(not ON_GPU, reason="so few tokens as a CPU computes in this time are one chunk")
@pytest.mark.parametrize("case", ["kld-on", "kld-off", "row-off"])
def test_memory_of_a_loss_does_not_grow_with_its_tokens(case, figures):
    """From 4,096 to 16,384 tokens the logits would take 7.5 GB more at this vocabulary; what grows are states and gradients."""
    vocabulary, width, few = 151_936, 896, 4096
    options = argparse.Namespace(threads=torch.get_num_threads(), dtype="bfloat16",
                                 width=width, vocabulary=vocabulary, device=DEVICE)  # fmt: skip
    small_case, large = (head_speed.measure(case, tokens, options) for tokens in (few, 4 * few))
    figures.update({f"{few} tokens": small_case, f"{4 * few} tokens": large})
    logits = 3 * few * vocabulary * 4
    assert large["bytes"] - small_case["bytes"] < logits / 10


def test_a_loss_beside_cross_entropy(figures):
    """Seconds of one forward and backward; nothing is asserted about time. Liger's fused loss too, where it is there."""
    tokens, vocabulary, width = (8192, 151_936, 896) if ON_GPU else (256, 5000, 64)
    dtype = torch.bfloat16 if ON_GPU else torch.float32
    x = head_speed.inputs(tokens, width, vocabulary, dtype, DEVICE)
    calls = {case: lambda case=case: head_speed.run(case, x) for case in ("sft", "kld-on", "kld-off")}
    if importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss()
        calls["liger cross-entropy"] = lambda: liger(x["weight"], x["hidden"], x["targets"]).backward()
    for case, call in calls.items():
        seconds = []
        for _ in range(4):
            x["hidden"].grad = x["weight"].grad = None
            synchronise()
            begun = time.perf_counter()
            call()
            synchronise()
            seconds.append(time.perf_counter() - begun)
        figures[case] = {"first": seconds[0], "best": min(seconds[1:])}
        assert x["hidden"].grad is not None
        assert x["hidden"].grad.isfinite().all()


@pytest.mark.parametrize("kind", ["qwen", "llama"])
def test_the_policy_is_the_cpus_and_the_samplers(kind, figures):
    model = models.load_model(str(START / kind), "float32", DEVICE).eval()
    rows = TransformersSampler(model).sample(PROMPTS, SAMPLING, seed=1)
    assert TransformersSampler(model).sample(PROMPTS, SAMPLING, seed=1) == rows
    here = PolicyModel(model)(collate(rows).to(DEVICE), Statistics(["logprob"]))["logprob"].cpu()
    there = PolicyModel(models.load_model(str(START / kind), "float32", "cpu").eval())(
        collate(rows), Statistics(["logprob"])
    )["logprob"]
    figures["largest difference to the CPU"] = float((here - there).abs().max())
    assert torch.allclose(here, there, atol=1e-4)
    sampled = [value for row in rows for value in row.logprobs]
    mine = [float(here[i, t]) for i, row in enumerate(rows) for t in range(len(row.logprobs))]
    assert sampled == pytest.approx(mine, abs=1e-4)


@pytest.mark.parametrize("method", ["grpo", "gspo", "dpo", "ppo", "sft", "lco_kld"])
def test_a_run_of_every_scope_trains(method, tmp_path, figures):
    experiment = small(tmp_path / "run", method=method, device=DEVICE, steps=2, eval_every=0, save_every=1)
    found = lines(train(experiment))
    assert [line["step"] for line in found] == [1, 2]
    assert all(line.get("sampler_gap_max", 0.0) < 1e-3 for line in found)
    figures["seconds"] = [line["seconds"] for line in found]


@needs("deepspeed")
@pytest.mark.parametrize("stage", ["2", "3"])
def test_a_run_under_deepspeed_trains(stage, tmp_path, figures):
    out = tmp_path / "run"
    given = "--problems arithmetic --extraction hash --max-prompt-tokens 32 --prompts-per-step 4 --samples 4"
    more = f"--steps 2 --method grpo --engine deepspeed --processes 1 --zero-stage {stage} --device {DEVICE}"
    command = [sys.executable, "-m", "lco.cli", "train", "--model", str(START / "llama"), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *given.split(), *more.split()], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    figures["seconds"] = [line["seconds"] for line in lines(out)]
    assert len(lines(out)) == 2


@needs("vllm")
def test_vllm_follows_the_trainers_weights_and_without_a_synchronisation_does_not(tmp_path, figures):
    from lco.rollout.vllm import VLLMSampler

    model = small_model("qwen", tied=True, seed=1)
    sampler = VLLMSampler(save(model, tmp_path), "float32", cache_gib=0.1, max_model_len=64, separate_process=False)
    try:
        figures["as loaded"] = trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=1))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.3)
        figures["without a synchronisation"] = trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=1))
        sampler.sync(model.state_dict().items())
        figures["synchronised"] = trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=1))
    finally:
        sampler.close()
    assert figures["as loaded"] < 1e-3
    assert figures["synchronised"] < 1e-3
    assert figures["without a synchronisation"] > 0.1
