"""Where a model lies: an existing folder, a GGUF file, a hub id. What is none of these is said before anything is read."""

from __future__ import annotations

import os
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
