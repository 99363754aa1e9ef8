"""What is said to a person while work goes on: one line on standard error, above whatever progress bar stands there."""

from __future__ import annotations

import sys

from tqdm import tqdm


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
