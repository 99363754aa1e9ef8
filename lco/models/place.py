"""Where a model lies: an existing folder, a GGUF file, a hub id. What is none of these is said before anything is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lco import hub
from lco.errors import UserError

EXAMPLE = "give an existing folder or a hub id such as Qwen/Qwen2.5-0.5B"


def located(model: str) -> tuple[str, dict[str, Any]]:
    """(what `from_pretrained` takes, extra arguments). A hub id becomes its folder in the cache where the hub is silent.

    Raises:
        UserError: it looks like a path and is not there, the folder holds no model that can be trained, or the hub
            neither answers nor has left a copy in the cache.
    """
    path = Path(model).expanduser()
    if model.endswith(".gguf"):
        if not path.is_file():
            raise UserError(f"there is no GGUF file {model}; check --model")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        check_folder(path)
        return str(path), {}
    if model.startswith((".", os.sep, "~")) or model.count("/") != 1:
        raise UserError(f"there is no model folder {model}; {EXAMPLE}")
    return (model if hub.answers(model) else cached(model)), {}


def check_folder(path: Path) -> None:
    """
    Raises:
        UserError: the folder is a run's or holds no configuration, or its weights are only an adapter's.
    """
    if is_run(path):
        final = path / "checkpoints" / "final"
        there = f"its model is in {final}" if final.is_dir() else "it has no model yet; continue it with --resume"
        raise UserError(f"{path} is the folder of a run; {there}")
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"{path} holds an adapter (adapter_config.json), and whole models alone are loaded here; merge it into its model "
            "first (peft's merge_and_unload, then save_pretrained)"
        )
    if not (path / "config.json").is_file():
        near = next((f"; did you mean {found}?" for found in models_near(path)), "; give the folder of a model")
        raise UserError(f"{path} has no config.json, so it is no model{near}")


def check_local(model: str) -> None:
    """What can be told of a model in an existing folder before torch is imported.

    Raises:
        UserError: as `check_folder` and `check_weights` say.
    """
    path = Path(model).expanduser()
    if model and path.is_dir():
        check_folder(path)
        check_weights(str(path))


def check_weights(where: str) -> None:
    """Reads the heads of a folder's safetensors. What a class has to hold only its own code knows (`load_model` asks it).

    Args:
        where: the folder, or a hub id, of which nothing is known here.

    Raises:
        UserError: there are no weights, a file is absent or cut, or tensors are missing that the index names or, in
            families whose layers are all alike, that most of the layers have.
    """
    folder = Path(where)
    if not folder.is_dir() or list(folder.glob("*.gguf")):
        return
    if not list(folder.glob("*.safetensors")):
        pickled = next(iter(sorted(folder.glob("*.bin"))), None)
        why = "it holds no weights (*.safetensors); get it again, whole"
        if pickled is not None:
            why = (
                f"{pickled.name} is pickled, which can run code, and only safetensors are read; save it as safetensors"
            )
        raise UserError(f"cannot load {where}: {why}")
    index = folder / "model.safetensors.index.json"
    named = {} if not index.is_file() or (folder / "model.safetensors").is_file() else read_json(index)
    parts: Mapping[str, str] = named.get("weight_map", {})
    lost = sorted({name for name in parts.values() if not (folder / name).is_file()})
    if lost:
        raise UserError(f"{where} lacks {some(lost)}, which its {index.name} names; get it again")
    heads = {file.name: read_head(file) for file in sorted(folder.glob("*.safetensors"))}
    names = {name for head in heads.values() for name in head}
    missing = [name for name, file in parts.items() if name not in heads[file]]
    missing += unlike_layers(read_json(folder / "config.json"), names)
    if missing:
        raise incomplete(where, [lacks(missing)])


ALIKE = ("llama", "qwen2", "qwen3")
"""`model_type` of families in which every layer has the same weights."""


def unlike_layers(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Weights that one layer lacks and most of the others have; none where the family's layers differ."""
    layers = config.get("num_hidden_layers")
    if config.get("model_type") not in ALIKE or not isinstance(layers, int):
        return []
    found = [match.groups() for match in (re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name) for name in names) if match]
    having: dict[str, set[int]] = {}
    for number, name in found:
        having.setdefault(name, set()).add(int(number))
    usual = [name for name, there in having.items() if 2 * len(there) > layers]
    return [f"model.layers.{i}.{name}" for name in usual for i in range(layers) if i not in having[name]]


def read_head(file: Path) -> list[str]:
    """The names in a safetensors file.

    Raises:
        UserError: its head is damaged, or it has fewer bytes than that says.
    """
    from safetensors import SafetensorError, safe_open  # which the commands that load no model do without

    try:
        with safe_open(file, "np") as tensors:
            return list(tensors.keys())
    except SafetensorError as error:
        raise UserError(
            f"cannot load {file.parent}: {file.name} is cut or damaged ({error}), get it again; check the folder or hub id"
        ) from None


def read_json(file: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file holds no JSON object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load {file.parent}: {file.name} is damaged ({error}); get it again") from None
    if not isinstance(found, dict):
        raise UserError(f"cannot load {file.parent}: {file.name} is no JSON object; get it again")
    return found


def lacks(names: Iterable[str]) -> str:
    return f"lacks the weights {some(names)}, which would be random numbers"


def incomplete(model: str, faults: Iterable[str]) -> UserError:
    """A model whose files and class hold different weights."""
    return UserError(
        f"{model} {', '.join(faults)}; its files are incomplete or belong to another class (a reward model, a classifier) than "
        "config.json says: get it again, or give a causal language model"
    )


def some(names: Iterable[str], shown: int = 4) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ordered[:shown]) + more


def is_run(path: Path) -> bool:
    """Whether the suite's training wrote this folder."""
    return (path / "config.json").is_file() and ((path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file())


def models_near(path: Path) -> list[Path]:
    """Folders that were perhaps meant: of models inside, in a run inside, and beside a checkpoint of training."""
    places = [
        *path.glob("*/config.json"),
        *path.glob("*/checkpoints/final/config.json"),
        *path.parent.glob("final/*.json"),
    ]
    return sorted({found.parent for found in places if found.name == "config.json" and not is_run(found.parent)})


def cached(model: str) -> str:
    """The folder in which the hub's library keeps its copy.

    Raises:
        UserError: there is none.
    """
    from huggingface_hub import try_to_load_from_cache  # kept out of the commands that load no model

    found = try_to_load_from_cache(model, "config.json")
    if not isinstance(found, str):
        raise UserError(f"cannot load {model}: {hub.silence(model)}, or give a local folder")
    return str(Path(found).parent)


def public_name(model: str) -> str:
    """What a record may call a model: a hub id, or the last part of a path."""
    path = Path(model).expanduser()
    return path.name if path.exists() else model
