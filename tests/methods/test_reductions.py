"""A reduction that a run chooses: what every method does under it, what is refused, and where it is written down."""

import dataclasses
import itertools
import json

import pytest
import torch

from lco.config import REDUCTIONS, Experiment, dump
from lco.errors import UserError
from lco.evidence.records import distil
from lco.losses import ALIKE, token_scale
from lco.methods import METHODS
from lco.methods.invariants import (
    depends_on_micro_batches,
    depends_on_row_order,
    follows_its_value,
    gradient_of,
    misses_its_slope,
    reads_padding,
    setting,
)
from lco.methods.pages import page
from lco.training.resolve import resolve
from tests.conftest import lines, small, train

CHOSEN = [
    (name, reduction)
    for name, method in METHODS.items()
    for reduction in method.reductions
    if reduction != method.reduction
]
REFUSED = {
    "dpo": "is a loss of pairs",
    "sage": "is a loss of pairs",
    "preference_verifier": "is a loss of pairs",
    "lco_rho": "averages tokens with A > 0 and with A < 0 apart",
    "capo": "weighs the tokens that stay",
    "dr_capo": "weighs the tokens that stay",
    "rein_capo": "weighs the tokens that stay",
}


@pytest.mark.parametrize(("name", "reduction"), CHOSEN)
def test_under_a_chosen_reduction_micro_batches_change_nothing(name, reduction):
    """Nor do padding and the order of rows; and the gradient is that of the value."""
    method = METHODS[name].with_reduction(reduction)
    assert method.bind().reduction == reduction
    assert not depends_on_micro_batches(method, {})
    assert not depends_on_row_order(method, {})
    assert not reads_padding(method, {})
    assert not follows_its_value(method, {}) or not misses_its_slope(method, {})


@pytest.mark.parametrize(("name", "reduction"), CHOSEN)
def test_it_changes_the_weights_of_tokens_and_nothing_else(name, reduction):
    """The gradient is the method's own, token by token times the quotient of the weights."""
    own, at = METHODS[name], setting()
    mask = at.signal.mask
    before, after = (token_scale(mask, kind, limit=at.signal.length_limit) for kind in (own.reduction, reduction))
    if own.scope == "row":  # a row's loss reaches its tokens through each other
        rows = [m.sum(1, keepdim=True) for m in (before, after)]
        before, after = (r.expand_as(mask) for r in rows)
    quotient = torch.where(mask & (before > 0), after / before.clamp(min=1e-12), 0.0)[..., None]
    found = gradient_of(own.with_reduction(reduction), {}, at)
    torch.testing.assert_close(found, gradient_of(own, {}, at) * quotient.double(), rtol=1e-5, atol=1e-9)


def test_without_one_the_method_is_the_same_object():
    for method in METHODS.values():
        assert method.with_reduction("") is method
        assert method.with_reduction(method.reduction) is method
        assert method.own_reduction if set(method.reductions) < set(REDUCTIONS) else not method.own_reduction
    assert json.loads(dump(Experiment()))["reduction"] == ""
    assert set(ALIKE) < set(REDUCTIONS)


@pytest.mark.parametrize("name", REFUSED)
def test_a_reduction_that_would_make_another_method_is_refused_and_says_why(name):
    for reduction in set(REDUCTIONS) - {METHODS[name].reduction}:
        with pytest.raises(
            UserError, match=rf"reduction is '{reduction}', but {name} {REFUSED[name]}.*; leave it out$"
        ):
            METHODS[name].with_reduction(reduction)


@pytest.mark.parametrize("name", ["bapo", "bapo_code", "oblr_po"])
def test_where_all_tokens_have_to_weigh_alike_the_others_are_named(name):
    others = ", ".join(kind for kind in ALIKE if kind != METHODS[name].reduction)
    with pytest.raises(UserError, match=f"seq_mean_token_mean', but {name} .*; give {others}, or leave it out"):
        METHODS[name].with_reduction("seq_mean_token_mean")


def test_every_method_takes_any_other_or_says_why_not():
    """Nobody is refused without a reason that stands here."""
    assert {name for name, m in METHODS.items() if not m.reductions} == set(REFUSED)
    restricted = {name for name, m in METHODS.items() if m.reductions and set(m.reductions) != set(REDUCTIONS)}
    assert restricted == {"bapo", "bapo_code", "oblr_po"}


def test_grpo_by_tokens_is_dapo_without_its_parts():
    at = setting()
    plain = gradient_of(METHODS["dapo"], {"clip_high": 0.2}, at)
    torch.testing.assert_close(
        gradient_of(METHODS["grpo"].with_reduction("token_mean"), {}, at), plain, rtol=1e-6, atol=1e-9
    )


def test_pages_say_what_a_run_may_choose():
    assert "\nreduction: token_mean (--reduction seq_mean_token_mean, seq_mean_token_sum, " in page(METHODS["lco_mse"])
    assert "\nreduction: pair_mean; no other, for dpo is a loss of pairs" in page(METHODS["dpo"])
    assert "; no other, for bapo counts every token" in page(METHODS["bapo"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reduction": "row_mean"}, "reduction is 'row_mean'"),
        ({"method": "capo", "reduction": "token_mean"}, "reduction is 'token_mean', but capo weighs"),
    ],
)
def test_mistakes_are_said_before_a_model_is_loaded(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        resolve(dataclasses.replace(small(tmp_path / "run"), model="nowhere", **changes))


def test_micro_batches_change_no_update_under_a_chosen_reduction(tmp_path):
    """Whole runs: the divisor is the minibatch's, the record names what divided, and another reduction is another run."""
    norms = {}
    for reduction, size in itertools.product(("", "seq_mean_token_sum"), (3, 16)):
        run = small(
            tmp_path / f"{reduction}{size}", method="grpo", reduction=reduction, steps=1, eval_every=0, micro_batch=size
        )
        folder = train(run)
        norms[reduction, size] = lines(folder)[0]["gradient_norm"]
        record = distil(folder)
        assert record["experiment"]["reduction"] == reduction
        assert record["reduction"] == (reduction or METHODS["grpo"].reduction)
    for reduction in ("", "seq_mean_token_sum"):
        assert norms[reduction, 3] == pytest.approx(norms[reduction, 16], rel=1e-3)
    assert norms["", 3] != pytest.approx(norms["seq_mean_token_sum", 3], rel=0.1)
