"""Fixtures of the verifier's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lco.verifier import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """One pool for all tests that do not harm it."""
    with Pool(1) as shared:
        yield shared


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the reference answers of the benchmarks."""
    folder = os.environ.get("LCO_DATA_DIR", "")
    if not folder or not Path(folder).is_dir():
        pytest.fail(
            "set LCO_DATA_DIR to the folder that holds gsm8k_test.jsonl, math500.jsonl and the other data files"
        )
    return Path(folder)
