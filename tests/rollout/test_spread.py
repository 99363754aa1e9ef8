"""Requests spread over servers that die and come back: each is answered once, in order, whoever answers it."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from lco.errors import UserError
from lco.rollout.spread import Gone, Patience, spread

QUICK = Patience(in_flight=3, retry=0.0, give_up=0.0)


@dataclass
class Simulated:
    """A server that answers a request with (its name, the request's number) after `turns` turns of the event loop.

    Attributes:
        dies_at: it is gone when it is asked for the so-manieth time, from 1.
        returns: how often it can be brought back.
    """

    name: str
    turns: int = 1
    dies_at: int = 0
    returns: int = 0
    ready: bool = True
    asked: int = 0
    fails_on: frozenset[int] = frozenset()
    answered: list[int] = field(default_factory=list)
    mistake: Exception | None = None

    async def answer(self, job):
        self.asked += 1
        if self.mistake is not None:
            raise self.mistake
        if self.asked == self.dies_at or job in self.fails_on:
            raise Gone("does not answer")
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.answered.append(job)
        return self.name, job

    async def watch(self):
        await asyncio.Event().wait()

    async def bring_back(self):
        self.returns -= 1
        self.ready = self.returns >= 0
        return self.ready


def run(count, servers, patience=QUICK, on_result=lambda job, result: None):
    said = []
    found = asyncio.run(spread(count, servers, patience, said.append, on_result))
    return found, said


def test_every_request_is_answered_once_in_order_and_all_servers_take_part():
    servers = [Simulated("1"), Simulated("2"), Simulated("3")]
    found, said = run(50, servers)
    assert [job for _, job in found] == list(range(50))
    assert sorted(job for server in servers for job in server.answered) == list(range(50))
    assert all(server.answered for server in servers)
    assert said == []


def test_a_slower_server_gets_fewer():
    fast, slow = Simulated("fast", turns=1), Simulated("slow", turns=30)
    run(60, [fast, slow])
    assert len(slow.answered) < len(fast.answered) / 3


def test_what_a_dead_server_had_in_flight_is_answered_by_another_and_it_is_named():
    dying, other = Simulated("vLLM server 1 of 2", turns=5, dies_at=4), Simulated("other", turns=5)
    seen = []
    found, said = run(40, [dying, other], on_result=lambda job, result: seen.append(job))
    assert [job for _, job in found] == list(range(40))
    assert sorted(seen) == list(range(40))
    assert len(dying.answered) <= 3
    assert len(said) == 1
    assert said[0].startswith("vLLM server 1 of 2 does not answer; what it had not answered is sampled again")


def test_a_server_that_comes_back_serves_again():
    returning = Simulated("1", dies_at=2, returns=1)
    found, said = run(20, [returning])
    assert [job for _, job in found] == list(range(20))
    assert [word in said[i] for i, word in enumerate(("does not answer", "is back, with the current weights"))] == [
        True,
        True,
    ]


def test_without_any_server_the_work_is_given_up_with_the_remedy():
    with pytest.raises(UserError, match=r"none of 2 vLLM servers answers; start them again and continue with --resume"):
        run(10, [Simulated("1", dies_at=1), Simulated("2", dies_at=2)])


def test_a_request_that_ends_every_server_is_taken_for_the_reason():
    servers = [Simulated(str(i), fails_on=frozenset({7}), returns=100) for i in range(3)]
    with pytest.raises(UserError, match=r"request 7 ended 5 servers' answers"):
        run(10, servers)


def test_a_mistake_ends_the_work_at_once():
    with pytest.raises(UserError, match="another token"):
        run(10, [Simulated("1"), Simulated("2", mistake=UserError("another token"))])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_dies_when_nothing_is_lost_and_nothing_is_there_twice(seed):
    draws = random.Random(seed)
    servers = [
        Simulated(str(i), turns=draws.randrange(1, 9), dies_at=draws.randrange(1, 30), returns=draws.randrange(3))
        for i in range(4)
    ]
    servers.append(Simulated("stays", turns=draws.randrange(1, 9)))
    seen = []
    found, _ = run(100, servers, on_result=lambda job, result: seen.append(job))
    assert [job for _, job in found] == list(range(100))
    assert sorted(seen) == list(range(100))


def test_nothing_to_do_is_done():
    assert run(0, [Simulated("1")]) == ([], [])
