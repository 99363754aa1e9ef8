"""LCO's knob `advantage`: every registered method that learns from rewards lends its advantage, with what that reads."""

from dataclasses import replace

import pytest
import torch

from lco.methods import METHODS
from lco.methods.invariants import rollout

LENDERS = [name for name, m in METHODS.items() if m.source == "rollouts" and "advantage" not in m.hyperparameters]


@pytest.mark.parametrize("name", LENDERS)
def test_every_lent_advantage_is_the_methods_own_from_what_lco_asks_of_the_loop(name):
    *_, signal = rollout()
    borrowed, own = METHODS["lco_kld"].bind({"advantage": name}), METHODS[name].bind()
    needs = borrowed.needs
    given = replace(
        signal,
        values=signal.values if borrowed.critic else None,
        ref_logprob=signal.ref_logprob if needs.reference else None,
        old_logprob=signal.old_logprob if needs.old_logprob else None,
        row_norms=signal.row_norms if needs.row_norms else None,
    )
    found, meant = borrowed.advantage(given), own.advantage(signal)
    assert "advantage" in found
    assert all(torch.equal(value, meant[key]) for key, value in found.items())
    assert (needs.group, needs.row_norms) == (own.needs.group, own.needs.row_norms)


def test_what_only_the_lending_methods_loss_reads_is_not_asked_for():
    needs = METHODS["lco_kld"].bind({"advantage": "cppo"}).needs
    assert METHODS["cppo"].bind().needs.sampler_top
    assert not needs.sampler_top
    assert not needs.sampler_logprob
