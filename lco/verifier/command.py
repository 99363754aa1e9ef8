"""`lco verify`: JSON Lines of {"response", "gold"} in, JSON Lines of verdicts out, in order, one as soon as it is
known.

echo '{"response": "so \\\\boxed{1/2}", "gold": "0.5"}' | lco verify
{"correct": true, "extracted": "1/2", "reason": "equal"}
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import BinaryIO

from lco.errors import UserError
from lco.verifier.explain import explain
from lco.verifier.rules import BOXES, EXTRACTIONS, Rules
from lco.verifier.workers.pool import Pool

OTHER_KEYS = {
    "response": ("output", "completion", "prediction", "generation", "text", "answer"),
    "gold": ("answer", "reference", "ground_truth", "target", "expected", "label", "solution"),
}
"""What other programs call the two keys."""


class BrokenLineError(Exception):
    """A line of the input that cannot be judged; the message names it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lco verify`."""
    parser.add_argument(
        "file", nargs="?", default="-", help="JSON Lines of {response, gold}; - (default) is standard input"
    )
    parser.add_argument("--extraction", choices=EXTRACTIONS, default="lenient", help="where an answer may stand")
    parser.add_argument(
        "--boxes", choices=BOXES, default="last", help="agree: boxes that contradict each other are wrong"
    )
    parser.add_argument(
        "--relative-tolerance", type=float, default=0.0, help="accepted relative error of numbers (0: exact)"
    )
    parser.add_argument("--require-simplified", action="store_true", help="refuse answers that leave arithmetic undone")
    parser.add_argument("--cpu-seconds", type=float, default=2.0, help="CPU time one case may take")
    parser.add_argument("--explain", action="store_true", help="add the steps by which each verdict came about")


def run(args: argparse.Namespace) -> int:
    """Judge every line.

    Raises:
        UserError: the input cannot be read to its end; what came before is judged and printed.
    """
    try:
        rules = Rules(
            extraction=args.extraction,
            boxes=args.boxes,
            relative_tolerance=args.relative_tolerance,
            require_simplified=args.require_simplified,
            cpu_seconds=args.cpu_seconds,
        )
        source = nullcontext(sys.stdin.buffer) if args.file == "-" else open(args.file, "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"cannot read {args.file} ({error.strerror}); give a file of JSON Lines, or - for standard input"
        ) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    try:
        with source as lines, Pool(1) as pool:
            for response, gold in _pairs(lines):
                verdict = pool.verify(response, gold, rules)
                record: dict[str, object] = {
                    "correct": verdict.correct,
                    "extracted": verdict.extracted,
                    "reason": verdict.reason,
                }
                if args.explain:
                    record["steps"] = explain(response, gold, rules, verdict)
                print(json.dumps(record), flush=True)
    except BrokenLineError as error:
        raise UserError(f"{'standard input' if args.file == '-' else args.file}, {error}") from None
    return 0


def _pairs(lines: BinaryIO) -> Iterator[tuple[str, str]]:
    """The pairs of JSON Lines in UTF-8, whatever the locale, split at newlines alone; empty lines and a byte order mark are
    passed over."""
    for count, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise BrokenLineError(f"line {count} is no UTF-8 text (byte {error.start + 1} of the line)") from None
        if count == 1:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield _pair(text, count)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _pair(text: str, count: int) -> tuple[str, str]:
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BrokenLineError(f"line {count} is no JSON ({getattr(error, 'msg', None) or str(error)[:60]})") from None
    if not isinstance(record, dict):
        raise BrokenLineError(f"line {count} is no JSON object but a {type(record).__name__}")
    values = []
    for key in ("response", "gold"):
        if key not in record:
            meant = next((name for name in OTHER_KEYS[key] if name in record), None)
            hint = f"; rename its {meant!r}" if meant else ""
            raise BrokenLineError(f"line {count} has no {key!r}{hint}")
        value = record[key]
        if key == "response" and not isinstance(value, str):
            raise BrokenLineError(f"line {count}: 'response' is {type(value).__name__}, not text")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BrokenLineError(f"line {count}: {key!r} is {type(value).__name__}, not text or a number")
        values.append(value if isinstance(value, str) else json.dumps(value))
    return values[0], values[1]
