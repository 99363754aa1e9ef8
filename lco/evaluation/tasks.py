"""Which tasks there are, and what lm-eval makes of them: known apart from any model, so that a mistake costs no weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lco
from lco.errors import UserError, nearest


def tasks_folder(given: str = "") -> Path:
    """The tasks that ship with the package, those of a checkout, or the folder that was given.

    Raises:
        UserError: the folder is not there.
    """
    package = Path(lco.__file__).parent
    candidates = [Path(given)] if given else [package / "tasks", package.parent / "evals"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(f"there is no folder of tasks at {candidates[0]}; give --tasks-dir")


@dataclass(frozen=True)
class Tasks:
    """lm-eval's tasks with their problems."""

    manager: Any
    tasks: dict[str, Any]
    metadata: dict[str, str]

    def sampling(self, name: str) -> dict[str, Any]:
        """The task's own sampling values."""
        return dict(self.tasks[name].config.generation_kwargs)


def load_tasks(tasks: Sequence[str], data_dir: str = "", tasks_dir: str = "") -> Tasks:
    """Tasks and their problems.

    Raises:
        UserError: no such folder of tasks, no such task, or its problems cannot be read.
    """
    folder = tasks_folder(tasks_dir)
    check_names(tasks, folder)
    from lm_eval.tasks import TaskManager  # seconds, which a mistyped name does not cost

    logging.getLogger("lm_eval.api.task").addFilter(is_news)
    metadata = {"data_dir": data_dir} if data_dir else {}
    manager = TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata)
    known = manager.all_tasks
    for name in tasks:
        if name not in known:
            raise UserError(f"there is no task {name!r}{nearest(name, [t for t in known if t.startswith('lco_')])}")
    loaded = manager.load(list(dict.fromkeys(tasks)))["tasks"]
    return Tasks(manager, dict(loaded), metadata)


def is_news(said: logging.LogRecord) -> bool:
    """Whether lm-eval tells a user of `lco evaluate` anything: its hint at --metadata is for its own command."""
    return "Custom kwargs can be passed to `--metadata`" not in said.getMessage()


def check_names(tasks: Sequence[str], folder: Path) -> None:
    """
    Raises:
        UserError: a task of which no file in the folder speaks.
    """
    text = read_task_files(folder)
    for name in tasks:
        if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
            raise UserError(f"there is no task {name!r}{nearest(name, written_names(text))}")


def read_task_files(folder: Path) -> str:
    """The text of all task files, one behind the other."""
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.rglob("*.yaml")))


def written_names(text: str) -> list[str]:
    """The names that task files give, as far as they can be told without lm-eval."""
    return re.findall(r"^task:\s*([\w.-]+)\s*$", text, re.MULTILINE)
