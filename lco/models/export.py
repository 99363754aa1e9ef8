"""A trained policy as an ordinary model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from lco.problems.prompts import with_pinned_date


def export(model: Any, tokenizer: Any, where: Path, weights: dict[str, Tensor]) -> None:
    """A model folder that transformers loads; its chat template tells every program the date that training was told."""
    model.save_pretrained(where, state_dict={name: tensor.cpu() for name, tensor in weights.items()})
    with_pinned_date(tokenizer).save_pretrained(where)
