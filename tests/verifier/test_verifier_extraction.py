"""Where an answer may stand, for every strictness."""

from __future__ import annotations

import pytest

from lco.verifier import Rules, verify, with_open_thought
from lco.verifier.find.extract import find_answer
from lco.verifier.rules import EXTRACTIONS

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
    found = find_answer(response, Rules(extraction=extraction))
    assert (found and found.text) == expected


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


@pytest.mark.parametrize("gold", ["", " ", "$ $", "\\,", "\\text{ }", "."])
def test_an_empty_reference_is_met_by_nothing(gold: str) -> None:
    for response in (
        "<answer></answer>",
        "\\boxed{}",
        f"\\boxed{{{gold}}}",
        "\\boxed{\\,}",
        "\\boxed{0}",
        "\\boxed{\\emptyset}",
    ):
        assert not verify(response, gold).correct


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


UNFINISHED = [
    "It might be \\boxed{41}. But wait, I should check",
    "It might be 41.\n#### 41\nBut",
    "<answer>41</answer> is what I think, but",
    "The answer is 41",
    "41",
]


@pytest.mark.parametrize("extraction", EXTRACTIONS)
@pytest.mark.parametrize("response", UNFINISHED)
@pytest.mark.parametrize("tag", ["<think>", "<think>\n", "<thinking>", "[THINK]", "<seed:think>", "<reasoning>\n\n"])
def test_a_thought_that_the_prompt_has_opened_holds_no_answer(extraction: str, response: str, tag: str) -> None:
    judged = with_open_thought(f"What is 40 + 1?\n{tag}", response)
    verdict = verify(judged, "41", Rules(extraction=extraction))
    assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "no_answer")


def test_behind_a_closed_thought_the_answer_counts() -> None:
    prompt = "What is 40 + 1?<think>\n"
    for response, right in (
        ("Perhaps \\boxed{40}.</think>It is \\boxed{41}.", True),
        ("It is \\boxed{41}.</think>It is \\boxed{40}.", False),
        ("It is \\boxed{41}.</think>", False),
        ("It is \\boxed{41}.</think>So <think>it is", False),
    ):
        assert verify(with_open_thought(prompt, response), "41").correct is right


@pytest.mark.parametrize("prompt", ["", "What?", "<think>Add.</think>What?", "Write <think>…</think> first.\n"])
def test_a_prompt_without_an_open_thought_changes_nothing(prompt: str) -> None:
    assert with_open_thought(prompt, "\\boxed{41}") == "\\boxed{41}"


@pytest.mark.parametrize(
    "line",
    [
        "I am not able to work this one out",
        "Sorry, I cannot help with that.",
        "First we note that the sum of the angles is",
        "Let us begin by writing the equation in another form and then",
        "I do not know",
        "no",
        "Let x be",
        "So we",
    ],
)
@pytest.mark.parametrize("extraction", ["lenient", "last_line"])
def test_a_line_of_prose_is_no_answer_where_mathematics_is_asked(line: str, extraction: str) -> None:
    for gold in ("42", "\\frac{1}{2}", "x^2+1", "(1,2)"):
        verdict = verify(line, gold, Rules(extraction=extraction))
        assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "no_answer")


@pytest.mark.parametrize(
    ("line", "gold"),
    [("Saturday", "\\text{Sunday}"), ("blue", "\\text{red}"), ("no", "\\text{Yes}"), ("B", "(C)"), ("B", "42")],
)
def test_words_and_letters_stay_answers(line: str, gold: str) -> None:
    verdict = verify(line, gold)
    assert (verdict.correct, verdict.extracted) == (False, line)


def test_prose_in_a_box_is_a_wrong_answer_and_not_none() -> None:
    verdict = verify("\\boxed{\\text{I do not know}}", "42")
    assert (verdict.correct, verdict.extracted) == (False, "\\text{I do not know}")
