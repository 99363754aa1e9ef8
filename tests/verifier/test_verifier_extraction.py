"""Where an answer may stand, for every strictness."""

from __future__ import annotations

import pytest

from lco.verifier import Rules, verify
from lco.verifier.find.extract import find_answer

SOLUTION = "We add: 2 + 2 = 4 apples, so 4.\n#### 4"


@pytest.mark.parametrize(
    ("extraction", "response", "expected"),
    [
        ("boxed_only", "The answer is 4.", None),
        ("boxed_only", "<answer>4</answer>", None),
        ("boxed_only", "so \\boxed{4}", "4"),
        ("boxed_only", "\\boxed{\\frac{1}{2}} then \\fbox{3}", "3"),
        ("boxed_only", "\\boxed{4", None),
        ("hash", SOLUTION, "4"),
        ("hash", "\\boxed{4}", None),
        ("hash", "####", None),
        ("hash", "#### 3\nNo:\n#### 4", "4"),
        ("answer_tag", "<answer> 4 </answer>", "4"),
        ("answer_tag", "\\boxed{4}", None),
        ("answer_tag", "<answer>so \\boxed{4}</answer>", "4"),
        ("answer_tag", "<answer>4", None),
        ("last_number", "He pays $1,250 and gets 3 back", "3"),
        ("last_number", "He pays $1,250.50", "1,250.50"),
        ("last_number", "no numbers here, none at\nall", None),
        ("last_number", "three is 3\n#### 4\nand 5", "4"),
        ("last_line", "First 3.\nx = 4", "x = 4"),
        ("whole", "  4 ", "4"),
        ("whole", "", None),
        ("lenient", "First 3.\nThen comes 4", None),
        ("lenient", SOLUTION, "4"),
        ("lenient", "", None),
        ("lenient", "Answer:", None),
        ("lenient", "The final answer is: $\\frac{1}{2}$. I hope it is correct.", "$\\frac{1}{2}$"),
        ("lenient", "The answer is \\[ x^2 \\] as shown.", "x^2"),
        ("lenient", "<think>The answer is 3</think>", None),
    ],
)
def test_extraction(extraction: str, response: str, expected: str | None) -> None:
    assert find_answer(response, Rules(extraction=extraction)) == expected


def test_the_last_box_counts_unless_boxes_must_agree() -> None:
    response = "\\boxed{3}, no, \\boxed{4}"
    assert verify(response, "4").correct
    strict = verify(response, "4", Rules(boxes="agree"))
    assert (strict.correct, strict.reason) == (False, "contradicting_boxes")
    assert verify("\\boxed{4} … \\boxed{ 4 }", "4", Rules(boxes="agree")).correct


@pytest.mark.parametrize("response", ["", "   ", "I am not sure", "\\boxed{4", "<think>\\boxed{4}"])
def test_a_response_without_an_answer_is_wrong_and_says_so(response: str) -> None:
    verdict = verify(response, "4", Rules(extraction="boxed_only"))
    assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "no_answer")


@pytest.mark.parametrize("content", ["", " ", "\\,", "?", "{}", "$$", "\\text{}"])
def test_an_empty_box_is_wrong_and_says_so(content: str) -> None:
    verdict = verify(f"\\boxed{{{content}}}", "4")
    assert (verdict.correct, verdict.reason) == (False, "empty_answer")


def test_simplified_answers_where_the_task_asks_for_them() -> None:
    strict = Rules(require_simplified=True)
    for unfinished in ("2+2", "2\\cdot 2", "\\frac{8}{2}", "2^2", "\\sqrt{16}"):
        assert verify(f"\\boxed{{{unfinished}}}", "4").correct
        assert verify(f"\\boxed{{{unfinished}}}", "4", strict).reason == "not_simplified"
    for finished, gold in (("4", "4"), ("\\frac34", "0.75"), ("1\\frac12", "1.5"), ("2\\sqrt3", "\\sqrt{12}")):
        assert verify(f"\\boxed{{{finished}}}", gold, strict).correct


@pytest.mark.parametrize(
    "field", [{"extraction": "guess"}, {"boxes": "first"}, {"relative_tolerance": -1}, {"cpu_seconds": 0}]
)
def test_rules_that_mean_nothing_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        Rules(**field)  # type: ignore[arg-type]
