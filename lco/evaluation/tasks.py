"""Which tasks there are, and what lm-eval makes of them: known apart from any model, so that a mistake costs no weights."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lco
from lco.config_file import not_yaml
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

    tasks: dict[str, Any]

    def sampling(self, name: str) -> dict[str, Any]:
        """The task's own sampling values."""
        return dict(self.tasks[name].config.generation_kwargs)


def load_tasks(tasks: Sequence[str], data_dir: str = "", tasks_dir: str = "") -> Tasks:
    """Tasks and their problems.

    Raises:
        UserError: no such folder of tasks, no such task, or its files or its problems cannot be read.
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
    try:
        loaded = manager.load(list(dict.fromkeys(tasks)))["tasks"]
    except UserError:
        raise
    except Exception as error:  # of the task files' own functions, which may be anything
        raise UserError(
            f"{', '.join(tasks)} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}"
            f"{line_in(folder, error)}; mend the files in {folder}"
        ) from None
    return Tasks(dict(loaded))


def is_news(said: logging.LogRecord) -> bool:
    """Whether lm-eval tells a user of `lco evaluate` anything: its hint at --metadata is for its own command."""
    return "Custom kwargs can be passed to `--metadata`" not in said.getMessage()


def line_in(folder: Path, error: Exception) -> str:
    """` (mine.py, line 3)`: the last line of the folder's files that an error came through; "" where there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve().is_relative_to(folder.resolve()):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def check_names(tasks: Sequence[str], folder: Path) -> None:
    """
    Raises:
        UserError: a task of which no file in the folder speaks, or a file that speaks of one and cannot be read.
    """
    texts = read_task_files(folder)
    for name in tasks:
        speaking = [file for file, text in texts.items() if speaks_of(name, text)]
        if not speaking:
            refuse_ending(name, folder)
            raise UserError(f"there is no task {name!r}{nearest(name, written_names(texts))}")
        for file in speaking:
            check_file(file)


def refuse_ending(name: str, folder: Path) -> None:
    """
    Raises:
        UserError: a file that lm-eval does not read for its ending gives the task.
    """
    for file, text in read_task_files(folder, "yml").items():
        if speaks_of(name, text):
            raise UserError(f"lm-eval reads task files that end in .yaml, and {name!r} stands in {file}; rename it")


def check_file(file: Path, including: tuple[Path, ...] = ()) -> None:
    """Reads a task file and what it includes as YAML, without calling what they name. lm-eval passes over those that it
    cannot read without a word, and then knows no such task.

    Args:
        including: the files that led here.

    Raises:
        UserError: names the file, the line, and what is wrong.
    """
    import yaml  # which most commands do without

    class Loader(yaml.SafeLoader):
        """Plain values; `!function NAME` is left alone."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    if file.resolve() in including:
        raise UserError(f"{file} includes itself, by {' and '.join(path.name for path in including)}; leave that out")
    try:
        found = yaml.load(file.read_bytes(), Loader)  # a safe loader: plain values alone
    except yaml.YAMLError as error:
        raise not_yaml(file, error) from None
    except OSError as error:
        by = f"; {including[-1]} includes it" if including else ""
        raise UserError(f"cannot read the task file {file}: {error.strerror}{by}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected one YAML object with the keys of a task (task: NAME, …)")
    included = found.get("include", [])
    for name in [included] if isinstance(included, str) else included:
        check_file(file.parent / str(name), (*including, file.resolve()))


def speaks_of(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def read_task_files(folder: Path, ending: str = "yaml") -> dict[Path, str]:
    """{file: its text} of all task files."""
    return {
        file: file.read_text(encoding="utf-8", errors="replace")
        for file in sorted(folder.rglob(f"*.{ending}"))
        if file.is_file()
    }


def written_names(texts: Mapping[Path, str]) -> list[str]:
    """The names that task files give, as far as they can be told without lm-eval."""
    return [name for text in texts.values() for name in re.findall(r"^task:\s*([\w.-]+)\s*$", text, re.MULTILINE)]
