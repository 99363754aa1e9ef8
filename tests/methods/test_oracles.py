"""Every method that has an oracle gives its loss and its gradient, in float64 and as near as float32 goes."""

import json
from pathlib import Path

import pytest
import torch

from lco.methods import METHODS
from lco.methods.invariants import gradient_of, loss_of, setting
from tests.methods.oracles import cases

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_loss_and_gradient_are_those_of_a_brute_force_over_the_vocabulary(case):
    at, method = setting(), METHODS[case.method]
    expected = case.exact(at)
    largest = float(expected.gradient.abs().max())
    assert largest > 1e-3
    for dtype, apart in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        found = gradient_of(method, case.hyper, at, dtype=dtype)
        assert float((found - expected.gradient).abs().max()) < apart * largest
        loss = loss_of(method, case.hyper, at, dtype=dtype)
        assert float(loss) == pytest.approx(expected.loss, rel=apart, abs=apart)


@pytest.mark.parametrize("name", ["dppo", "cppo", "minpro", "bapo", "capo"])
def test_what_a_method_stops_is_among_the_cases(name):
    """An oracle at which nothing is masked, clipped or left out would say nothing of that."""
    at = setting()
    stopped = [case.exact(at).stopped for case in CASES if case.method == name]
    assert any(stopped)
    assert max(stopped) < int(at.signal.mask.sum()), stopped


def test_the_committed_deviations_have_every_case_and_the_words_beside_them_their_largest_numbers():
    place = Path(__file__).parents[2] / "results" / "benchmarks"
    rows = json.loads((place / "deviations.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["case"], row["hyper"]) for row in rows] == [(case.label, case.hyper) for case in CASES]
    words = (place / "README.md").read_text(encoding="utf-8")
    assert f"{len(rows)} cases" in words
    for kind in ("float64", "float32"):
        worst = [max(rows, key=lambda row, key=f"{what}_{kind}": row[key]) for what in ("loss", "gradient")]
        cells = [
            f"{row[f'{what}_{kind}']:.1e} ({row['case']})"
            for what, row in zip(("loss", "gradient"), worst, strict=True)
        ]
        assert f"| head in {kind} | {' | '.join(cells)} |" in words
