"""A run's folder: whose it is, which run it holds, and its lines, each once.

config.json     every knob; its presence says that a run has begun
manifest.json   the run's own name, provenance, hashes of data and models
metrics.jsonl   one line a rollout, numbered from 1 (0: the validation before the first)
samples.jsonl   some responses of every rollout
checkpoints/    step-N (to resume), final (to use)
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lco.config import Experiment, fields
from lco.disk import write_text
from lco.errors import UserError
from lco.runs.folder import read_object

MAY_CHANGE_ON_RESUME = {"steps", "save_every", "keep", "eval_every", "out", "micro_batch", "vllm_cache_gib", "track"}
"""Keys that change neither what was done nor, but for rounding, what is still to do."""

SAME_ON_RESUME = ("problems_sha256", "prompts_sha256", "world_size", "model", "fixed_models", "critic_model", "code")
"""Entries of the manifest that a resumed run must find again."""

OURS = (
    *("config.json", "manifest.json", "metrics.jsonl", "samples.jsonl", "memory.json", "checkpoints", "evals"),
    *("tensorboard", "wandb"),
)


def claim_folder(folder: Path, resume: bool, start_over: bool = False) -> ExitStack:
    """Locks the folder of a new run, or of the one that it holds, until what is returned is closed. A folder that was made
    for a run that never began goes with the lock.

    Args:
        resume: the run that it holds shall go on.
        start_over: the run that it holds shall be made again from its first rollout; `remove_run` takes away what it left, once
            everything else is ready.

    Raises:
        UserError: it holds a run already, or something else, or none to resume; or it cannot be used as a folder.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise unusable(folder, error) from None
    begun = has_begun(folder)
    if begun and not (resume or start_over):
        raise UserError(
            f"{folder} holds a run already; give --resume to continue it, --start-over to make it again, or another --out"
        )
    if resume and not begun:
        raise UserError(f"there is no run to resume in {folder}; leave --resume out")
    # Hidden are the lock and half-written files; configuration and manifest may be left of a run that ended before it began.
    foreign = next((name for name in names if not name.startswith(".") and name not in OURS), None)
    if foreign is not None and not begun:
        raise UserError(f"{folder} holds {foreign} but no run; give an empty or a new folder with --out")
    with ExitStack() as held:
        held.callback(remove_unused, folder, missing)
        held.enter_context(lock_folder(folder))
        return held.pop_all()


def remove_run(folder: Path) -> None:
    """Takes away what a run has left in its folder, and nothing else; a folder that holds no run stays as it is."""
    if has_begun(folder):
        for name in OURS:
            remove(folder / name)


def has_begun(folder: Path) -> bool:
    """Whether the folder holds a run: a configuration that can be read, or anything that a run has done."""
    if (folder / "metrics.jsonl").exists() or (folder / "checkpoints").exists():
        return True
    return read_object(folder / "config.json") is not None and read_object(folder / "manifest.json") is not None


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_unused(folder: Path, missing: list[Path]) -> None:
    """Takes back the folders that were made for a run that was refused before it began."""
    if folder not in missing or not folder.is_dir():
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        return
    for place in missing:
        if place == folder:
            shutil.rmtree(folder)
        elif not any(place.iterdir()):
            place.rmdir()
        else:
            return


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


def same_run(folder: Path, experiment: Experiment, manifest: dict[str, Any]) -> str | None:
    """The name that the folder's run has for itself (None: it was made by a version that gave it none).

    Raises:
        UserError: it is a run of another configuration, other data, other models or another number of ranks, or what it
            was cannot be read.
    """
    recorded, before = read_object(folder / "config.json"), read_object(folder / "manifest.json")
    for name, found in (("config.json", recorded), ("manifest.json", before)):
        if found is None:
            raise UserError(
                f"cannot resume {folder}: its {name} is damaged, so nobody knows which run it holds; put a copy of the file "
                "back, or give --start-over"
            )
    assert recorded is not None
    assert before is not None
    given = dataclasses.asdict(experiment)
    defaults = dataclasses.asdict(Experiment())
    for name in fields():
        was, now = recorded.get(name, defaults[name]), given[name]  # a key that the run's version did not have
        if name not in MAY_CHANGE_ON_RESUME and was != now:
            raise UserError(f"cannot resume {folder}: {name} was {was!r} and is now {now!r}; give the old value")
    steps = recorded.get("steps")
    if experiment.lr_schedule != "constant" and steps != experiment.steps:
        raise UserError(
            f"cannot resume {folder}: steps was {steps} and is now {experiment.steps}, but lr_schedule is "
            f"{experiment.lr_schedule!r}, so the learning rate goes down over all of them; give the old value"
        )
    if experiment.staleness and steps != experiment.steps:
        raise UserError(
            f"cannot resume {folder}: steps was {steps} and is now {experiment.steps}, but staleness is {experiment.staleness}, "
            "so rollouts beyond the old last one were not sampled when their turn was; give the old value"
        )
    for name in SAME_ON_RESUME:
        was, now = before.get(name), manifest.get(name)
        if was != now and not (name == "prompts_sha256" and was is None):
            raise UserError(f"cannot resume {folder}: {name} was {was} and is now {now}; give back what it was")
    found = before.get("run")
    return None if found is None else str(found)


def finished_rollouts(folder: Path) -> int:
    """Rollouts that are logged, as far as the lines can be read."""
    file = folder / "metrics.jsonl"
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    return sum(1 for line in text.split("\n") if line and step_of(line) != 0)


def step_of(line: str) -> int | None:
    """The number of the rollout that a line is about; None where the line is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def keep_metrics(path: Path, done: int) -> None:
    """Leaves the lines of the first `done` rollouts; a resumed run makes the rest again (`first_metrics` says what it raises)."""
    if path.exists():
        write_text(path, "".join(line + "\n" for line in first_metrics(path, done)))


def first_metrics(path: Path, done: int) -> list[str]:
    """The lines of the first `done` rollouts, and of the validation before them.

    Raises:
        UserError: one of them is damaged, missing or there twice, so that the run's history is not known.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = [line for line in text.split("\n") if line]
    steps = [step_of(line) for line in lines]
    first = 0 if steps[:1] == [0] else 1
    expected = list(range(first, done + 1)) if done else []
    if steps[: len(expected)] != expected:
        number = next(i for i, step in enumerate(expected) if steps[i : i + 1] != [step])
        found = "is missing" if number >= len(steps) else f"is {'damaged' if steps[number] is None else 'out of order'}"
        raise UserError(
            f"cannot resume from rollout {done}: {path}, line {number + 1} (rollout {expected[number]}) {found}; put a copy of "
            "the file back, or give --start-over"
        )
    return lines[: len(expected)]


def keep_samples(path: Path, done: int) -> None:
    """Leaves the samples of the first `done` rollouts that can be read."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        kept = [line for line in lines if line and (step := step_of(line)) is not None and step <= done]
        write_text(path, "".join(line + "\n" for line in kept))
