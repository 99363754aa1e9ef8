"""The doors into TRL and verl where these are not installed, or not in the release that they are written for."""

import importlib
import importlib.metadata
import re
import subprocess
import sys

import pytest

from lco.errors import UserError
from lco.integrations.peers import LOSSES, bind_sparse_loss, require_release
from lco.methods import METHODS


def is_there(package):
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.parametrize(("package", "tested"), [("trl", "1.16.0"), ("verl", "0.9.1")])
def test_without_the_other_trainer_one_sentence_says_what_to_install(package, tested):
    if is_there(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(UserError) as caught:
        importlib.import_module(f"lco.integrations.{package}")
    assert str(caught.value) == (
        f"lco.integrations.{package} is written for {package} {tested}, but no {package} is installed; "
        f"pip install {package}=={tested}"
    )


def test_another_release_is_named_with_the_one_that_fits():
    found = importlib.metadata.version("torch")
    with pytest.raises(UserError, match=re.escape(f"torch {found} is installed; pip install torch==0.1.0")):
        require_release("torch", "0.1.", "0.1.0")
    require_release("torch", found[:2], found)


def test_training_runs_where_the_other_trainers_cannot_be_imported():
    """In a process of its own, in which an import of either fails."""
    code = "import sys; sys.modules['trl'] = sys.modules['verl'] = None; import lco.training.run, lco.cli"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_three_losses_are_bound_as_they_are_registered():
    for name in LOSSES:
        assert bind_sparse_loss(name, {"beta": 0.5}).statistics == METHODS[name].bind({"beta": 0.5}).statistics


@pytest.mark.parametrize(
    ("method", "hyper", "words"),
    [
        ("lco_klb", {}, "did you mean 'lco_kld'"),
        ("grpo", {}, "valid are 'lco_kld', 'lco_mse', 'lco_lch'"),
        ("lco_kld", {"advantage": "grpo"}, "the trainer computes it"),
        ("lco_kld", {"estimator": "logprob"}, "give sparse or sparse_ips"),
        ("lco_kld", {"beta": -1.0}, "above 0"),
        ("lco_mse", {"target_spcae": "raw"}, "did you mean 'target_space'"),
    ],
)
def test_what_another_trainer_cannot_carry_is_refused_in_one_sentence(method, hyper, words):
    with pytest.raises(UserError, match=re.escape(words)):
        bind_sparse_loss(method, hyper)
