"""What every `python -m reproduce.…` begins and ends like."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from lco.errors import UserError
from reproduce.common.processes import answer_ctrl_c


def command_parser(module: str, text: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's own text."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {after}", file=sys.stderr)
        raise SystemExit(130) from None
