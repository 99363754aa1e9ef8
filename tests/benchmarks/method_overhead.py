"""What a rollout with its updates costs under each method, relative to one of them (REINFORCE), in one run.

    python tests/benchmarks/method_overhead.py                      all methods on the miniature, about ten minutes
    python tests/benchmarks/method_overhead.py --methods grpo ppo --rounds 9 --out FILE.json
    python tests/benchmarks/method_overhead.py --base grpo --methods minpro dppo cppo bapo capo oblr_po      against GRPO

Every method gets the miniature's setting: 32 prompts × 8 samples, 8 updates, one thread, learning rate 0, so that all of them
sample from the same policy all the time. Methods take turns round by round, and ratios are of medians over the rounds; the
first round is not counted. `learning` is the step without generation, reward and synchronisation: what the method decides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import trange

sys.path.insert(0, str(Path(__file__).parents[2]))

from lco.disk import write_json
from lco.methods import METHODS
from lco.provenance import collect
from lco.training.load import Loaded, load, start_sampler
from lco.training.resolve import resolve
from lco.training.state import Clock
from lco.verifier import Pool
from reproduce.miniature import budget

BASE = "reinforce"
"""What all others are compared with, unless `--base` says otherwise."""


PROBLEMS = 1000
"""Of every method's run; the miniature's 20 000 would be made and encoded anew for each."""


def build(method: str, pool: Pool, folder: Path) -> Loaded:
    knobs = {"lr": 0.0, "critic_lr": 0.0, "eval_every": 0, "limit": PROBLEMS}
    experiment = budget.experiment("llama", method, 0, knobs, folder / method)
    plan = resolve(experiment)
    loaded = load(plan, 1, pool)
    loaded.collector.sampler = start_sampler(plan, loaded, 1)
    return loaded


def measure(methods: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """{method: {"total", "learning": seconds of every counted round}}"""
    found: dict[str, dict[str, list[float]]] = {name: {"total": [], "learning": []} for name in methods}
    with Pool(workers=1) as pool, tempfile.TemporaryDirectory() as place:
        runs = {name: build(name, pool, Path(place)) for name in methods}
        for number in trange(rounds + 1, unit="round"):
            for name, run in runs.items():
                begun, clock = time.perf_counter(), Clock()
                run.learner.learn(run.collector.collect(number, clock), clock)
                with clock.phase("sync"):
                    run.collector.synchronise(run.learner.policies.engine.named_weights())
                total = time.perf_counter() - begun
                if number:
                    other = sum(clock.seconds.get(phase, 0.0) for phase in ("generation", "reward", "sync"))
                    found[name]["total"].append(total)
                    found[name]["learning"].append(total - other)
    return found


def table(found: dict[str, dict[str, list[float]]], base_name: str = BASE) -> list[dict[str, Any]]:
    base = {key: statistics.median(values) for key, values in found[base_name].items()}
    return [
        {
            "method": name,
            **{f"{key}_seconds": round(statistics.median(values), 4) for key, values in times.items()},
            **{f"{key}_ratio": round(statistics.median(values) / base[key], 3) for key, values in times.items()},
        }
        for name, times in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--base", choices=list(METHODS), default=BASE, metavar="METHOD", help=f"default: {BASE}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="store the record there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.methods or [name for name, m in METHODS.items() if m.source != "pairs"]
    rows = table(measure([options.base, *(m for m in chosen if m != options.base)], options.rounds), options.base)
    print(f"{'method':24}{'step s':>9}{'ratio':>8}{'learning s':>12}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['method']:24}{row['total_seconds']:9.3f}{row['total_ratio']:8.2f}{row['learning_seconds']:12.3f}"
            f"{row['learning_ratio']:8.2f}"
        )
    if options.out:
        settings = {"rounds": options.rounds, "base": options.base}
        record = {"schema": "lco-benchmark/1", **settings, "rows": rows, "provenance": collect()}
        write_json(options.out, json.loads(json.dumps(record)))


if __name__ == "__main__":
    main()
