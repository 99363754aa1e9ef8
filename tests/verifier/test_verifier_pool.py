"""Deadlines, killed workers, order, threads: the pool loses nothing and waits for nobody."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from verifier_helpers import all_cases

from lco.verifier import Pool, Rules, Verdict, verify, verify_many

ROOT = Path(__file__).parents[2]
# Pairs that only a worker settles, with their verdicts.
HARD = [
    ("\\boxed{2-\\sqrt3}", "\\tan 15^\\circ", True),
    ("\\boxed{\\sqrt{3+2\\sqrt2}}", "1+\\sqrt2", True),
    ("\\boxed{\\frac{1-\\cos 2t}{2}}", "\\sin^2 t", True),
    ("\\boxed{\\sqrt{8-4\\sqrt3}}", "\\sqrt6-\\sqrt2", True),
]
# sympy needs longer than this for its first proof, so the deadline strikes in the middle.
HASTY = Rules(cpu_seconds=0.01)


def outcomes(verdicts: list[Verdict]) -> list[tuple[bool, str | None, str]]:
    return [(verdict.correct, verdict.extracted, verdict.reason) for verdict in verdicts]


def slow_pair(index: int) -> tuple[str, str]:
    """A true identity that costs sympy more than the hasty rules allow."""
    gold = f"\\sin(x+{index})\\cos(x)\\cosh(x)"
    return f"\\boxed{{\\cosh(x)\\frac{{\\sin(2x+{index})+\\sin({index})}}{{2}}}}", gold


def test_easy_cases_start_no_worker() -> None:
    with Pool(2) as pool:
        verdicts = pool.verify_many([("\\boxed{1/2}", "0.5"), ("\\boxed{3}", "4"), ("nothing", "4")])
        assert [verdict.correct for verdict in verdicts] == [True, False, False]
        assert pool.pids() == []


def test_order_is_kept_between_easy_and_hard_cases() -> None:
    pairs, expected = [], []
    for index in range(12):
        response, gold, right = HARD[index % len(HARD)]
        pairs += [(response, gold), (f"\\boxed{{{index}}}", "5")]
        expected += [right, index == 5]
    with Pool(2) as pool:
        assert [verdict.correct for verdict in pool.verify_many(pairs)] == expected


def test_verdicts_are_the_same_alone_shuffled_and_in_parallel() -> None:
    cases = all_cases()
    pairs = [(case.response, case.gold) for case in cases]
    rng = random.Random(5)
    order = list(range(len(pairs)))
    rng.shuffle(order)
    with Pool(1) as one, Pool(2) as two:
        plain = outcomes(one.verify_many(pairs))
        shuffled = outcomes(two.verify_many([pairs[at] for at in order]))
    assert [shuffled[order.index(at)] for at in range(len(pairs))] == plain
    sample = rng.sample(range(len(pairs)), 25)
    with Pool(1) as alone:
        assert [outcomes([alone.verify(*pairs[at])])[0] for at in sample] == [plain[at] for at in sample]


def test_a_case_over_its_deadline_is_wrong_counted_and_leaves_the_pool_whole() -> None:
    with Pool(2) as pool:
        slow = pool.verify_many([slow_pair(index) for index in range(3)], HASTY)
        assert {verdict.reason for verdict in slow} == {"timeout"}
        assert not any(verdict.correct for verdict in slow)
        assert pool.counts["timeout"] == 3
        assert pool.replaced == 3
        assert len(pool.pids()) == 2
        assert [verdict.correct for verdict in pool.verify_many([(r, g) for r, g, _ in HARD])] == [
            right for *_, right in HARD
        ]


def test_a_worker_killed_in_the_middle_loses_nothing() -> None:
    pairs = [(response, gold) for response, gold, _ in HARD] * 6
    with Pool(2) as pool:
        pool.start()
        killed: list[int] = []

        def kill_some() -> None:
            for _ in range(3):
                time.sleep(0.15)
                for pid in pool.pids()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        killer = threading.Thread(target=kill_some)
        killer.start()
        verdicts = pool.verify_many(pairs)
        killer.join()
        again = pool.verify_many(pairs[:4])
    assert killed
    assert [verdict.correct for verdict in verdicts] == [right for *_, right in HARD] * 6
    assert all(verdict.correct for verdict in again)


def test_an_idle_worker_killed_is_replaced() -> None:
    with Pool(1) as pool:
        pool.start()
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGKILL)
        assert pool.verify(*HARD[0][:2]).correct
        assert pool.pids() != [pid]


def test_memory_is_limited() -> None:
    with Pool(1) as pool:
        verdict = pool.verify(*HARD[0][:2], Rules(memory_mb=20))
        assert verdict.correct is False
        assert verdict.reason in ("out_of_memory", "worker_died")
        assert pool.verify(*HARD[1][:2]).correct


def test_a_case_without_a_verdict_is_neither_right_nor_wrong_and_counted_apart() -> None:
    with Pool(1) as pool:
        verdict = pool.verify(*HARD[0][:2], Rules(memory_mb=20))
        assert verdict.judged is False
        assert math.isnan(verdict.reward)
        assert pool.counts["out_of_memory"] + pool.counts["worker_died"] == 1
        assert pool.replaced >= 3  # it was tried again
        right, wrong = pool.verify(*HARD[1][:2]), pool.verify("\\boxed{3}", "4")
    assert (right.judged, right.reward, wrong.judged, wrong.reward) == (True, 1.0, True, 0.0)


def test_a_worker_that_gets_no_processor_time_is_replaced_and_the_answer_judged() -> None:
    with Pool(1) as pool:
        pool.start()

        def stop_once_begun() -> None:
            while True:
                running = [worker for worker in pool._running if worker.case is not None and worker.case.tries]
                if running:
                    os.kill(running[0].pid, signal.SIGSTOP)
                    return
                time.sleep(0.001)

        stopper = threading.Thread(target=stop_once_begun, daemon=True)
        stopper.start()
        verdict = pool.verify(*slow_pair(1), Rules(wall_seconds=3, cpu_seconds=30))
        stopper.join(timeout=60)
        assert not stopper.is_alive()
        assert verdict.reason in ("proved", "equal")
        assert pool.replaced == 1


def test_where_no_worker_can_be_started_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr("lco.verifier.workers.pool._PAUSES", (0.01,))
    with Pool(1) as pool:
        verdicts = pool.verify_many([HARD[0][:2], ("\\boxed{3}", "3")])
    assert [(verdict.judged, verdict.correct) for verdict in verdicts] == [(False, False), (True, True)]


def test_a_fault_of_the_verifier_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lco.verifier.workers.pool.judge_answer", broken)
    verdict = verify("\\boxed{3}", "3")
    assert (verdict.correct, verdict.judged, verdict.reason) == (False, False, "failed")


def test_a_pool_serves_several_threads() -> None:
    results: dict[int, list[bool]] = {}
    with Pool(1) as pool:

        def work(index: int) -> None:
            results[index] = [verdict.correct for verdict in pool.verify_many([(r, g) for r, g, _ in HARD])]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {index: [right for *_, right in HARD] for index in range(4)}


def test_workers_end_with_their_parent_even_if_it_is_killed() -> None:
    program = (
        "import os, signal\n"
        "from lco.verifier import Pool\n"
        "pool = Pool(2)\n"
        "pool.start()\n"
        "print(*pool.pids(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_closed_pool_refuses_work_and_leaves_no_process() -> None:
    pool = Pool(1)
    pool.start()
    (pid,) = pool.pids()
    pool.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(RuntimeError, match="closed"):
        pool.verify_many([HARD[0][:2]])


def test_the_module_functions_work_without_a_pool() -> None:
    assert verify(*HARD[0][:2]).correct
    assert [verdict.correct for verdict in verify_many([("\\boxed{1}", "1"), HARD[1][:2]], workers=1)] == [True, True]
    with pytest.raises(ValueError, match="workers"):
        verify_many([], workers=0)


def test_importing_loads_neither_torch_nor_sympy() -> None:
    program = (
        "import json, sys\n"
        "import lco.verifier\n"
        "from lco.verifier import verify\n"
        "verify('\\\\boxed{1/2}', '0.5')\n"
        "print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "sympy", "math_verify", "latex2sympy2_extended", "numpy", "vllm"} & set(
        json.loads(done.stdout)
    )


def test_a_worker_never_loads_torch() -> None:
    with Pool(1) as pool:
        assert pool.verify(*HARD[0][:2]).correct
        (pid,) = pool.pids()
        mapped = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    assert "torch" not in mapped
