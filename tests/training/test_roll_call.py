"""What a rank says when an exchange breaks: who has ended, and why, where that is known."""

import queue
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from lco.config import Experiment
from lco.errors import UserError
from lco.training.command import refuse_ranks
from lco.training.launch import free_port, is_launcher
from lco.training.roll_call import RollCall, is_broken_exchange

NAMES = ["rank 0 (node 0, a)", "rank 1 (node 1, b)", "rank 2 (node 2, c)"]
QUICK = {"beat": 0.05, "listen": 5.0}


@pytest.fixture
def answer():
    """Makes roll calls of a run of three, and ends their beats after the test."""
    made = []

    def answer_as(store, *ranks):
        made.extend(RollCall(store, rank, 3, **QUICK) for rank in ranks)
        return made[-len(ranks) :]

    yield answer_as
    for each in made:
        each.close()


@pytest.fixture
def roll_calls(answer):
    """The same of ranks whose names are known."""

    def named(store, *ranks):
        made = answer(store, *ranks)
        for each in made:
            each.names = NAMES
        return made

    return named


def test_a_rank_that_gives_no_beat_is_named(roll_calls):
    first, _ = roll_calls(dist.HashStore(), 0, 2)
    assert first.call("Timed out") == (
        "rank 1 (node 1, b) does not answer any more; see the messages there, then continue with --resume on all ranks"
    )


def test_all_that_give_none_are_named(roll_calls):
    (first,) = roll_calls(dist.HashStore(), 0)
    assert first.call("Timed out").startswith("rank 1 (node 1, b) and rank 2 (node 2, c) do not answer any more;")


def test_the_words_that_a_rank_has_left_are_its_reason(roll_calls):
    first, second, _ = roll_calls(dist.HashStore(), 0, 1, 2)
    second.leave("there is no model folder /m")
    assert first.call("Timed out") == "rank 1 (node 1, b) has ended: there is no model folder /m"


def test_where_all_answer_nobody_is_blamed(roll_calls):
    first, _, _ = roll_calls(dist.HashStore(), 0, 1, 2)
    assert "the ranks all answer, but an exchange between them has failed (Timed out);" in first.call("Timed out")


def test_ranks_wait_until_all_are_there_and_know_each_others_names(answer):
    store = dist.HashStore()
    made = answer(store, 0, 1, 2)
    threads = [threading.Thread(target=each.gather_names, args=(NAMES[rank], 60)) for rank, each in enumerate(made)]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(timeout=0.3)
    assert threads[0].is_alive()
    threads[2].start()
    for thread in threads:
        thread.join(timeout=60)
    assert [each.names for each in made] == [NAMES] * 3


def test_a_rank_that_ends_before_all_are_there_is_not_waited_for(answer):
    store = dist.HashStore()
    first, second = answer(store, 0, 1)
    second.leave("there is no model folder /m")
    with pytest.raises(UserError, match="rank 1 has ended: there is no model folder /m"):
        first.gather_names(NAMES[0], 60)


def test_a_rank_that_does_not_come_is_named_in_the_end(answer):
    store = dist.HashStore()
    first, _ = answer(store, 0, 1)
    with pytest.raises(UserError, match="rank 1 has not come; see its node's messages"):
        first.gather_names(NAMES[0], 0.1)


STORE = """
import sys
from datetime import timedelta
import torch.distributed as dist
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
print("ready", flush=True)
sys.stdin.read()
"""


def test_where_the_store_has_gone_its_keeper_is_named_and_the_beating_ends(roll_calls):
    port = free_port()
    start = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STORE, str(port)], **start) as keeper:
        assert keeper.stdout.readline() == "ready\n"
        store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=20))
        before = set(threading.enumerate())
        (second,) = roll_calls(store, 1)
        (beating,) = set(threading.enumerate()) - before
        keeper.kill()
    assert second.call("Timed out").startswith("rank 0 (node 0, a), where the ranks meet, does not answer any more;")
    second.leave("nobody hears this")
    beating.join(timeout=60)
    assert not beating.is_alive()


def test_an_exchange_that_breaks_is_told_from_a_mistake():
    """The error is gloo's own, of a connection whose other end goes."""
    port = free_port()
    ranks = [
        subprocess.Popen([sys.executable, "-c", PAIR, str(port), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in ranks]
    assert said == ["True\n", ""]
    assert not is_broken_exchange(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_broken_exchange(ValueError("/gloo/"))


PAIR = """
import os, sys, torch
import torch.distributed as dist
from lco.training.roll_call import is_broken_exchange
place = f"tcp://127.0.0.1:{sys.argv[1]}"
dist.init_process_group("gloo", init_method=place, rank=int(sys.argv[2]), world_size=2)
dist.all_reduce(torch.ones(1))
if sys.argv[2] == "1":
    os._exit(1)
try:
    dist.all_reduce(torch.ones(1))
except Exception as error:
    print(is_broken_exchange(error), flush=True)
os._exit(0)
"""


def test_ranks_of_a_launcher_are_not_each_a_run_of_its_own(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="engine is 'torch', which trains in one process, and a launcher has started 2"):
        refuse_ranks(Experiment())
    refuse_ranks(Experiment(engine="deepspeed"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_ranks(Experiment())


@pytest.mark.parametrize(
    ("command", "is_one"),
    [
        (b"/usr/bin/python3\0/usr/local/bin/torchrun\0--nnodes\0", True),
        (b"python\0-m\0torch.distributed.run\0", True),
        (b"python\0-m\0deepspeed.launcher.launch\0", True),
        (b"/sbin/init\0", False),
        (b"/usr/lib/systemd/systemd\0--system\0", False),
    ],
)
def test_a_launcher_that_is_a_containers_first_process_is_no_reason_to_end(command, is_one):
    """Every process whose parent has ended gets the first one for a parent, and so does every child of that one."""
    assert is_launcher(command) == is_one


def test_a_rank_that_waits_on_after_another_has_left_words_ends_with_them():
    """While ranks connect, no exchange breaks; whoever has left words himself is ended by none of them."""
    store, heard = dist.HashStore(), queue.Queue()
    one, other = (
        RollCall(store, rank, 2, beat=0.05, listen=0.2, end=lambda words, r=rank: heard.put((r, words)))
        for rank in (0, 1)
    )
    other.leave("there is no model folder /m")
    assert heard.get(timeout=60) == (0, "rank 1 has ended: there is no model folder /m")
    one.close()
    other.close()
    assert heard.empty()


def test_no_beat_follows_the_close():
    store = dist.HashStore()
    one = RollCall(store, 0, 2, **QUICK)
    one.close()
    count = store.add("beat/0", 0)
    time.sleep(4 * QUICK["beat"])
    assert store.add("beat/0", 0) == count > 0
