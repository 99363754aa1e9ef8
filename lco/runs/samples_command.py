"""`lco samples RUN`: what a run's model answered, to be read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lco.errors import UserError
from lco.runs.folder import read_run, read_whole_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints responses of a run that were kept (four of every rollout), the newest last."
    parser.epilog = "example: lco samples runs/gsm8k/grpo/seed-0 --wrong --last 3"
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--wrong", action="store_true", help="wrong ones alone")
    side.add_argument("--right", action="store_true", help="right ones alone")
    parser.add_argument("--step", type=int, help="of this rollout alone")
    parser.add_argument("--last", type=int, default=10, help="so many of the newest (default: 10; 0: all)")


def run(arguments: argparse.Namespace) -> int:
    folder = read_run(arguments.run).folder
    if arguments.last < 0:
        raise UserError(f"--last is {arguments.last}; give how many samples to print, or 0 for all")
    found = [sample for sample in read_whole_lines(folder / "samples.jsonl") if wanted(sample, arguments)]
    if not found:
        print(f"{folder} has no such sample")
    for sample in found[-arguments.last :]:
        print(text_of(sample))
    return 0


def wanted(sample: dict[str, Any], arguments: argparse.Namespace) -> bool:
    right = bool(sample.get("correct"))
    side = not (arguments.wrong and right) and not (arguments.right and not right)
    return side and arguments.step in (None, sample.get("step"))


def text_of(sample: dict[str, Any]) -> str:
    """One sample, with control characters of the response made visible: it is a model's text, and a terminal obeys them."""
    verdict = "right" if sample.get("correct") else f"wrong ({sample.get('reason', '?')})"
    cut = ", cut" if sample.get("finish") == "length" else ""
    place = f"rollout {sample.get('step', '?')}, {sample.get('problem', '?')}"
    head = f"--- {place}: {verdict}, {sample.get('tokens', '?')} tokens{cut}"
    parts = [head, f"question: {sample.get('question', '')}", f"response: {sample.get('response', '')}"]
    return "\n".join(map(visible, [*parts, f"answer:   {sample.get('answer', '')}"]))


def visible(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
