"""How long a step takes in one checkout of the suite against another, both in turn in one run of this script.

    python scripts/compare_speed.py BEFORE AFTER                                   the miniature, GRPO
    python scripts/compare_speed.py BEFORE AFTER -- --method lco_kld               the same with LCO-KLD
    python scripts/compare_speed.py BEFORE AFTER --rounds 6 --steps 2 -- --model DIR --problems addition \\
        --prompt number_only --prompts-per-step 4 --samples 4 --max-new-tokens 48 --micro-batch 16 --minibatches 1 --epochs 1

What stands behind `--` are flags of `lco train` (paths absolute), added to those of the miniature's runs. In each round
both checkouts make the same run of `--steps` rollouts, and one before them that is not counted: each by its own `lco train`,
in a process that lives through all rounds, so that nothing is started or imported while time is taken. Which of the two
goes first changes from round to round. Times are those of metrics.jsonl: whole steps (`total`) and their phases.

The machine's speed drifts within minutes, so a round's ratio AFTER / BEFORE is formed of neighbours in time, each the
median of its run's steps. Printed are the median of the ratios and an interval that holds the true median with at least
95 % probability whatever the times' distribution (it lies between two order statistics, and takes 6 rounds). Where it holds
1, the two are equally fast as far as this run can tell; its width says how far that is. Both checkouts must make as many
tokens in every step, as they do from equal seeds; where they do not, there is no ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkout_process import CheckoutProcess
from kept_runs import START, ComparisonError, digest, start_models

MINIATURE = (
    "--method grpo --problems arithmetic --extraction hash --limit 20000 --max-prompt-tokens 32 --prompts-per-step 32 "
    "--samples 8 --minibatches 4 --epochs 2 --micro-batch 64 --lr 1e-4 --critic-lr 1e-4 --device cpu"
)
SIDES = ("before", "after")
CONFIDENCE = 0.95

Steps = list[dict[str, float]]
"""Of one run: {phase: seconds} and "tokens" of every counted rollout."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        rounds = measure(options)
    except ComparisonError as error:
        print(f"compare_speed: {error}", file=sys.stderr)
        return 2
    print(report(rounds))
    if options.out:
        record = {
            "flags": options.flags,
            "threads": options.threads,
            "source": {side: digest(getattr(options, side)) for side in SIDES},
            "rounds": rounds,
        }
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s BEFORE AFTER [options] [-- FLAG …]",
    )
    parser.add_argument("before", type=Path, metavar="BEFORE", help="checkout whose speed is 1")
    parser.add_argument("after", type=Path, metavar="AFTER", help="checkout that is measured against it")
    parser.add_argument("--rounds", type=int, default=10, help="runs of each checkout (default: 10)")
    parser.add_argument("--steps", type=int, default=3, help="rollouts of a run that count (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all times here, as JSON")
    options = parser.parse_args(given[:split])
    options.flags = given[split + 1 :]
    return options


def measure(options: argparse.Namespace) -> list[dict[str, Steps]]:
    """{side: its steps} of every round.

    Raises:
        ComparisonError: a checkout refuses the run, or they make different tokens.
    """
    start = start_models([options.before / place for place in START])
    flags = ["--model", str(start / "llama"), *MINIATURE.split(), *options.flags]
    processes = {side: CheckoutProcess(getattr(options, side), options.threads) for side in SIDES}
    rounds: list[dict[str, Steps]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="lco-speed-") as place:
            for number in range(options.rounds):
                found = {}
                for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                    folder = Path(place) / f"{number}-{side}"
                    found[side] = run_once(processes[side], flags, options.steps, folder)
                refuse_other_work(found)
                rounds.append(found)
                print(f"round {number + 1} of {options.rounds}: {ratio_of(found, 'total'):.3f}", file=sys.stderr)
    finally:
        for process in processes.values():
            process.close()
    return rounds


def run_once(process: CheckoutProcess, flags: Sequence[str], steps: int, folder: Path) -> Steps:
    """One `lco train` of `steps` rollouts, after one that is not counted.

    Raises:
        ComparisonError: it is refused, or it makes fewer updates than rollouts.
    """
    folder.mkdir()
    arguments = ["train", *flags, "--steps", str(steps + 1), "--eval-every", "0", "--out", str(folder / "run")]
    outcome = process.run(arguments, folder / "log.txt")
    if outcome.code:
        raise ComparisonError(f"{process.checkout} does not run this: {outcome.message}")
    text = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.split("\n") if line]
    return [{**line["seconds"], "tokens": line["tokens"]} for line in lines[1:]]


def refuse_other_work(found: dict[str, Steps]) -> None:
    """
    Raises:
        ComparisonError: the two sides did not make as many tokens in every step.
    """
    before, after = ([int(step["tokens"]) for step in found[side]] for side in SIDES)
    if before != after:
        raise ComparisonError(f"BEFORE makes {before} tokens and AFTER {after}: times of different work are no ratio")


def ratio_of(found: dict[str, Steps], phase: str) -> float:
    """AFTER / BEFORE of one round, of the medians over its steps; nan where the phase takes no time."""
    before, after = (statistics.median(step.get(phase, 0.0) for step in found[side]) for side in SIDES)
    return after / before if before else math.nan


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The k-th smallest and the k-th largest of independent values, k as large as it may be for the true median to lie between
    them with `confidence`; None where there are too few.

    The number of values below the median is binomial(n, ½), so the interval misses it with 2 Σ_{i<k} C(n, i) / 2ⁿ.
    """
    ordered, count, missed, k = sorted(values), len(values), 0.0, 0
    while k < count / 2 and missed + 2 * math.comb(count, k) / 2**count <= 1 - confidence:
        missed += 2 * math.comb(count, k) / 2**count
        k += 1
    return (ordered[k - 1], ordered[-k]) if k else None


def report(rounds: Sequence[dict[str, Steps]]) -> str:
    """Steps' seconds and ratios, whole and by phase."""
    last = rounds[-1]["before"]
    lines = [f"{'':12}{'before':>10}{'after':>10}{'ratio':>8}   between, with 95 %"]
    for phase in ("total", *(name for name in last[0] if name not in ("total", "tokens"))):
        seconds = [
            statistics.median(step.get(phase, 0.0) for found in rounds for step in found[side]) for side in SIDES
        ]
        if not all(seconds):
            continue
        ratios = [ratio_of(found, phase) for found in rounds]
        held = interval(ratios)
        spread = f"{held[0]:.3f} and {held[1]:.3f}" if held else "too few rounds"
        lines.append(f"{phase:12}{seconds[0]:>8.3f} s{seconds[1]:>8.3f} s{statistics.median(ratios):>8.3f}   {spread}")
    tokens = statistics.median(step["tokens"] for found in rounds for step in found["before"])
    return "\n".join([*lines, f"{len(rounds)} rounds, {len(last)} steps each, {tokens:.0f} response tokens a step"])


if __name__ == "__main__":
    sys.exit(main())
