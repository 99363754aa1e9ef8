"""A trained policy as an ordinary model folder, which any version of transformers, and what builds on it, can load."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.disk import write_json
from lco.problems.prompts import with_pinned_date


def export(model: Any, tokenizer: Any, where: Path, weights: dict[str, Tensor]) -> None:
    """A model folder; its chat template tells every program the date that training was told."""
    if not torch.cuda.is_available():
        # accelerate imports DeepSpeed here, which otherwise warns that it looked for a GPU and found none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    model.save_pretrained(where, state_dict={name: tensor.cpu() for name, tensor in weights.items()})
    save_tokenizer(tokenizer, where)


def save_tokenizer(tokenizer: Any, where: Path) -> None:
    """The tokenizer's files, with the code that its configuration names where that lies beside the original.

    The code is copied and never run here: for some classes of model, AutoTokenizer takes its own tokenizer for any other
    one unless the configuration names code, and then reads `tokenizer.json` with that or, where no code is trusted,
    with the class below.
    """
    with_pinned_date(tokenizer).save_pretrained(where)
    file = where / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the same class under the name that older versions know
    for reference in (config.get("auto_map") or {}).get("AutoTokenizer") or ():
        code = Path(tokenizer.name_or_path) / f"{str(reference).partition('.')[0]}.py"
        if code.is_file():
            shutil.copy(code, where)
    write_json(file, config)
