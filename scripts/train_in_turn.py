"""Runs command lines of `lco`, one after another, in one process: importing torch and transformers takes longer than a small
run. `compare_checkouts.py` starts it in a checkout, with that checkout first on PYTHONPATH.

One JSON object a line on standard input, {"arguments": ["train", …], "log": FILE}; for each, one on standard output,
{"code": what `lco` returned, "error": the exception that it did not catch, or ""}. What a command and its child processes
print goes to the log.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main() -> int:
    # Child processes of a command inherit 0, 1 and 2: the requests and the answers keep out of their way.
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w") as answers:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for line in requests:
            request = json.loads(line)
            answers.write(json.dumps(run(request["arguments"], Path(request["log"]))) + "\n")
            answers.flush()
    return 0


def run(arguments: Sequence[str], log: Path) -> dict[str, Any]:
    """One command line, with 1 and 2 turned to its log."""
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code, error = 1, ""
    try:
        code = call(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except Exception as raised:
        traceback.print_exc()
        error = f"{type(raised).__name__}: {raised}"
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return {"code": code, "error": error}


def call(arguments: Sequence[str]) -> int:
    import numpy
    import torch

    from lco import cli

    here = Path.cwd().resolve()
    if not Path(cli.__file__).resolve().is_relative_to(here):
        raise RuntimeError(f"lco is imported from {cli.__file__}, not from {here}")
    # A run draws from generators of its own; should one draw from these, it must not matter what ran before it.
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    return cli.main(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
