"""DeepSpeed equals plain torch: the same parameters after optimizer steps on several unequal micro-batches."""

import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file


def case(engine, stage, tied, method="lco_kld", scope="token", kind="qwen"):
    name = f"{kind}-{'tied' if tied else 'untied'}-{method}-{scope}"
    return {
        "engine": engine,
        "stage": stage,
        "tied": tied,
        "method": method,
        "scope": scope,
        "kind": kind,
        "name": name,
    }


def run_ranks(folder, ranks, cases):
    """All cases of one launch; a launch costs ten seconds."""
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "0",
               "--standalone", "tests/training/ranks.py", str(folder), json.dumps(cases)]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return {c["name"]: (load_file(folder / f"{c['name']}.safetensors"), json.loads((folder / f"{c['name']}.json").read_text()))
            for c in cases}  # fmt: skip


def assert_same(found, expected):
    for name, (weights, norms) in expected.items():
        other, other_norms = found[name]
        assert other_norms == pytest.approx(norms, rel=1e-4), name
        assert set(other) == set(weights)
        for key, value in weights.items():
            torch.testing.assert_close(
                other[key], value, rtol=1e-4, atol=2e-6, msg=lambda m, k=key, n=name: f"{n} {k}: {m}"
            )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Plain torch, one process: tied and untied, token and row scope."""
    cases = [case("torch", 2, tied, scope=scope) for tied in (True, False) for scope in ("token", "row")]
    return run_ranks(tmp_path_factory.mktemp("torch") / "out", 1, cases)


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_equal_plain_torch(tmp_path, reference, stage):
    cases = [case("deepspeed", stage, tied, scope=scope) for tied in (True, False) for scope in ("token", "row")]
    assert_same(run_ranks(tmp_path / "out", 2, cases), reference)


@pytest.mark.long
@pytest.mark.parametrize(("ranks", "stage"), itertools.product([1, 2], [2, 3]))
def test_every_method_and_both_classes(tmp_path, ranks, stage):
    wanted = [(m, k) for m in ("lco_kld", "lco_mse", "lco_lch", "grpo", "reinforce") for k in ("qwen", "llama")]
    plain = [case("torch", 2, True, m, kind=k) for m, k in wanted]
    spread = [case("deepspeed", stage, True, m, kind=k) for m, k in wanted]
    assert_same(run_ranks(tmp_path / "out", ranks, spread), run_ranks(tmp_path / "plain", 1, plain))
