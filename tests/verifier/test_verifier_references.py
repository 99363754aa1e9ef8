"""The reference answers of the benchmarks (they are found through LCO_DATA_DIR and are no part of the project)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from verifier_helpers import answers_of, near_misses, rewritten

from lco.verifier import Pool, Rules
from lco.verifier.read.readings import read
from lco.verifier.tree import RefusedError, UnreadableError

pytestmark = pytest.mark.long


def boxed(text: str) -> str:
    return f"\\boxed{{{text}}}"


def test_every_reference_is_read(data_folder: Path) -> None:
    unreadable, total = [], 0
    for file, _, answer in answers_of(data_folder):
        total += 1
        try:
            read(answer)
        except (UnreadableError, RefusedError):
            unreadable.append((file, answer))
    assert total > 19_000
    assert unreadable == []


@pytest.mark.parametrize("shortcut", [True, False])
def test_every_reference_equals_itself_in_a_box(data_folder: Path, pool: Pool, shortcut: bool) -> None:
    references = sorted({answer for _, _, answer in answers_of(data_folder)})
    verdicts = pool.verify_many([(boxed(text), text) for text in references], Rules(string_shortcut=shortcut))
    failed = [(text, verdict.reason) for text, verdict in zip(references, verdicts, strict=True) if not verdict.correct]
    assert failed == []


@pytest.mark.parametrize("seed", range(2))
def test_rewriting_keeps_and_a_changed_sign_breaks(data_folder: Path, pool: Pool, seed: int) -> None:
    rng = random.Random(seed)
    references = sorted({answer for _, _, answer in answers_of(data_folder)})
    same = [(boxed(rewritten(text, rng)), text) for text in references]
    other = [(boxed(miss), text) for text in references for miss in near_misses(text, rng)]
    kept = pool.verify_many(same)
    broken = pool.verify_many(other)
    wrongly_refused = [pair for pair, verdict in zip(same, kept, strict=True) if not verdict.correct]
    wrongly_accepted = [pair for pair, verdict in zip(other, broken, strict=True) if verdict.correct]
    assert (wrongly_refused, wrongly_accepted) == ([], [])
