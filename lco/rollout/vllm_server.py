"""Sampling with `vllm serve` processes that somebody has started (`lco serve MODEL`), on this machine or another.

    trainer, rank 0 ── HTTP: prompts as ids → ids, log-probabilities, version of the weights ──▶ server 1 … server n
                    └─ weights: files in a folder that all of them see ────────────────────────▶

- Ids go out and come back; no text is made anywhere.
- A request has a seed of its own, made of the rollout's seed and the prompt's place. So what is drawn depends neither on the
  server nor on what else it does, but for the rounding of its kernels, and what a dead one had not answered is drawn again
  elsewhere as it would have been.
- New weights: pause, reload, forget cached prefixes, note the version, resume. Then every server says how likely the ids of
  one prompt are: an "OK" without a transfer has happened to others, and a version is only a word.
- A server that was started again has its first weights. It is given the current ones before it serves, and a row that was
  drawn with another version than the current one is never taken.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from lco.addresses import Addresses
from lco.console import say
from lco.errors import UserError
from lco.randomness import derived_seed
from lco.rollout.agreement import GAP_LIMIT
from lco.rollout.memory import folder_for
from lco.rollout.records import FinishReason, OnRows, Row, Sampling
from lco.rollout.spread import Gone, Patience, spread
from lco.rollout.transfer import write_buckets
from lco.rollout.vllm import refuse_headless, sampling_values
from lco.rollout.vllm_http import Door
from lco.scratch import scratch_folder

T = TypeVar("T")

STEADY = Patience()


@dataclass
class Current:
    """The weights that servers are to have.

    Attributes:
        folder: of their files; kept, for a server that comes back.
        number: how many synchronisations there have been, which rows carry.
        version: what servers call these weights; no other trainer's are called the same.
        expected: log p of the probe's ids, as the first server that had them said; None before.
    """

    folder: Path
    number: int
    version: str
    expected: list[float] | None = None


@dataclass(frozen=True)
class Request:
    """A prompt and what is asked about it."""

    group: str
    ids: tuple[int, ...]
    values: dict[str, Any]


@dataclass
class VLLMServer:
    """One server: where it is, and whether it has the current weights. `spread` spreads over these.

    Attributes:
        requests, sampling: of the rollout that is being sampled.
    """

    door: Door
    probe: tuple[int, ...]
    gap_limit: float
    current: Current | None = None
    ready: bool = False
    requests: Sequence[Request] = ()
    sampling: Sampling | None = None

    @property
    def name(self) -> str:
        return self.door.name

    async def watch(self) -> None:
        await self.door.watch()

    async def answer(self, job: int) -> list[Row]:
        request, sampling, current = self.requests[job], self.sampling, self.current
        assert sampling is not None
        assert current is not None
        choices = (await self.door.generate(request.ids, request.values))["choices"]
        ordered = sorted(choices, key=lambda choice: int(choice["index"]))
        if len(ordered) != request.values["n"]:
            raise Gone(f"answers with {len(ordered)} rows where {request.values['n']} were asked for")
        copies = sampling.samples // len(ordered)
        return [self.row(request, choice, sampling, current) for choice in ordered for _ in range(copies)]

    def row(self, request: Request, choice: Any, sampling: Sampling, current: Current) -> Row:
        """
        Raises:
            Gone: the row was broken off, or drawn with other weights.
            UserError: the server cut it short of the limit.
        """
        if choice["finish_reason"] not in ("stop", "length"):
            raise Gone(f"has broken a row off ({choice['finish_reason']})")
        if {span["version"] for span in choice["weight_versions"] or ()} != {current.version}:
            raise Gone("has other weights than the current ones")
        ids = tuple(choice["token_ids"])
        logprobs = tuple(float(entry["logprob"]) for entry in choice["logprobs"]["content"])
        finish: FinishReason = choice["finish_reason"]
        if finish == "length" and len(ids) < sampling.max_new_tokens:
            raise UserError(
                f"{self.name} cut a response at {len(ids)} of {sampling.max_new_tokens} tokens, because prompt and response do "
                "not fit into what it reads; start it with a larger --max-model-len"
            )
        return Row(request.group, request.ids, ids, finish, logprobs, version=current.number)

    async def bring_back(self) -> bool:
        """Gives it the current weights if it is there."""
        try:
            await self.door.look()
            await self.take_weights()
        except Gone:
            return False
        return True

    async def take_weights(self) -> None:
        """
        Raises:
            Gone: it ended meanwhile.
            UserError: it refuses them, or does not compute what the others compute with them.
        """
        assert self.current is not None
        self.ready = False
        await self.door.take_weights(self.current.folder, self.current.version)
        found = await self.door.prompt_logprobs(self.probe)
        if self.current.expected is None:
            self.current.expected = found
        gap = sum(abs(a - b) for a, b in zip(found, self.current.expected, strict=True)) / len(found)
        if not gap <= self.gap_limit:
            raise UserError(
                f"{self.name} and another one differ by {gap:.3g} a token (limit {self.gap_limit}) with the same weights: it "
                "serves another model or in another way; start all of them with the same `lco serve`"
            )
        self.ready = True


class VLLMServerSampler:
    """Samples with servers that run already, and leaves them running.

    Args:
        addresses: where they are.
        dtype: of the trainer's model, which decides how much two servers may differ.
        probe: ids of some prompt, whose likelihood all servers must agree about.
        size: bytes of the weights, about, for which room is looked for.
        patience: how long is waited for servers.
    """

    def __init__(
        self, addresses: Addresses, dtype: str, probe: Sequence[int], size: int = 0, patience: Patience = STEADY
    ) -> None:
        self.place, self.patience = addresses.folder or folder_for(size), patience
        ids = tuple(probe) if len(probe) > 1 else tuple(probe) * 2  # the first id has no likelihood
        count = len(addresses.urls)
        self.servers = [
            VLLMServer(Door(number, count, url, addresses.token), ids, GAP_LIMIT[dtype])
            for number, url in enumerate(addresses.urls, 1)
        ]
        self.run, self.synchronisations = uuid.uuid4().hex, 0
        self.resources = ExitStack()

    def sample(
        self,
        prompts: Sequence[tuple[str, tuple[int, ...]]],
        sampling: Sampling,
        seed: int,
        on_rows: OnRows | None = None,
    ) -> list[Row]:
        requests = [
            Request(group, ids, request_values(sampling, derived_seed(seed, place, "prompt") >> 1))
            for place, (group, ids) in enumerate(prompts)
        ]
        for server in self.servers:
            server.requests, server.sampling = requests, sampling
        in_order = InOrder(on_rows)
        found = self._with_doors(spread(len(requests), self.servers, self.patience, say, in_order.take))
        return [row for rows in found for row in rows]

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Gives all servers the weights, by the names that the model's files have.

        Raises:
            UserError: the head is missing, a server refuses them or, at the first time, is not there.
        """
        self.resources.close()
        folder = self.resources.enter_context(scratch_folder(self.place))
        refuse_headless(write_buckets(weights, folder))
        self.synchronisations += 1
        current = Current(folder, self.synchronisations, f"{self.run}-{self.synchronisations}")
        for server in self.servers:
            server.current = current
        self._with_doors(self._hand_over(first=self.synchronisations == 1))

    async def _hand_over(self, first: bool) -> None:
        was_ready = [server.ready for server in self.servers]
        ended = await asyncio.gather(*(server.take_weights() for server in self.servers), return_exceptions=True)
        for server, ready, error in zip(self.servers, was_ready, ended, strict=True):
            if isinstance(error, Gone):
                if first:
                    raise UserError(
                        f"{server.name} {error}; start it, or leave its address out of --vllm-url"
                    ) from None
                if ready:
                    say(f"{server.name} {error}; it gets the weights when it is back")
            elif error is not None:
                raise error

    def _with_doors(self, work: Coroutine[Any, Any, T]) -> T:
        async def run() -> T:
            async with AsyncExitStack() as doors:
                for server in self.servers:
                    await doors.enter_async_context(server.door.opened())
                return await work

        return asyncio.run(run())

    def close(self) -> None:
        """Removes the weights' files. A second call does nothing."""
        self.resources.close()


@dataclass
class InOrder:
    """Hands the rows of prompts on in the prompts' order, as soon as those of all before them are there."""

    on_rows: OnRows | None
    held: dict[int, list[Row]] = field(default_factory=dict)
    next: int = 0

    def take(self, place: int, rows: list[Row]) -> None:
        self.held[place] = rows
        while self.next in self.held:
            ready = self.held.pop(self.next)
            self.next += 1
            if self.on_rows is not None:
                self.on_rows(ready)


def request_values(sampling: Sampling, seed: int) -> dict[str, Any]:
    """The values of one prompt's request. Sample i draws with `seed` + i. Greedy rows of one prompt are the same row, and vLLM
    refuses to make it more than once. A server's answer is read without likeliest tokens, so none are asked for."""
    samples = sampling.samples if sampling.temperature else 1
    return sampling_values(dataclasses.replace(sampling, top=0), samples, seed)
