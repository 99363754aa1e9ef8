"""`lco lab`: the page and its numbers."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lco.disk import write_text
from lco.evidence.folders import replacing
from lco.provenance import collect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Takes every registered method to single positions whose optimal policy is known exactly, and measures there what "
        "arXiv 2603.00963 claims: convexity in the logits (Hessians against closed forms), the direction of the gradient "
        "along the ray to the optimal policy, inner steps on a bandit, and negative data alone. Each claim is printed as "
        "supported or not, with its number. Needs a CPU, no model and no data, and less than two minutes; the same code "
        "gives the same bytes."
    )
    parser.epilog = "example: lco lab --out runs/lab, then open runs/lab/index.html; runs/lab/lab.json has all numbers"
    parser.add_argument(
        "--out", type=Path, default=Path("runs/lab"), help="folder of index.html and lab.json (%(default)s)"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the verdicts as a record too, from which `lco claims` reads them",
    )


def run(arguments: argparse.Namespace) -> int:
    from lco.evidence.records import layout, rounded, sealed  # numpy, and torch below, which --help does without
    from lco.lab.claims import plain
    from lco.lab.laboratory import measure
    from lco.lab.page import build

    with one_thread(), replacing(arguments.out, "the page") as folder:
        found = measure()
        numbers = rounded({**asdict(found), "verdicts": plain(found)})
        text = json.dumps(numbers, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        (folder / "lab.json").write_text(text + "\n", encoding="utf-8")
        (folder / "index.html").write_text(build(found), encoding="utf-8")
    if arguments.record is not None:
        write_text(arguments.record, layout(sealed(record_of(plain(found)))) + "\n")
    experiment = ""
    for verdict in plain(found):
        if verdict["experiment"] != experiment:
            experiment = str(verdict["experiment"])
            print(f"\n{experiment}")
        print(f"  {'supported' if verdict['supported'] else 'NOT supported':13}  {verdict['claim']}")
        indent = 17 * " "
        print(
            textwrap.fill(
                str(verdict["number"]), 110, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )
        )
    print(f"\nwritten to {arguments.out}: index.html, lab.json")
    return 0


def record_of(verdicts: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """The verdicts without their cases, and which code on which machine gave them."""
    kept = ("experiment", "claim", "said", "supported", "number")
    return {"lab": [{key: verdict[key] for key in kept} for verdict in verdicts], "provenance": collect()}


@contextmanager
def one_thread() -> Iterator[None]:
    """For products of 8 numbers, where more threads only wait for each other."""
    import torch  # as above

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
