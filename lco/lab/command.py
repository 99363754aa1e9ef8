"""`lco lab`: the page and its numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lco import disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Takes every registered method to single positions whose optimal policy is known exactly, and measures there what "
        "arXiv 2603.00963 claims: convexity in the logits (Hessians against closed forms), the direction of the gradient "
        "along the ray to the optimal policy, inner steps on a bandit, and negative data alone. Each claim is printed as "
        "supported or not, with its numbers. Needs a CPU, no model and no data, and less than two minutes; the same code "
        "gives the same bytes."
    )
    parser.epilog = "example: lco lab --out runs/lab, then open runs/lab/index.html; runs/lab/lab.json has all numbers"
    parser.add_argument(
        "--out", type=Path, default=Path("runs/lab"), help="folder of index.html and lab.json (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    import torch

    from lco.evidence.records import rounded
    from lco.lab.laboratory import measure
    from lco.lab.page import build

    torch.set_num_threads(1)  # products of 8 numbers: more threads only wait for each other
    found = measure()
    numbers = json.dumps(rounded(asdict(found)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    disk.write_text(arguments.out / "lab.json", numbers + "\n")
    disk.write_text(arguments.out / "index.html", build(found))
    for experiment, verdicts in found.verdicts.items():
        for verdict in verdicts:
            print(f"{'supported' if verdict.supported else 'NOT supported':13}  {experiment}: {verdict.claim}")
    print(f"written to {arguments.out}: index.html, lab.json")
    return 0
