"""What every `python -m reproduce.…` begins and ends like."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from lco.errors import UserError
from reproduce.common.processes import answer_ctrl_c


def command_parser(module: str, text: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's own text."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=at_least_one, default=2, metavar="N", help="runs at a time (default: 2)")


def add_parts(parser: argparse.ArgumentParser, *parts: str) -> None:
    """Which parts of a study are made; the last one makes tables or figures from the records alone."""

    def part(text: str) -> str:
        if text not in parts:
            raise argparse.ArgumentTypeError(f"there is no part {text!r}; give {', '.join(parts[:-1])} or {parts[-1]}")
        return text

    parser.add_argument("parts", nargs="*", type=part, metavar="PART", help=f"{', '.join(parts)} (default: all)")


def at_least_one(text: str) -> int:
    """
    Raises:
        argparse.ArgumentTypeError: it is not a whole number above zero.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero; give 1 or more")
    return int(text)


def run_command(
    command: Callable[[], None], name: str, after: str = "the same command continues where it stopped"
) -> None:
    """Does a command's work; a user's mistake is one sentence and exit code 2, Ctrl-C one and exit code 130."""
    answer_ctrl_c()
    try:
        command()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `… --dry-run | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {after}", file=sys.stderr)
        raise SystemExit(130) from None
