"""A worker process: reads cases from standard input, judges them with proofs, writes judgements to standard output.

Started by pool.py as a script of its own (`python -I worker.py <folders>`), so that it holds no memory of the parent,
inherits none of its threads, and starts as fast beside a process full of torch. It limits itself (memory, CPU time per
case) and ends when its parent does; the parent measures and kills it as well.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lco.verifier.rules import Rules


def main(folders: list[str]) -> int:
    """Serve until standard input ends."""
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    from lco.verifier.judge import judge_answer
    from lco.verifier.numbers import proof
    from lco.verifier.rules import Rules

    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _say({"ready": True})
    import sympy  # noqa: F401  (loaded while waiting for the first case, so that no case pays for it)

    for line in sys.stdin.buffer:
        case: dict[str, Any] = json.loads(line)
        rules = Rules(**case["rules"])
        _limit(rules)
        _say({"begun": case["id"]})
        try:
            judgement = judge_answer(case["answer"], case["gold"], rules, proof.prove)
            _say({"id": case["id"], "correct": judgement.correct, "reason": judgement.reason})
        except MemoryError:
            _say({"id": case["id"], "correct": False, "reason": "out_of_memory"})
    return 0


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _limit(rules: Rules) -> None:
    """No more memory than allowed, and no more CPU time than this case may use on top of what is spent.

    The kernel ends the process if even the parent's watch fails: a whole second later.
    """
    size = rules.memory_mb * 2**20
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime + rules.cpu_seconds) + 2
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        seconds = min(seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, also in the middle of a case.

    The kernel's own signal for that (PR_SET_PDEATHSIG) goes by the thread that started the child, not by the process:
    it would kill workers whenever a caller's thread ends.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
