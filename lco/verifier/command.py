"""`lco verify`: JSON Lines of {"response", "gold"} in, JSON Lines of verdicts out, in order."""

from __future__ import annotations

import argparse
import json
import sys

from lco.verifier.pool import Pool
from lco.verifier.rules import EXTRACTIONS, Rules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lco verify`."""
    parser.add_argument("file", nargs="?", default="-", help="JSON Lines of {response, gold}; - is standard input")
    parser.add_argument("--extraction", choices=EXTRACTIONS, default="lenient", help="where an answer may stand")
    parser.add_argument("--relative-tolerance", type=float, default=0.0, help="accepted relative error of numbers")
    parser.add_argument("--explain", action="store_true", help="say step by step how each verdict came about")


def run(args: argparse.Namespace) -> int:
    """Judge every line; returns the exit status."""
    rules = Rules(extraction=args.extraction, relative_tolerance=args.relative_tolerance)
    with Pool(1) as pool:
        for line in sys.stdin:
            record = json.loads(line)
            verdict = pool.verify_many([(record["response"], record["gold"])], rules)[0]
            print(
                json.dumps({"correct": verdict.correct, "extracted": verdict.extracted, "reason": verdict.reason}),
                flush=True,
            )
    return 0
