"""How fast is the verifier on real answers, beside math-verify in the same run on the same core?

    LCO_DATA_DIR=… python -m tests.benchmarks.verifier_speed [--samples 1500] [--responses FILE.jsonl] [--out RECORD.json]

GSM8K and MATH-500 solutions are the responses, in thirds: as they are, with the answer rewritten to an equal one, and with
one digit, sign, bracket or element changed. `--responses` adds a file of real samples ({"response", "gold"} a line).
Each third is timed apart; seconds are those of single verdicts on one core, waiting for proofs included. Beside math-verify the
two take turns case by case, so that whatever else the machine does meanwhile slows both.
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
from typing import Any

from lco.disk import write_json
from lco.provenance import collect
from lco.verifier import Pool
from tests.benchmarks.verifier_compare import Grader, math_verify_grader
from tests.verifier.verifier_helpers import near_misses, rewritten

ROOT = Path(__file__).resolve().parents[2]

OURS, THEIRS = "lco.verifier", "math-verify"

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


def timed(graders: dict[str, Grader], pairs: list[Pair]) -> dict[str, tuple[list[float], int]]:
    """{grader: (seconds of every verdict in ascending order, how many said right)}, each case by all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in graders}
    right = dict.fromkeys(graders, 0)
    for text, gold in pairs:
        for name, grader in graders.items():
            start = time.perf_counter()
            right[name] += bool(grader(text, gold))
            seconds[name].append(time.perf_counter() - start)
    return {name: (sorted(seconds[name]), right[name]) for name in graders}


def row(name: str, seconds: list[float], right: int | None) -> dict[str, Any]:
    """What is printed and recorded of some verdicts' seconds, in ascending order."""
    return {
        "cases": name,
        "count": len(seconds),
        "right": right,
        "verdicts_per_second": round(len(seconds) / sum(seconds), 1),
        "p99_ms": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))] * 1e3, 3),
        "max_ms": round(seconds[-1] * 1e3, 3),
    }


def line(found: dict[str, Any], name: str = "") -> str:
    """A row of the printed table."""
    right = "" if found["right"] is None else found["right"]
    return (
        f"{name or found['cases']:<38}{found['count']:>7}{right:>7}{found['verdicts_per_second']:>12.0f}"
        f"{found['p99_ms']:>10.2f}{found['max_ms']:>10.1f}"
    )


def start_seconds(parent: str) -> float:
    """How long a pool takes to start under a parent that has run this code first."""
    program = (
        f"{parent}\nimport time\nfrom lco.verifier import Pool\nstart = time.perf_counter()\n"
        "with Pool(1) as pool:\n    pool.start()\n    print(time.perf_counter() - start)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def cases(folder: Path, samples: int, responses: Path | None) -> dict[str, list[Pair]]:
    """{name: (response, reference) of each case}, every part by itself."""
    rng = random.Random(0)
    parts: dict[str, list[Pair]] = {}
    for file in ("gsm8k_test.jsonl", "math500.jsonl"):
        for name, pairs in thirds(folder, file, samples, rng).items():
            parts[f"{file.removesuffix('.jsonl')}, {name}"] = pairs
    if responses:
        parts["samples"] = [(record["response"], record["gold"]) for record in records(responses)]
    return parts


def measure_alone(pool: Pool, parts: dict[str, list[Pair]]) -> list[dict[str, Any]]:
    """Prints and returns the verifier's row for every part, and for all of them."""
    rows, everything = [], list[float]()
    for name, pairs in parts.items():
        seconds, right = timed({OURS: lambda text, gold: pool.verify(text, gold).correct}, pairs)[OURS]
        everything += seconds
        rows.append(row(name, seconds, right))
        print(line(rows[-1]), flush=True)
    rows.append({**row("all", sorted(everything), None), "timeouts": pool.counts["timeout"]})
    print(line(rows[-1]), f"  time-outs {pool.counts['timeout']}")
    return rows


def measure_beside(pool: Pool, parts: dict[str, list[Pair]], compared: int) -> tuple[list[dict[str, Any]], float]:
    """Prints and returns both graders' rows for the first cases of every part, and how often as fast the verifier is."""
    graders = {OURS: lambda text, gold: pool.verify(text, gold).correct, THEIRS: math_verify_grader()}
    timed(graders, [("so \\boxed{\\frac12}", "0.5")])  # what is loaded at the first call counts for neither
    rows, total = [], dict.fromkeys(graders, 0.0)
    for name, pairs in parts.items():
        found = timed(graders, pairs[:compared])
        ratio = round(sum(found[THEIRS][0]) / sum(found[OURS][0]), 1)
        for grader, (seconds, right) in found.items():
            total[grader] += sum(seconds)
            rows.append(
                {**row(name, seconds, right), "grader": grader, **({"ratio": ratio} if grader == THEIRS else {})}
            )
            said = f"  ratio {ratio:.1f}" if grader == THEIRS else ""
            print(line(rows[-1], f"{name}: {grader}"), said, flush=True)
    return rows, round(total[THEIRS] / total[OURS], 1)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1_500, help="records of each data file")
    parser.add_argument("--compared", type=int, default=100, help="records of each third that math-verify judges too")
    parser.add_argument("--responses", type=Path, help="JSON Lines of real samples, {response, gold}")
    parser.add_argument("--out", type=Path, help="store the record there")
    options = parser.parse_args()
    folder = os.environ.get("LCO_DATA_DIR")
    if not folder:
        parser.error("set LCO_DATA_DIR to the folder with gsm8k_test.jsonl and math500.jsonl")
    parts = cases(Path(folder), options.samples, options.responses)
    print(f"{'':<38}{'cases':>7}{'right':>7}{'verdicts/s':>12}{'p99 ms':>10}{'max ms':>10}")
    with Pool(1) as pool:
        pool.start()
        alone = measure_alone(pool, parts)
    print("\nbeside math-verify, the same cases in turn")
    with Pool(1) as pool:  # a new one, which has met none of them
        pool.start()
        beside, ratio = measure_beside(pool, parts, options.compared)
    print(f"all: {ratio:.1f} times as fast as math-verify")
    starts = {"plain": start_seconds("pass"), "under torch": start_seconds("import torch")}
    print(f"\nstart of a pool: {starts['plain']:.2f} s, under a parent with torch: {starts['under torch']:.2f} s")
    if options.out:
        found = {"rows": alone, "beside": beside, "ratio": ratio, "pool_start_seconds": starts}
        settings = {"samples": options.samples, "compared": options.compared}
        write_json(options.out, {"schema": "lco-benchmark/1", **settings, **found, "provenance": collect()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
