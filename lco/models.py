"""Models from folders, hub ids and GGUF files, and the checks that come before their weights are read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lco.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _located(model: str) -> tuple[str, dict[str, Any]]:
    """(what `from_pretrained` takes, extra arguments).

    Raises:
        UserError: it looks like a path and is not there.
    """
    path = Path(model)
    if model.endswith(".gguf"):
        if not path.is_file():
            raise UserError(f"there is no GGUF file {model}; check --model")
        return str(path.parent), {"gguf_file": path.name}
    looks_like_path = model.startswith((".", os.sep, "~")) or model.count("/") != 1
    if not path.is_dir() and looks_like_path:
        raise UserError(
            f"there is no model folder {model}; give an existing folder or a hub id such as Qwen/Qwen2.5-0.5B"
        )
    return str(path) if path.is_dir() else model, {}


def _load(loader: Any, model: str, **arguments: Any) -> Any:
    where, extra = _located(model)
    try:
        return loader.from_pretrained(where, trust_remote_code=False, **extra, **arguments)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"cannot load {model}: {reason}; check the folder or hub id") from None


def public_name(model: str) -> str:
    """What a record may call a model: a hub id, or the last part of a path."""
    return Path(model).name if Path(model).exists() else model


def load_config(model: str) -> Any:
    from transformers import AutoConfig

    return _load(AutoConfig, model)


def load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, model)


def load_model(model: str, dtype: str, device: str) -> nn.Module:
    """The causal language model in evaluation mode, on `device`, every parameter trainable."""
    from transformers import AutoModelForCausalLM

    network = _load(AutoModelForCausalLM, model, dtype=DTYPES[dtype])
    if model.endswith(".gguf"):
        # De-quantised on load; without these marks it saves as an ordinary model.
        del network.hf_quantizer, network.config.quantization_config
        network.is_quantized = False
    return network.to(device).eval()


def context_length(config: Any) -> int | None:
    return getattr(config, "max_position_embeddings", None)


def weights_sha256(model: nn.Module) -> str:
    """Hash of names, shapes, dtypes and bytes of all parameters: the same whatever file they came from."""
    digest = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}\n".encode())
        digest.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one.

    Raises:
        UserError: CUDA is asked for and absent.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda' but PyTorch sees no CUDA device; use --device cpu")
    return device
