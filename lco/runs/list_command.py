"""`lco runs`: which runs there are, how far they are, and their last score."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lco.runs.folder import Run, find_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Lists the runs below a folder: running, stopped (--resume continues them) or finished, and the last score."
    )
    parser.epilog = "example: lco runs; then lco samples runs/gsm8k/grpo/seed-0 --wrong"
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="where they lie (default: runs)")
    parser.add_argument("--json", action="store_true", help="one object a line")


def run(arguments: argparse.Namespace) -> int:
    found = list(find_runs(arguments.folder))
    if not found and not arguments.json:
        print(f"no run below {arguments.folder}; `lco train` makes one")
    width = max((len(str(run.folder)) for run in found), default=0)
    for one in found:
        print(as_json(one) if arguments.json else f"{one.folder!s:{width}}  {line(one)}")
    return 0


def line(run: Run) -> str:
    return f"{run.state:8}  {f'{run.done}/{run.steps}':>9}  {run.method}  {run.score}"


def as_json(run: Run) -> str:
    kept = {"folder": str(run.folder), "state": run.state, "done": run.done, "steps": run.steps}
    return json.dumps({**kept, "method": run.method, "score": run.score}, ensure_ascii=False)
