"""`lco watch RUN`: a run's rollouts as they are done, from its folder, in any other terminal."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lco.runs.folder import read_run, shown

PAUSE = 1.0
"""Seconds between two looks at the folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints a line for every rollout of a run, and follows it until it ends. The run is only read."
    parser.epilog = "example: lco watch runs/gsm8k/grpo/seed-0"
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--once", action="store_true", help="print what is there and stop")


def run(arguments: argparse.Namespace) -> int:
    printed = 0
    while True:
        found = read_run(arguments.run)
        for metrics in found.lines[printed:]:
            print(line(metrics), flush=True)
        printed = max(printed, len(found.lines))
        if arguments.once or found.state != "running":
            print(f"{found.state} after {found.done} of {found.steps} rollouts: {found.score}")
            return 0
        time.sleep(PAUSE)


def line(metrics: dict[str, Any]) -> str:
    """`rollout 12: right 41.0%, entropy 0.52, length 130, validation 38.2%`; what a line does not have is left out."""
    parts = [f"right {shown(metrics['accuracy'])}"] if "accuracy" in metrics else []
    for name, form in (
        ("reward", "reward {:.3g}"),
        ("entropy", "entropy {:.2f}"),
        ("response_length", "length {:.0f}"),
    ):
        if isinstance(metrics.get(name), int | float):
            parts.append(form.format(metrics[name]))
    if isinstance(metrics.get("validation"), dict):
        parts.append(f"validation {shown(metrics['validation'].get('pass@1'))}")
    return f"rollout {metrics.get('step', '?')}: {', '.join(parts) or 'nothing to learn from'}"
