"""Every number of the start models' pretraining, apart from the code that needs torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """`start.json` beside the weights records these."""

    steps: int = 1000
    seed: int = 0
    batch_size: int = 64
    batches_per_block: int = 16  # sequences are sorted by length inside a block, to pad little
    learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup_steps: int = 50
    constant_until: float = 0.5  # share of the steps; afterwards the rate falls linearly
    final_share: float = 0.05  # of the learning rate, at the last step
    clip_norm: float = 1.0
    initializer_range: float = 0.05
    validation_problems: int = 512
    validation_samples: int = 4  # of each problem, at temperature 1
