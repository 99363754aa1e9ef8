"""What a run keeps on disk: checkpoints that are complete or absent, one owner per folder, metric lines once each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from lco.disk import sha256, write_json, write_text
from lco.errors import UserError


def keep_lines_before(path: Path, step: int) -> None:
    """Drops the lines of steps that a resumed run will make again, and a last line that was cut."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            if line and json.loads(line)["step"] < step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    write_text(path, "".join(kept))


def claim_folder(folder: Path, resume: bool) -> ExitStack:
    """Locks the folder of a new run, or with `resume` of the one that it holds, until what is returned is closed.

    Raises:
        UserError: it holds a run already, or something else, or none to resume; or it cannot be used as a folder.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise unusable(folder, error) from None
    if "config.json" in names and not resume:
        raise UserError(f"{folder} holds a run already; give --resume to continue it or another --out")
    if resume and "config.json" not in names:
        raise UserError(f"there is no run to resume in {folder}; leave --resume out")
    # Hidden are the lock and half-written files of a run that ended before it began.
    foreign = next((name for name in names if not name.startswith(".")), None)
    if foreign is not None and not resume:
        raise UserError(f"{folder} holds {foreign} but no run; give an empty or a new folder with --out")
    return lock_folder(folder)


def unusable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder} cannot be the run folder ({error.strerror}); give another --out")


def lock_folder(folder: Path) -> ExitStack:
    """Makes this process the folder's only writer until what is returned is closed; the lock dies with the process.

    `.lock` is locked and `.owner` says by which process: in a file of its own, so that no claimant can empty it.

    Raises:
        UserError: a running process holds it, or it cannot be written.
    """
    owner = folder / ".owner"
    # Without kernel locks filelock would fall back to a file that outlives a killed process.
    lock = FileLock(folder / ".lock", blocking=False, thread_local=False, fallback_to_soft=False)
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock)
            write_text(owner, str(os.getpid()))
        except Timeout:
            pid = owner.read_text(encoding="utf-8") if owner.is_file() else "unknown"
            raise UserError(
                f"{folder} is in use by a running process (pid {pid}); wait for it or give another --out"
            ) from None
        except OSError as error:
            raise unusable(folder, error) from None
        return held.pop_all()


def save_checkpoint(run: Path, step: int, save: Callable[[Path], None], keep: int = 2) -> Path:
    """Writes `checkpoints/step-N` as a whole, from one process: begun, filled by `save`, finished."""
    partial = begin_checkpoint(run, step)
    save(partial)
    return finish_checkpoint(run, step, keep)


def partial_folder(run: Path, step: int) -> Path:
    """Where a checkpoint is filled; no reader looks there."""
    return run / "checkpoints" / f".step-{step:06d}.partial"


def begin_checkpoint(run: Path, step: int) -> Path:
    partial = partial_folder(run, step)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish_checkpoint(run: Path, step: int, keep: int = 2) -> Path:
    """Hashes all files, renames the folder into place, prunes older checkpoints."""
    partial, folder = partial_folder(run, step), run / "checkpoints" / f"step-{step:06d}"
    files = {str(p.relative_to(partial)): sha256(p) for p in sorted(partial.rglob("*")) if p.is_file()}
    write_json(partial / "complete.json", {"step": step, "files": files})
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    for old in sorted(folder.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return folder


def complete(folder: Path) -> bool:
    """Whether every file that the checkpoint recorded is there with its hash."""
    try:
        recorded = json.loads((folder / "complete.json").read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return all(
        (folder / name).is_file() and sha256(folder / name) == digest for name, digest in recorded["files"].items()
    )


def newest_checkpoint(run: Path, say: Callable[[str], None]) -> tuple[int, Path] | None:
    """The newest complete checkpoint; incomplete newer ones are named through `say` and passed over."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        if complete(folder):
            return json.loads((folder / "complete.json").read_text())["step"], folder
        say(f"checkpoint {folder.name} is incomplete or damaged; using the one before it")
    return None


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
