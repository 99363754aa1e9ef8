"""What the doors into other trainers share: which release of the other program they are for, and which losses they carry."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lco.errors import UserError, nearest
from lco.methods import METHODS
from lco.methods.lco_common import SPARSE
from lco.methods.objective import Objective

LOSSES = ("lco_kld", "lco_mse", "lco_lch")


def require_release(package: str, series: str, tested: str) -> None:
    """Holds the installed release against the one whose internals were read, before anything of it is imported.

    Args:
        series: the beginning that its version must have, as in "1.16.".
        tested: the release that the tests run with.

    Raises:
        UserError: none is installed, or one of another series.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = ""
    if not found.startswith(series):
        there = f"{package} {found} is installed" if found else f"no {package} is installed"
        raise UserError(
            f"lco.integrations.{package} is written for {package} {tested}, but {there}; pip install {package}=={tested}"
        )


def bind_sparse_loss(method: str, hyper: Mapping[str, Any] | None) -> Objective:
    """One of the paper's three losses with its knobs bound, for a trainer that computes the advantages itself.

    Raises:
        UserError: another method, a knob that it does not have, an advantage (the trainer's own is taken), or an estimator
            that reads a second model.
    """
    if method not in LOSSES:
        raise UserError(f"method is {method!r}{nearest(method, LOSSES)}")
    hyper = dict(hyper or {})
    if "advantage" in hyper:
        raise UserError(
            f"advantage is {hyper['advantage']!r}, but the trainer computes it; leave it out and set the trainer's own"
        )
    objective = METHODS[method].bind(hyper)
    if hyper.get("estimator", "sparse") not in SPARSE:
        raise UserError(
            f"estimator is {hyper['estimator']!r}, which reads a model that the trainer does not have; give {' or '.join(SPARSE)}"
        )
    return objective
