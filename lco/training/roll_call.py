"""How the ranks of a run meet, and what they say when one of them is gone.

A rank that dies breaks the others' next exchange, and what gloo or NCCL say then names an address at most. So every rank
counts up a beat of its own in the key-value store where the ranks have met (torchrun's, or rank 0's under DeepSpeed's
launcher), and a rank that ends by an error leaves its sentence there. One whose exchange breaks first looks for such
sentences and then listens for beats: whoever gives none has ended without a word.

Beats only explain what has broken. A rank that is merely slow is waited for: silence alone ends nobody. A sentence does: whoever
still waits when one has stood there for ten seconds ends with it.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from lco.errors import UserError
from lco.training.launch import end_rank

BEAT, LISTEN = 1.0, 10.0
"""Seconds between two beats, and how long beats are listened for."""

LONGEST_EXCHANGE = "DEEPSPEED_TIMEOUT", 30
"""Environment variable and default: minutes that a rank waits for another one, which may be sampling."""

REMEDY = "see the messages there, then continue with --resume on all ranks"


def end_with(words: str) -> NoReturn:
    print(f"lco: {words}", file=sys.stderr)
    end_rank(2)


class RollCall:
    """One rank's part.

    Args:
        store: where the ranks meet; asked by this object alone, in a thread of its own too.
        rank, world: this one's number, and how many there are. Rank 0's machine holds the store.
        beat, listen: seconds.
        end: ends this rank with a sentence, from another thread than the one that may be inside an exchange which nothing
            breaks: while ranks connect, they wait for each other by keys of a store, and not by connections that can close.

    Attributes:
        names: what the ranks are called, in rank order.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        world: int,
        beat: float = BEAT,
        listen: float = LISTEN,
        end: Callable[[str], object] = end_with,
    ) -> None:
        self.store, self.rank, self.listen, self.end = store, rank, listen, end
        self.names = [f"rank {other}" for other in range(world)]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat,), name="beat", daemon=True)
        self._thread.start()

    def _beat(self, every: float) -> None:
        left = math.inf
        with suppress(RuntimeError):  # the store is gone, which whoever calls the roll finds out
            self.store.add(f"beat/{self.rank}", 1)
            while not self._closed.wait(every):
                self.store.add(f"beat/{self.rank}", 1)
                if self.store.check(["words"]):
                    left = min(left, time.monotonic())
                if time.monotonic() - left > self.listen and (ended := self.find_words()):
                    self.end(ended)
                    return

    def close(self) -> None:
        """Gives no more beats. A thread that was still inside the store when the interpreter ends would abort the process."""
        self._closed.set()
        self._thread.join(timeout=self.listen)

    def leave(self, words: str) -> None:
        """Says why this rank ends, to whom it may concern."""
        with suppress(RuntimeError):
            self.store.set(f"words/{self.rank}", words)
            self.store.set("words", str(self.rank))

    def gather_names(self, name: str, longest: float) -> None:
        """Waits until all ranks are here, and learns what they are called.

        Args:
            name: this rank's.
            longest: seconds that are waited.

        Raises:
            UserError: one has ended, or has not come.
        """
        ranks, end = range(len(self.names)), time.monotonic() + longest
        self.store.set(f"name/{self.rank}", name)
        while missing := [rank for rank in ranks if not self.store.check([f"name/{rank}"])]:
            if ended := self.find_words():
                raise UserError(ended)
            if time.monotonic() > end:
                raise UserError(f"rank {missing[0]} has not come; see its node's messages, and start all nodes again")
            time.sleep(self.listen / 50)
        self.names = [self.store.get(f"name/{rank}").decode() for rank in ranks]

    def find_words(self) -> str:
        """What another rank has left, "" where none has."""
        for rank, name in enumerate(self.names):
            if rank != self.rank and self.store.check([f"words/{rank}"]):
                return f"{name} has ended: {self.store.get(f'words/{rank}').decode()}"
        return ""

    def call(self, broken: str) -> str:
        """What has ended, in a sentence; `broken` is the exchange's own error."""
        others = [rank for rank in range(len(self.names)) if rank != self.rank]
        try:
            counts = {rank: self.store.add(f"beat/{rank}", 0) for rank in others}
            silent, end = others, time.monotonic() + self.listen
            while silent and time.monotonic() < end:
                if ended := self.find_words():
                    return ended
                silent = [rank for rank in silent if self.store.add(f"beat/{rank}", 0) == counts[rank]]
                time.sleep(self.listen / 50)
        except RuntimeError:
            return f"{self.names[0]}, where the ranks meet, does not answer any more; {REMEDY}"
        if silent:
            named = " and ".join(self.names[rank] for rank in silent)
            return f"{named} {'does' if len(silent) == 1 else 'do'} not answer any more; {REMEDY}"
        return f"the ranks all answer, but an exchange between them has failed ({broken}); {REMEDY}"


@contextmanager
def answering() -> Iterator[RollCall | None]:
    """This process's part in the roll call of its run; None where it is the only rank. To be entered before anything is read that
    may be missing on one machine: what ends one rank inside ends the others, with its sentence.

    Raises:
        UserError: another rank has ended.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield None
        return
    try:
        with deaf():
            roll_call = RollCall(meeting_place(rank), rank, world)
    except dist.DistError as error:
        raise UserError(f"the ranks cannot meet at MASTER_ADDR and MASTER_PORT ({one_line(error)}); {REMEDY}") from None
    try:
        yield roll_call
    except UserError as error:
        roll_call.leave(str(error))
        raise
    except Exception as error:
        if not is_broken_exchange(error):
            roll_call.leave(f"{type(error).__name__}: {one_line(error)}")
            raise
        found = roll_call.call(one_line(error))
        roll_call.leave(found)
        raise UserError(found) from error
    finally:
        roll_call.close()


@contextmanager
def deaf() -> Iterator[None]:
    """While PyTorch waits for other ranks, no handler of Python's is called. So a Ctrl-C ends the process at once here: the ranks
    that have heard it will not come."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def meeting_place(rank: int) -> dist.Store:
    """A connection to the store of torchrun's first agent, or to one that rank 0 opens where the launcher has none."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    opens = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(host, port, is_master=opens, wait_for_workers=False, timeout=longest_exchange())
    return dist.PrefixStore(f"lco/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def longest_exchange() -> timedelta:
    return timedelta(minutes=float(os.environ.get(*LONGEST_EXCHANGE)))


def name_of(rank: int) -> str:
    """Its number, and the node's where the launcher says it (torchrun's or DeepSpeed's variable)."""
    node = os.environ.get("GROUP_RANK", os.environ.get("CROSS_RANK"))
    return f"rank {rank} ({socket.gethostname() if node is None else f'node {node}, {socket.gethostname()}'})"


def join_group(roll_call: RollCall, cpu: bool) -> None:
    """Makes PyTorch's process group, as soon as all ranks are here.

    Raises:
        UserError: one has ended, or has not come.
    """
    roll_call.gather_names(name_of(roll_call.rank), longest_exchange().total_seconds())
    nccl = torch.cuda.is_available() and not cpu
    with deaf():
        dist.init_process_group(
            "nccl" if nccl else "gloo",
            # A connection of its own: one that waits for a key is closed to other threads.
            store=dist.PrefixStore("group", meeting_place(rank=-1)),
            rank=roll_call.rank,
            world_size=len(roll_call.names),
            timeout=longest_exchange(),
            device_id=torch.device("cuda", int(os.environ["LOCAL_RANK"])) if nccl else None,
        )


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def is_broken_exchange(error: Exception) -> bool:
    """Whether an exchange between ranks has failed, not this rank by itself. Gloo raises no class of its own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))
