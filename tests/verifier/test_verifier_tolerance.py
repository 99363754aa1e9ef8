"""A relative tolerance is for numbers, wherever they stand, and for nothing else."""

from __future__ import annotations

import pytest
from verifier_helpers import CASES, table

from lco.verifier import Pool, Rules, verify


def test_the_table_of_tolerance(pool: Pool) -> None:
    cases = list(table(CASES / "tolerance.tsv"))
    verdicts = pool.verify_many([(case.response, case.gold) for case in cases], Rules(relative_tolerance=0.01))
    wrong = [case for case, verdict in zip(cases, verdicts, strict=True) if verdict.correct != case.right]
    assert wrong == []


@pytest.mark.parametrize(("answer", "right"), [("101", True), ("99", True), ("101.01", False), ("98.99", False)])
def test_the_bound_itself_is_within(answer: str, right: bool) -> None:
    assert verify(f"\\boxed{{{answer}}}", "100", Rules(relative_tolerance=0.01)).correct == right
    assert not verify(f"\\boxed{{{answer}}}", "100").correct
