"""What `make test-gpu` measures goes into runs/gpu/CARD.json, with the card's name and PyTorch's settings."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from lco import disk

DEVICE = os.environ.get("LCO_GPU_DEVICE", "cuda")
"""LCO_GPU_DEVICE=cpu tries the tests themselves, at a fraction of the size, where there is no GPU."""


def card():
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU"


def settings():
    """What decides how float32 is multiplied and whether a run repeats."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    }


@pytest.fixture
def figures(request):
    """Notes {what: value} of a test; parts that run apart add to the same file."""
    found = {}
    yield found
    file = Path("runs") / "gpu" / (re.sub(r"\W+", "-", card()).strip("-").lower() + ".json")
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    tests = {**kept.get("tests", {}), request.node.name: found}
    disk.write_json(file, {"card": card(), "settings": settings(), "tests": tests})
