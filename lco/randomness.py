"""One rule for randomness: every draw comes from a generator seeded by (seed, step, purpose)."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed that differs for every (seed, step, purpose); restarts at a step resume the same stream."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh torch generator for one purpose at one step, e.g. `generator(0, 12, "rollout")`."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, step, purpose))
