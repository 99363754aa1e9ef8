"""What the shell's Tab key offers, beside commands and flags: names of methods, problem sets, tasks, and every fixed choice.

Names are imported where they are offered, because a person waits for every Tab.

bash: eval "$(register-python-argcomplete lco)" (docs/install.md)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from lco.config import fields

Names = Callable[[], Iterable[str]]


def methods() -> Iterable[str]:
    from lco.methods import METHODS

    return METHODS


def problem_sets() -> Iterable[str]:
    from lco.problems.sets import SETS

    return SETS


def prompt_styles() -> Iterable[str]:
    from lco.problems.prompts import STYLES

    return STYLES


def extraction_rules() -> Iterable[str]:
    from lco.verifier.rules import EXTRACTIONS

    return EXTRACTIONS


def tasks() -> Iterable[str]:
    from lco.evaluation.tasks import read_task_files, tasks_folder, written_names

    return written_names(read_task_files(tasks_folder()))


NAMES: dict[str, Names] = {
    "method": methods, "name": methods, "problems": problem_sets, "prompt": prompt_styles, "extraction": extraction_rules,
    "tasks": tasks,
}  # fmt: skip
"""An argument's destination → the words that it may be."""


def offer_words(parser: argparse.ArgumentParser) -> None:
    """Gives every argument of a command whose words are known a completer, as argcomplete asks for it."""
    for action in parser._actions:
        words = NAMES.get(action.dest)
        if words is None and action.choices is None and action.dest in fields():
            words = fixed_choices(action.dest)
        if words is not None:
            action.completer = completer(words)  # type: ignore[attr-defined]


def fixed_choices(key: str) -> Names:
    return lambda: [str(choice) for choice in fields()[key].metadata["choices"] if choice != ""]


def completer(words: Names) -> Callable[..., list[str]]:
    return lambda **_: list(words())
