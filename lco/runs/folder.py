"""What a run folder says of itself, while its run goes on or long after."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco import outside
from lco.errors import UserError


@dataclass(frozen=True)
class Run:
    """A run, as its folder has it now.

    Attributes:
        folder: where it lies.
        state: "running", "finished", or "stopped" (to be continued with --resume).
        done, steps: rollouts behind it and asked for.
        config: its configuration.
        lines: its metrics, one a rollout; damaged ones are left out.
    """

    folder: Path
    state: str
    done: int
    steps: int
    config: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def method(self) -> str:
        return outside.label(str(self.config.get("method", "?")))

    @property
    def score(self) -> str:
        """The newest number that says how good the model is: of a validation, or else of the samples it was trained on."""
        watched = [line for line in self.lines if isinstance(line.get("validation"), dict)]
        if watched:
            last = watched[-1]["validation"]
            return f"validation {shown(last.get('pass@1'))} (greedy {shown(last.get('greedy'))})"
        right = [line["accuracy"] for line in self.lines if "accuracy" in line]
        return f"right in rollout {shown(right[-1])}" if right else "no score yet"


def shown(share: Any) -> str:
    return f"{share:.1%}" if isinstance(share, int | float) else "?"


def read_run(folder: Path) -> Run:
    """
    Raises:
        UserError: there is no run in the folder.
    """
    config = read_object(folder / "config.json")
    if config is None:
        raise UserError(
            f"there is no run in {folder}; name the folder that holds its config.json (`lco runs` lists them)"
        )
    lines = read_whole_lines(folder / "metrics.jsonl")
    done = max((line["step"] for line in lines if isinstance(line.get("step"), int)), default=0)
    steps = config["steps"] if isinstance(config.get("steps"), int) else 0
    finished = done >= steps and (folder / "checkpoints" / "final").is_dir()
    state = "running" if is_held(folder) else "finished" if finished else "stopped"
    return Run(folder, state, done, steps, config, lines)


def find_runs(root: Path) -> Iterator[Run]:
    """Every run below a folder, by its path.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the one that holds the runs")
    for manifest in sorted(root.rglob("manifest.json")):
        if read_object(manifest.with_name("config.json")) is not None:
            yield read_run(manifest.parent)


def read_object(file: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_whole_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of lines; one that is damaged, or just being written, is passed over."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.split("\n"):
        try:
            value = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def is_held(folder: Path) -> bool:
    """Whether the process that the folder names as its owner has its lock open. The lock itself is left alone: trying it could
    refuse a run that begins at this moment."""
    try:
        pid = int((folder / ".owner").read_text(encoding="utf-8"))
        lock = (folder / ".lock").stat()
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = descriptor.stat()
            except OSError:
                continue
            if os.path.samestat(found, lock):
                return True
    except (OSError, ValueError):
        pass
    return False
