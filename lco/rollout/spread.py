"""Requests spread over servers that may die and come back: each is answered once, whoever answers it.

Every server has so many requests in flight and takes the next one from a common queue as soon as one is answered, so a
slower server gets fewer. What a server that ends had in flight goes back to the head of the queue.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from lco.errors import UserError

R = TypeVar("R")
Answer = TypeVar("Answer", covariant=True)


class Gone(Exception):  # noqa: N818 (a state that is waited out, not a mistake)
    """A server that does not answer, or not with the current weights. Its text says in a few words why."""


class Server(Protocol[Answer]):
    """What spreading needs of a server."""

    ready: bool
    """Whether it is there and has the current weights."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    async def answer(self, job: int) -> Answer:
        """
        Raises:
            Gone: it cannot.
        """
        ...

    async def watch(self) -> None:
        """Looks at the server again and again.

        Raises:
            Gone: it is not there any more.
        """
        ...

    async def bring_back(self) -> bool:
        """Whether the server is there (again); it has the current weights then."""
        ...


@dataclass(frozen=True)
class Patience:
    """
    Attributes:
        in_flight: requests that a server has at once.
        retry: seconds between two tries to find a server that is gone.
        give_up: seconds without any server after which the work is given up.
        tries: how many times one request may end a server's answer before it is taken for the reason.
    """

    in_flight: int = 64
    retry: float = 5.0
    give_up: float = 60.0
    tries: int = 5


@dataclass
class Work(Generic[R]):
    """Requests 0 … count − 1: those that wait, the first one first; those that are answered."""

    count: int
    waiting: asyncio.PriorityQueue[int] = field(default_factory=asyncio.PriorityQueue)
    results: dict[int, R] = field(default_factory=dict)
    failures: Counter[int] = field(default_factory=Counter)
    all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    last_ready: float = 0.0

    def keep(self, job: int, result: R) -> None:
        assert job not in self.results, f"request {job} was answered twice"
        self.results[job] = result
        if len(self.results) == self.count:
            self.all_answered.set()


async def spread(
    count: int,
    servers: Sequence[Server[R]],
    patience: Patience,
    say: Callable[[str], None],
    on_result: Callable[[int, R], None] = lambda job, result: None,
) -> list[R]:
    """The answers to requests 0 … count − 1, in this order.

    Args:
        say: told which server is gone, and which is back.
        on_result: called with each answer as it comes.

    Raises:
        UserError: no server is left, or one request ends every answer.
    """
    work: Work[R] = Work(count, last_ready=asyncio.get_running_loop().time())
    for job in range(count):
        work.waiting.put_nowait(job)
    if count:
        tending = (tend(server, servers, work, patience, say, on_result) for server in servers)
        await first_to_end(work.all_answered.wait(), *tending)
    return [work.results[job] for job in range(count)]


async def tend(
    server: Server[R],
    servers: Sequence[Server[R]],
    work: Work[R],
    patience: Patience,
    say: Callable[[str], None],
    on_result: Callable[[int, R], None],
) -> None:
    """Keeps a server at work; looks for it again and again while it is gone. Does not end of itself."""
    now = asyncio.get_running_loop().time
    while True:
        if not server.ready:
            if not await server.bring_back():
                if not any(other.ready for other in servers) and now() - work.last_ready > patience.give_up:
                    raise UserError(
                        f"none of {len(servers)} vLLM servers answers; start them again and continue with --resume"
                    )
                await asyncio.sleep(patience.retry)
                continue
            say(f"{server.name} is back, with the current weights")
        try:
            lanes = (ask(server, work, patience, on_result) for _ in range(min(patience.in_flight, work.count)))
            await first_to_end(server.watch(), *lanes)
        except Gone as gone:
            server.ready = False
            work.last_ready = now()
            say(f"{server.name} {gone}; what it had not answered is sampled again by the same seeds")


async def ask(server: Server[R], work: Work[R], patience: Patience, on_result: Callable[[int, R], None]) -> None:
    """Has the server answer one request after the other."""
    while True:
        job = await work.waiting.get()
        try:
            result = await server.answer(job)
        except BaseException as error:
            work.waiting.put_nowait(job)
            work.failures[job] += isinstance(error, Gone)
            if work.failures[job] >= patience.tries:
                raise UserError(
                    f"request {job} ended {patience.tries} servers' answers ({error}); it is given up, see the servers' own "
                    "messages"
                ) from None
            raise
        work.keep(job, result)  # nothing is awaited in between, so an answer that came is never lost
        on_result(job, result)


async def first_to_end(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Waits until one of them ends, and cancels the others; raises what it raised."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    errors = [error for task in done if (error := task.exception()) is not None]
    # Where several ended at once, a mistake outweighs a server that is gone.
    for error in sorted(errors, key=lambda error: isinstance(error, Gone)):
        raise error
