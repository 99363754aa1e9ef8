"""A run whose weights, logits or loss are no finite numbers never ends as if it had a trained model."""

import pytest

from lco.errors import UserError
from lco.rollout.records import DivergedError
from lco.training.finite import diverged_named
from lco.training.watch import watch
from tests.conftest import small, train


@pytest.mark.parametrize("method", ["sft", "dpo", "rft", "lco_kld"])
@pytest.mark.parametrize(("lr", "steps"), [(1e30, 1), (1e5, 1), (1e5, 3), (1e18, 3)])
def test_a_run_that_has_diverged_ends_in_a_sentence_and_has_no_last_model(tmp_path, method, lr, steps):
    """Whatever it learns from, with nothing sampled from its weights that could notice it, and in its last update too."""
    run = small(tmp_path / "run", method=method, lr=lr, weight_decay=0.0, steps=steps, minibatches=1, eval_every=0)
    with pytest.raises(UserError, match=r"rollout \d.*at lr (100000|1e\+\d\d)\b.*diverged"):
        train(run)
    assert not (tmp_path / "run" / "checkpoints" / "final").exists()


def test_a_resume_does_not_write_the_model_that_was_refused(tmp_path):
    run = small(tmp_path / "run", method="sft", lr=1e5, weight_decay=0.0, steps=1, minibatches=1, eval_every=0)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"after rollout 1 .*at lr 100000 the run has diverged"):
            train(run, resume=resume)
    assert not (tmp_path / "run" / "checkpoints" / "final").exists()


def test_what_cannot_be_sampled_from_is_named_with_its_rollout_and_learning_rate():
    words = r"^rollout 3 at lr 0\.5: the model's logits are no finite numbers"
    with pytest.raises(UserError, match=words), diverged_named(3, 0.5):
        raise DivergedError


def test_a_gap_that_is_no_number_is_no_small_one(tmp_path):
    """Of a sampler that draws on from logits that are none."""
    with pytest.raises(DivergedError):
        watch({"rows": 16, "sampler_gap_mean": float("nan")}, 9, small(tmp_path))
