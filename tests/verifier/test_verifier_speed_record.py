"""What is said of the verifier's speed is what the committed record has."""

import json
from pathlib import Path

import pytest

RECORD = json.loads(Path("results/benchmarks/verifier_speed.json").read_text(encoding="utf-8"))


def test_the_words_beside_the_verifiers_speed_are_the_records():
    words = Path("results/benchmarks/README.md").read_text(encoding="utf-8")
    ratios = {row["cases"]: row["ratio"] for row in RECORD["beside"] if "ratio" in row}
    for data, title in (("gsm8k_test", "GSM8K"), ("math500", "MATH-500")):
        cells = [ratios[f"{data}, {third}"] for third in ("identical", "rewritten", "near miss")]
        assert f"| {title} | {' | '.join(map(str, cells))} |" in words
    assert f"{RECORD['ratio']} times over all" in words
    assert f"{RECORD['ratio']} times as fast" in Path("docs/verifier.md").read_text(encoding="utf-8")


def test_the_ratio_is_that_of_the_seconds_of_both():
    seconds = dict.fromkeys(("lco.verifier", "math-verify"), 0.0)
    for row in RECORD["beside"]:
        seconds[row["grader"]] += row["count"] / row["verdicts_per_second"]
    assert seconds["math-verify"] / seconds["lco.verifier"] == pytest.approx(RECORD["ratio"], rel=0.01)
