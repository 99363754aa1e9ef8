"""The Triton kernels against PyTorch: on a GPU where there is one, otherwise in Triton's interpreter (long: installs Triton)."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lco.heads import FixedHead, HeadRequest, LinearHead, chunk, row_loss, token_loss
from lco.methods import METHODS

ROOT = Path(__file__).parents[2]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

has_kernels = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton, and a GPU or TRITON_INTERPRET=1; test_in_an_environment_with_triton runs it",
)


def runs_kernels(test):
    """Part of `make test-gpu`."""
    return pytest.mark.gpu(has_kernels(test))


N, V, D = 6, 2500, 8  # more columns than a block holds, and no multiple of it


@pytest.mark.long
def test_in_an_environment_with_triton(tmp_path):
    """The tests below in Triton's interpreter, and the kernels compiled for three generations of GPUs."""
    version = re.search(r"^triton==(\S+)", (ROOT / "requirements" / "cuda.lock").read_text(), re.MULTILINE)[1]
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path, f"triton=={version}"]
    subprocess.run(install, check=True)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    tests = [sys.executable, "-m", "pytest", __file__, "-m", "not long", "-p", "no:cacheprovider"]
    done = subprocess.run(tests, env={**environment, "TRITON_INTERPRET": "1"}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
    built = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert built.stdout.split() == ["80", "90", "100"], built.stderr


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lco.heads import fused

for capability in (80, 90, 100):
    for kernel in (fused._row_statistics, fused._mix):
        for old in (True, False):
            constants = {"OLD": old, "BLOCK": fused.BLOCK, "LOW": fused.NOTHING}
            names = kernel.arg_names
            types = {n: "constexpr" if n in constants else "*fp32" if n.endswith("_at") else "i32" for n in names}
            source = ASTSource(kernel, types, constexprs={n: c for n, c in constants.items() if n in names})
            assert triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8}).asm["cubin"]
    print(capability)
"""


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@runs_kernels
def test_they_agree_with_pytorch():
    from lco.heads import fused

    fused.check(torch.device(DEVICE))  # raises where they do not
    z = 3 * draw(N, V, seed=0)
    found = fused.row_statistics(z, None)
    k, k_old = draw(N, seed=1), draw(N, seed=2)
    expected = (k + k_old)[:, None] * z.softmax(1)
    torch.testing.assert_close(found["probs lse"], z.logsumexp(1))
    torch.testing.assert_close(fused.mix(z, None, found, k, k_old), expected)


@runs_kernels
def test_a_wrong_kernel_is_found_and_replaced(monkeypatch):
    from lco.heads import fused

    right = fused.row_statistics
    monkeypatch.setattr(fused, "row_statistics", lambda z, old: {n: x + 0.01 for n, x in right(z, old).items()})
    with pytest.raises(RuntimeError, match=r"the kernel's probs lse differs from PyTorch's by 1.0e-02"):
        fused.check(torch.device(DEVICE))


@runs_kernels
def test_equal_logits_have_no_divergence():
    from lco.heads import fused

    z = 30 * draw(N, V, seed=0)
    assert (fused.row_statistics(z, z.clone())["kl_old"] == 0).all()


@runs_kernels
@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_logits(extreme):
    from lco.heads import fused

    z = draw(N, V, seed=0)
    z[:, 7] = extreme
    found = fused.row_statistics(z, None)
    torch.testing.assert_close(found["probs lse"], z.logsumexp(1))
    torch.testing.assert_close(
        found["entropy"], torch.distributions.Categorical(logits=z).entropy(), rtol=1e-5, atol=1e-5
    )


@runs_kernels
@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("request_kind", ["token", "row"])
@pytest.mark.parametrize("name", ["lco_kld", "lco_mse", "lco_lch", "lco_rkl", "sft", "reinforce"])
def test_losses_and_gradients_are_those_of_pytorch(monkeypatch, name, request_kind, on_policy):
    from lco.heads import fused

    method = METHODS[name]
    objective = method.bind()
    tilt = 2 * draw(N, seed=3)
    targets = draw(N, V, seed=4).argmax(1)
    old = None if on_policy else FixedHead(draw(N, D, seed=5), LinearHead(draw(V, D, seed=6) / 2))
    report = ("logprob", "entropy", "kl_old", "target_tv", "hidden_gradient_sq")
    asked = []

    def run(kernels):
        monkeypatch.setattr(chunk, "fused_kernels", lambda device: asked.append(kernels) or kernels)
        hidden, weight = draw(N, D, seed=1).requires_grad_(), (draw(V, D, seed=2) / 2).requires_grad_()
        inputs = {"tilt": tilt, "advantage": tilt}
        request = HeadRequest(targets, objective.statistics, inputs, torch.ones_like(tilt), old=old, report=report)
        if request_kind == "token":
            total, seen = token_loss(hidden, LinearHead(weight), objective.loss, request, 4)
        else:
            mask = torch.ones(2, N // 2, dtype=torch.bool, device=DEVICE)
            total, seen = row_loss(hidden, LinearHead(weight), mask, objective.loss, request)
        return [total.detach(), *torch.autograd.grad(total, [hidden, weight]), *seen.values()]

    plain, ours = run(None), run(fused)
    assert fused in asked
    for theirs, found in zip(plain, ours, strict=True):
        torch.testing.assert_close(found, theirs, rtol=2e-4, atol=2e-5)
