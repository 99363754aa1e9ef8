"""How fast is the verifier on real answers, beside math-verify in the same run on the same core?

    LCO_DATA_DIR=… python -m tests.benchmarks.verifier_speed [--samples 1500] [--responses FILE.jsonl]

GSM8K and MATH-500 solutions are the responses, in thirds: as they are, with the answer rewritten to an equal one, and with
one digit, sign, bracket or element changed. `--responses` adds a file of real samples ({"response", "gold"} a line).
Each third is timed apart; seconds are those of single verdicts on one core, waiting for proofs included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from lco.verifier import Pool
from tests.benchmarks.verifier_compare import math_verify_grader
from tests.verifier.verifier_helpers import near_misses, rewritten

ROOT = Path(__file__).resolve().parents[2]

Pair = tuple[str, str]


def records(path: Path) -> list[dict[str, str]]:
    """The records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def response(record: dict[str, str], answer: str) -> str:
    """A solution that ends in this answer: in a box after what led to it."""
    text = record["solution"]
    cut = max(text.rfind("\\boxed"), text.rfind("####"))
    return f"{text[:cut] if cut > 0 else text} \\boxed{{{answer}}}."


def thirds(folder: Path, file: str, samples: int, rng: random.Random) -> dict[str, list[Pair]]:
    """The identical, the rewritten and the nearly right answers of one data file."""
    chosen = records(folder / file)
    rng.shuffle(chosen)
    chosen = chosen[:samples]
    result: dict[str, list[Pair]] = {"identical": [], "rewritten": [], "near miss": []}
    for record in chosen:
        gold = record["answer"]
        result["identical"].append((response(record, gold), gold))
        result["rewritten"].append((response(record, rewritten(gold, rng)), gold))
        result["near miss"] += [(response(record, miss), gold) for miss in near_misses(gold, rng)[:1]]
    return result


def timed(grader: object, pairs: list[Pair]) -> tuple[list[float], int]:
    """Seconds of every verdict, and how many said right."""
    seconds, right = [], 0
    for text, gold in pairs:
        start = time.perf_counter()
        right += bool(grader(text, gold))  # type: ignore[operator]
        seconds.append(time.perf_counter() - start)
    return sorted(seconds), right


def line(name: str, seconds: list[float], right: int) -> str:
    """A row of the printed table."""
    p99 = seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
    rate = len(seconds) / sum(seconds)
    return f"{name:<38}{len(seconds):>7}{right:>7}{rate:>12.0f}{p99 * 1e3:>10.2f}{seconds[-1] * 1e3:>10.1f}"


def start_seconds(parent: str) -> float:
    """How long a pool takes to start under a parent that has run this code first."""
    program = (
        f"{parent}\nimport time\nfrom lco.verifier import Pool\nstart = time.perf_counter()\n"
        "with Pool(1) as pool:\n    pool.start()\n    print(time.perf_counter() - start)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1_500, help="records of each data file")
    parser.add_argument("--compared", type=int, default=100, help="records of each third that math-verify judges too")
    parser.add_argument("--responses", type=Path, help="JSON Lines of real samples, {response, gold}")
    options = parser.parse_args()
    folder = os.environ.get("LCO_DATA_DIR")
    if not folder:
        parser.error("set LCO_DATA_DIR to the folder with gsm8k_test.jsonl and math500.jsonl")
    rng = random.Random(0)
    parts: dict[str, list[Pair]] = {}
    for file in ("gsm8k_test.jsonl", "math500.jsonl"):
        for name, pairs in thirds(Path(folder), file, options.samples, rng).items():
            parts[f"{file.removesuffix('.jsonl')}, {name}"] = pairs
    if options.responses:
        parts["samples"] = [(record["response"], record["gold"]) for record in records(options.responses)]
    print(f"{'':<38}{'cases':>7}{'right':>7}{'verdicts/s':>12}{'p99 ms':>10}{'max ms':>10}")
    everything: list[float] = []
    with Pool(1) as pool:
        pool.start()

        def ours(text: str, gold: str) -> bool:
            return pool.verify(text, gold).correct

        for name, pairs in parts.items():
            seconds, right = timed(ours, pairs)
            everything += seconds
            print(line(name, seconds, right), flush=True)
        print(line("all", sorted(everything), 0), f"  time-outs {pool.counts['timeout']}")
        print("\nbeside math-verify, the same cases in the same run")
        theirs, mine, other = math_verify_grader(), 0.0, 0.0
        for name, pairs in parts.items():
            few = pairs[: options.compared]
            fast, right = timed(ours, few)
            slow, also = timed(theirs, few)
            mine, other = mine + sum(fast), other + sum(slow)
            print(line(f"{name}: lco.verifier", fast, right))
            print(line(f"{name}: math-verify", slow, also), f"  ratio {sum(slow) / sum(fast):.1f}", flush=True)
        print(f"all: {other / mine:.1f} times as fast as math-verify")
    print(
        f"\nstart of a pool: {start_seconds('pass'):.2f} s, under a parent with torch: {start_seconds('import torch'):.2f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
