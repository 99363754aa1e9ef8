"""The tables of cases are judged as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from verifier_helpers import all_cases, table, tables

from lco.verifier import Pool, Rules
from lco.verifier.explain import MEANINGS


@pytest.mark.parametrize("path", tables(), ids=lambda path: path.stem)
def test_every_case_of_the_table_is_judged_as_it_says(path: Path, pool: Pool) -> None:
    cases = list(table(path))
    verdicts = pool.verify_many([(case.response, case.gold) for case in cases])
    wrong = [
        f"{path.name}:{case.line} {case.gold} {'=' if case.right else '≠'} {case.answer}: {verdict.reason}"
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict.correct != case.right
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", tables(), ids=lambda path: path.stem)
def test_the_shortcut_for_equal_texts_changes_no_verdict(path: Path, pool: Pool) -> None:
    cases = list(table(path))
    pairs = [(case.response, case.gold) for case in cases]
    with_shortcut = [verdict.correct for verdict in pool.verify_many(pairs)]
    without = [verdict.correct for verdict in pool.verify_many(pairs, Rules(string_shortcut=False))]
    assert with_shortcut == without


@pytest.mark.parametrize("text", ["9_8", "29_{9}", "9_{\\text{eight}}", "N = 12_{2}"])
def test_digits_that_a_base_lacks_are_no_number_even_where_the_reference_has_them(text: str, pool: Pool) -> None:
    verdict = pool.verify(f"\\boxed{{{text}}}", text)
    assert (verdict.correct, verdict.reason) == (False, "undefined")


def test_an_empty_index_is_no_base(pool: Pool) -> None:
    assert not pool.verify("\\boxed{5_{}}", "7").correct
    assert pool.verify("\\boxed{5_{}}", "7").reason != "failed"


def test_a_box_that_is_taken_back_is_none_however_boxes_are_sought(pool: Pool) -> None:
    rules = Rules(extraction="boxed_only")
    assert not pool.verify("\\boxed{5}. Wait, that's wrong, it is 6.", "5", rules).correct
    assert pool.verify("\\boxed{5}. Wait, let me check: 2 + 3 is 5.", "5", rules).correct


def test_long_blanks_behind_a_box_cost_nothing(pool: Pool) -> None:
    assert pool.verify("\\boxed{5}" + "\n" * 200_000, "5").seconds < 1


def test_the_tables_are_large_and_hard_enough() -> None:
    cases = all_cases()
    assert len(cases) >= 600
    assert sum(not case.right for case in cases) >= 0.4 * len(cases)
    assert len({(case.gold, case.answer) for case in cases}) == len(cases), "a case stands in the tables twice"


def test_every_reason_given_is_a_documented_one(pool: Pool) -> None:
    verdicts = pool.verify_many([(case.response, case.gold) for case in all_cases()])
    assert {verdict.reason for verdict in verdicts} <= set(MEANINGS)
    documentation = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")
    assert [reason for reason in MEANINGS if f"`{reason}`" not in documentation] == []
