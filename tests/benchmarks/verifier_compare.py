"""Compare graders on the same cases: this verifier, math-verify with its recommended settings, and plain box comparison.

    python -m tests.benchmarks.verifier_compare tests/verifier/cases/*.tsv

A file is a table (sign, reference, answer, rule; separated by tabs, = for right and ≠ for wrong) or JSON Lines with
"response", "gold" and "correct". math-verify runs in this process, as its users run it. It hands the model's text to
Python's own evaluation, so texts that the guards call harmful are not given to it and count as refused, in its favour.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from lco.verifier.find.extract import find_answer
from lco.verifier.read.guards import check_answer
from lco.verifier.rules import Rules
from lco.verifier.tree import RefusedError
from lco.verifier.workers.pool import Pool

Grader = Callable[[str, str], bool]
_RULES = Rules()


class Labelled(NamedTuple):
    """A response, its reference and what a person says."""

    response: str
    gold: str
    right: bool


class Score(NamedTuple):
    """How a grader did: counts, and seconds of single verdicts."""

    name: str
    cases: int
    false_positives: int
    false_negatives: int
    seconds: list[float]

    def row(self) -> str:
        """The line of the printed table."""
        ordered = sorted(self.seconds)
        errors = self.false_positives + self.false_negatives
        p50, p99 = (ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] * 1e3 for share in (0.5, 0.99))
        return (
            f"{self.name:<24}{100 * (1 - errors / self.cases):>9.2f} %{self.false_positives:>8}{self.false_negatives:>8}"
            f"{p50:>11.3f}{p99:>11.2f}{self.cases / sum(ordered):>14.0f}"
        )


HEADER = f"{'grader':<24}{'accuracy':>11}{'false +':>8}{'false -':>8}{'p50 ms':>11}{'p99 ms':>11}{'verdicts/s':>14}"


def read_cases(paths: Iterable[Path]) -> list[Labelled]:
    """The cases of tables and JSON Lines files."""
    cases = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if path.suffix == ".jsonl" and line.strip():
                record = json.loads(line)
                cases.append(Labelled(record["response"], record["gold"], bool(record["correct"])))
            elif path.suffix != ".jsonl" and line[:1] in ("=", "≠"):
                sign, gold, answer, *_ = line.split("\t")
                response = answer.replace("⏎", "\n") if path.stem == "extraction" else f"\\boxed{{{answer}}}"
                cases.append(Labelled(response, gold, sign == "="))
    return cases


def score(name: str, grader: Grader, cases: list[Labelled]) -> Score:
    """Run a grader over the cases, timing each verdict."""
    wrongly = [0, 0]
    seconds = []
    for case in cases:
        start = time.perf_counter()
        verdict = grader(case.response, case.gold)
        seconds.append(time.perf_counter() - start)
        if verdict != case.right:
            wrongly[0 if verdict else 1] += 1
    return Score(name, len(cases), wrongly[0], wrongly[1], seconds)


def same_box(response: str, gold: str) -> bool:
    """The comparison many training loops start with: the last box, as text, without spaces."""
    try:
        answer = find_answer(response, Rules(extraction="boxed_only"))
    except RefusedError:
        return False
    return answer is not None and answer.replace(" ", "") == gold.replace(" ", "")


def math_verify_grader() -> Grader:
    """math-verify as its documentation recommends: LaTeX for the reference, LaTeX and expressions for the answer."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def grade(response: str, gold: str) -> bool:
        try:
            check_answer(find_answer(response, _RULES) or "")
        except RefusedError as refusal:
            if refusal.reason == "forbidden_text":
                return False
        reference = parse(gold if "$" in gold else f"${gold}$", extraction_config=[LatexExtractionConfig()])
        answer = parse(response, extraction_config=[LatexExtractionConfig(), ExprExtractionConfig()])
        return bool(verify(reference, answer))

    return grade


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.verifier_compare", description="Compare graders on the same cases."
    )
    parser.add_argument("files", nargs="+", type=Path, help="tables (.tsv) or JSON Lines with response, gold, correct")
    options = parser.parse_args(arguments)
    cases = read_cases(options.files)
    if not cases:
        print("no cases in these files", file=sys.stderr)
        return 1
    print(f"{len(cases)} cases, {sum(not case.right for case in cases)} of them wrong answers")
    print(HEADER)
    with Pool(1) as pool:
        pool.start()
        print(
            score("lco.verifier", lambda response, gold: pool.verify(response, gold).correct, cases).row(), flush=True
        )
    try:
        print(score("math-verify", math_verify_grader(), cases).row(), flush=True)
    except ImportError:
        print("math-verify is not installed (it is among the development requirements)", file=sys.stderr)
    print(score("same box", same_box, cases).row())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
