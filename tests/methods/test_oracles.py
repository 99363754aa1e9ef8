"""Every method that has an oracle gives its loss and its gradient, in float64 and as near as float32 goes."""

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
