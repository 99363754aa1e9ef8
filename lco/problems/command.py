"""`lco problems`: the problem sets and prompt styles that `lco train` and the tasks use."""

from __future__ import annotations

import argparse

from lco.problems.prompts import STYLES
from lco.problems.sets import SETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Lists the problem sets with their splits, and the prompt styles, that `lco train` and the tasks use."
    )


def run(arguments: argparse.Namespace) -> int:
    print("problem sets:\n" + "\n".join(f"  {name:20} {', '.join(s.splits)}" for name, s in SETS.items()))
    print("prompt styles:\n" + "\n".join(f"  {name:20} {style.template!r}" for name, style in STYLES.items()))
    return 0
