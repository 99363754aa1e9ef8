"""Checkpoints: complete or absent, bound to their run, step and lines, on disk before older ones go."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lco.disk import flush_folder, flush_tree, read_lines, sha256, write_json
from lco.errors import UserError

COMPLETE = "complete.json"
"""Inside a checkpoint, written last: its run, its step, every file with its hash, and what the run's lines were."""

LINES = ("metrics.jsonl", "samples.jsonl")
"""The run's files that grow with every rollout."""


def partial_folder(run: Path, step: int) -> Path:
    """Where a checkpoint is filled; no reader looks there."""
    return run / "checkpoints" / f".step-{step:06d}.partial"


def begin_checkpoint(run: Path, step: int) -> Path:
    partial = partial_folder(run, step)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish_checkpoint(run: Path, step: int, run_id: str) -> Path:
    """Hashes all files, makes them durable, and renames the folder into place."""
    partial, folder = partial_folder(run, step), run / "checkpoints" / f"step-{step:06d}"
    files = {str(p.relative_to(partial)): sha256(p) for p in sorted(partial.rglob("*")) if p.is_file()}
    lines = {name: content(run / name) for name in LINES}
    begun = {name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in lines.items()}
    write_json(partial / COMPLETE, {"run": run_id, "step": step, "files": files, "lines": begun})
    flush_tree(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    flush_folder(folder.parent)
    return folder


def prune_checkpoints(run: Path, whole: set[int], newest: int, keep: int, scores: Mapping[int, float]) -> None:
    """Removes what is older than the newest `keep` checkpoints that are known to be whole; the one with the best score and
    those after `newest` stay.

    Args:
        whole: steps whose checkpoints this process has written or found whole.
        newest: the step of the one just written.
        scores: step → its validation score, where it has one; of equals the earlier is the best.
    """
    steps = {int(folder.name.removeprefix("step-")): folder for folder in (run / "checkpoints").glob("step-*")}
    kept = set(sorted(step for step in whole if step <= newest)[-keep:])
    kept |= set(sorted((step for step in steps if step in scores), key=lambda step: (-scores[step], step))[:1])
    for step, folder in steps.items():
        if step < newest and step not in kept:
            shutil.rmtree(folder)


def validation_scores(run: Path) -> dict[int, float]:
    """step → pass@1 of its validation, of all that the run's lines hold."""
    lines = read_lines(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    return {line["step"]: line["validation"]["pass@1"] for line in lines if "validation" in line}


def damage(folder: Path, run_id: str | None, needed: Iterable[str] = ()) -> str | None:
    """What is wrong with a checkpoint, in words; None where it is whole and this run's.

    Args:
        run_id: the run's name for itself; None for runs of older versions, which had none.
        needed: files without which the run cannot go on.
    """
    recorded = read_record(folder)
    if recorded is None:
        return f"has no readable {COMPLETE}, so its writing was cut short"
    step, files, owner = recorded["step"], recorded["files"], recorded.get("run")
    if folder.name != f"step-{step:06d}":
        return f"says that it is of step {step}"
    if run_id is not None and owner != run_id:
        return "belongs to another run"
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {COMPLETE}
    for name in sorted(there | files.keys() | set(needed)):
        if name not in there:
            return f"lacks {name}"
        if name not in files:
            return f"holds {name}, which it was not saved with"
        if sha256(folder / name) != files[name]:
            return f"holds another {name} than it was saved with"
    return None


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None where that cannot be read, or is not what `finish_checkpoint` writes."""
    try:
        found = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        step, files, lines = found["step"], found["files"], found.get("lines", dict.fromkeys(LINES))
        hashes = [*files.values(), *(was["sha256"] for was in lines.values() if was is not None)]
        counts = [step, *(was["bytes"] for was in lines.values() if was is not None)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(type(count) is int for count in counts) and all(isinstance(value, str) for value in hashes)
    # Versions before recorded no lines at all.
    return found if sound and lines.keys() == set(LINES) and found.get("lines", ...) is not None else None


def newest_checkpoint(
    run: Path, run_id: str | None, say: Callable[[str], None], needed: Iterable[str] = ()
) -> tuple[int, Path] | None:
    """The newest whole checkpoint of this run; newer ones that are not are named through `say` and passed over."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        wrong = damage(folder, run_id, needed)
        if wrong is None:
            return int(folder.name.removeprefix("step-")), folder
        say(f"checkpoint {folder.name} {wrong}; it is passed over")
    return None


def check_lines(run: Path, checkpoint: Path) -> None:
    """Refuses to go on from a whole checkpoint where metrics and samples do not begin with what they were when it was saved.

    Raises:
        UserError: the run's history is not known. Checkpoints of versions that did not record it pass.
    """
    recorded = read_record(checkpoint) or {}
    for name, was in recorded.get("lines", {}).items():
        found = content(run / name)
        if hashlib.sha256(found[: was["bytes"]]).hexdigest() != was["sha256"]:
            what = "was changed or cut" if found else "is missing"
            raise UserError(
                f"cannot resume from {checkpoint.name}: {run / name} {what} since it was saved; put a copy of the file back, or "
                "give --start-over"
            )


def content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def save_torch_state(
    folder: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, updates: int
) -> None:
    """Parameters and AdamW state as safetensors; nothing is pickled."""
    save_file({name: p.detach().contiguous() for name, p in parameters.items()}, folder / "model.safetensors")
    moments = {
        f"{index}.{key}": value.contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    save_file(moments, folder / "optimizer.safetensors")
    write_json(folder / "engine.json", {"updates": updates})


TORCH_STATE = ("engine.json", "model.safetensors", "optimizer.safetensors")
"""What `save_torch_state` writes."""


def load_torch_state(folder: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Restores what `save_torch_state` wrote; returns the number of updates."""
    with torch.no_grad():
        for name, value in load_file(folder / "model.safetensors").items():
            parameters[name].copy_(value)
    state = optimizer.state_dict()
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    return json.loads((folder / "engine.json").read_text())["updates"]
