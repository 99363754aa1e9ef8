"""A model's weights as bytes and by the names of its files.

transformers keeps the experts of a layer as one tensor where most checkpoints have one a piece, and renames other weights
on loading (the table is `transformers.conversion_mapping`). Whoever reads checkpoints, such as vLLM, needs the names and
shapes of the files, which `save_pretrained` writes and `checkpoint_weights` gives.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lco.errors import UserError


def weights_sha256(model: nn.Module) -> str:
    """Hash of names, shapes, dtypes and bytes of all parameters: the same whatever file they came from."""
    digest = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}\n".encode())
        digest.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def checkpoint_weights(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names that `model.save_pretrained` would write, layer after layer, as they arrive.

    Args:
        model: decides the names; its own tensors are not read.
        weights: (name in the model, tensor), the tensors of a layer one after another.
    """
    from transformers.core_model_loading import revert_weight_conversion  # kept out of what only hashes weights

    network: Any = model
    for _, layer in itertools.groupby(weights, key=lambda weight: layer_of(weight[0])):
        yield from revert_weight_conversion(network, dict(layer)).items()


def layer_of(name: str) -> str:
    """The name up to its first number: `model.layers.7.` of everything in that layer, "" of what is in none."""
    found = re.match(r".*?\.\d+\.", name)
    return found.group() if found else ""


def checkpoint_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """{name: shape} of a model's weights, from the heads of its files; {} where they are not on this machine."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(model):
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def weight_files(model: str) -> list[Path]:
    """The safetensors of a folder, or of a hub id's copy in the cache."""
    folder = Path(model).expanduser()
    if not folder.is_dir() and model.count("/") == 1:
        from huggingface_hub import try_to_load_from_cache  # here, because a folder does not need it

        found = try_to_load_from_cache(model, "config.json")
        folder = Path(found).parent if isinstance(found, str) else folder
    return sorted(folder.glob("*.safetensors"))


def check_names(model: nn.Module, name: str) -> None:
    """Compares what `checkpoint_weights` would hand over, by name and shape, with the model's files. Loads nothing.

    Args:
        model: with whole tensors (before ZeRO-3 spreads them).
        name: folder or hub id that it was loaded from.

    Raises:
        UserError: a weight has another name or shape than in the files, so that whoever started from them cannot take it.
    """
    files = checkpoint_shapes(name)
    if not files:
        return
    empty = {key: tensor.to("meta") for key, tensor in model.state_dict().items()}
    sent = {key: tuple(tensor.shape) for key, tensor in checkpoint_weights(model, empty.items())}
    network: Any = model
    tied = {key for key, _ in checkpoint_weights(model, ((k, empty[k]) for k in network.all_tied_weights_keys))}
    unread = [*(network._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"]
    odd = {key for key, shape in sent.items() if files.get(key) != shape and not (key in tied and key not in files)}
    odd |= {key for key in files.keys() - sent.keys() if not any(re.search(pattern, key) for pattern in unread)}
    if odd:
        example = min(odd)
        raise UserError(
            f"{name} ({type(model).__name__}) cannot be handed to vLLM: {len(odd)} of its weights have other names or shapes "
            f"in memory than in its files, among them {example}; use --rollouts transformers"
        )
