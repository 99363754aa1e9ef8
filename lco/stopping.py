"""What ends a process from outside: Ctrl-C, and what schedulers and closed terminals send."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

STOP = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Each asks a run to save and end."""


class Stopped(KeyboardInterrupt):
    """A signal has ended the work before its end. What was done is saved, or nothing was begun.

    Attributes:
        number: the signal's; a command ends with exit code 128 + number, as a shell reports it.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(
            text or ("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
        )
        self.number = number


def raise_stopped(number: int, _: Any) -> None:
    """A handler that ends the work where it stands, so that locks and temporary folders go."""
    raise Stopped(number)


@contextmanager
def answered(handler: Callable[[int, Any], None], kinds: Set[signal.Signals] = STOP) -> Iterator[None]:
    """Signals go to `handler`. A SIGHUP that is ignored (`nohup`) stays ignored; a SIGINT does not, because a shell starts
    every background command with it ignored. Only a main thread can do this; in another one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [kind for kind in kinds if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN]
    before = {kind: signal.signal(kind, handler) for kind in heard}
    try:
        yield
    finally:
        for kind, old in before.items():
            signal.signal(kind, old)
