"""The generators: splits that cannot leak, problems that are right, the same everywhere and every time."""

import re
import subprocess
import sys

import pytest

from lco.problems.addition import addition_problems
from lco.problems.arithmetic import (
    GAINS,
    LOSSES,
    NAMES,
    OBJECTS,
    SPLITS,
    VOCABULARY,
    Chain,
    arithmetic_problems,
    pretraining_pairs,
    split_of,
)

PROBLEM = re.compile(r"(?P<name>\w+) has (?P<start>\d+) (?P<object>\w+)(?P<changes>( \. \w+ \d+){2,4}) \?")


def read_problem(text: str) -> tuple[int, list[int]]:
    """Start and signed changes, read from the words alone."""
    match = PROBLEM.fullmatch(text)
    assert match, text
    assert match["name"] in NAMES
    assert match["object"] in OBJECTS
    changes = []
    for verb, number in re.findall(r"\. (\w+) (\d+)", match["changes"]):
        assert (verb in GAINS) != (verb in LOSSES)
        changes.append(int(number) if verb in GAINS else -int(number))
    return int(match["start"]), changes


def numbers_and_signs(text: str) -> str:
    start, changes = read_problem(text)
    return f"{start}" + "".join(f"{change:+}" for change in changes)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_and_steps_are_right(split):
    for problem in arithmetic_problems(split, 400, seed=3):
        start, changes = read_problem(problem.problem)
        assert 1 <= start <= 19
        assert all(1 <= abs(change) <= 9 for change in changes)
        total, steps = start, []
        for change in changes:
            before, total = total, total + change
            assert 0 <= total <= 20
            steps.append(f"{before} {'+' if change > 0 else '-'} {abs(change)} = {total}")
        assert problem.solution == " ; ".join([*steps, f"#### {total}"])
        assert problem.answer == str(total)
        assert problem.level == str(len(changes))
        assert set(problem.problem.split()) | set(problem.solution.split()) <= set(VOCABULARY)


def test_splits_share_no_numbers():
    keys = {split: {numbers_and_signs(p.problem) for p in arithmetic_problems(split, 1000, seed=0)} for split in SPLITS}
    keys["pretraining"] = {numbers_and_signs(problem) for problem, _ in pretraining_pairs(2000, seed=0)}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["test"] & keys["validation"]
    assert not keys["pretraining"] & (keys["test"] | keys["validation"])


def test_split_depends_on_numbers_and_signs_alone():
    """Other names, objects and verbs around the same numbers: the same key, so the same split."""
    texts: dict[str, set[str]] = {}
    splits: dict[str, set[str]] = {}
    for split in SPLITS:
        for seed in range(2):
            for problem in arithmetic_problems(split, 800, seed):
                key = numbers_and_signs(problem.problem)
                texts.setdefault(key, set()).add(problem.problem)
                splits.setdefault(key, set()).add(split)
    repeated = [key for key in texts if len(texts[key]) > 1]
    assert len(repeated) > 50
    assert all(len(splits[key]) == 1 for key in texts)


def test_split_shares_and_pinned_values():
    keys = [
        Chain(start, (left, right)).key for start in range(1, 20) for left in range(1, 10) for right in range(1, 10)
    ]
    shares = {split: sum(split_of(key) == split for key in keys) / len(keys) for split in SPLITS}
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert shares["test"] == pytest.approx(0.1, abs=0.03)
    assert shares["validation"] == pytest.approx(0.1, abs=0.03)
    assert Chain(12, (-5, 8)).key == "12-5+8"
    # A change of the hash would move problems from training to test: committed weights rely on these.
    assert [split_of(key) for key in PINNED] == list(PINNED.values())


PINNED = {"12-5+8": "train", "1+1+1": "train", "19-9-9": "train", "16-2+5": "validation", "4+2+8-6+5": "train"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_problems_repeat_no_numbers(split):
    problems = arithmetic_problems(split, 600, seed=1)
    assert len({numbers_and_signs(problem.problem) for problem in problems}) == 600


@pytest.mark.parametrize("split", SPLITS)
def test_ids_are_distinct_also_between_seeds(split):
    ids = [problem.id for seed in range(2) for problem in arithmetic_problems(split, 300, seed)]
    assert len(set(ids)) == 600


def test_same_arguments_same_problems_also_in_another_process():
    code = (
        "from lco.problems.arithmetic import arithmetic_problems, pretraining_pairs\n"
        "from lco.problems.addition import addition_problems\n"
        "print(arithmetic_problems('test', 20, 5), pretraining_pairs(20, 5), addition_problems('train', 20, 5))"
    )
    here = f"{arithmetic_problems('test', 20, 5)} {pretraining_pairs(20, 5)} {addition_problems('train', 20, 5)}"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here
    assert arithmetic_problems("test", 40, 5)[:20] == arithmetic_problems("test", 20, 5)
    assert arithmetic_problems("test", 20, 6) != arithmetic_problems("test", 20, 5)


def test_pretraining_text_is_of_the_intended_quality():
    careful = right = 0
    pairs = pretraining_pairs(4000, seed=0)
    for problem, response in pairs:
        start, changes = read_problem(problem)
        *steps, last = response.split(" ; ")
        assert last.split()[0] == "####"
        assert len(steps) <= len(changes)
        assert set(response.split()) <= set(VOCABULARY)
        before = start
        for step, change in zip(steps, changes, strict=False):
            left, sign, size, equals, after = step.split()
            assert (int(left), sign, int(size), equals) == (before, "+" if change > 0 else "-", abs(change), "=")
            before = int(after)
        careful += len(steps) == len(changes)
        right += int(last.split()[1]) == start + sum(changes)
    assert careful / len(pairs) == pytest.approx(0.45, abs=0.03)
    assert right / len(pairs) == pytest.approx(0.71, abs=0.03)


@pytest.mark.parametrize("make", [arithmetic_problems, addition_problems])
def test_unknown_split_names_the_valid_ones(make):
    with pytest.raises(ValueError, match=r"'dev'.*'train', 'validation', 'test'"):
        make("dev", 1, 0)
    with pytest.raises(ValueError, match="-1"):
        make("test", -1, 0)
    assert make("test", 0, 0) == []


@pytest.mark.parametrize("digits", [1, 2])
def test_additions_are_right_and_splits_disjoint(digits):
    pairs = {}
    for split in SPLITS:
        problems = addition_problems(split, 120, seed=0, digits=digits)
        assert len({problem.id for problem in problems}) == 120
        for problem in problems:
            match = re.fullmatch(r"What is (\d+) \+ (\d+)\?", problem.problem)
            assert match
            assert int(match[1]) + int(match[2]) == int(problem.answer)
            assert max(int(match[1]), int(match[2])) < 10**digits
        pairs[split] = {problem.problem for problem in problems}
    assert not pairs["train"] & pairs["test"]
    assert not pairs["train"] & pairs["validation"]
    assert not pairs["test"] & pairs["validation"]
    assert addition_problems("train", 50, 0, digits) == addition_problems("train", 50, 0, digits)


def test_additions_use_every_pair_before_one_repeats():
    available = sum(split_of(f"{left}+{right}") == "train" for left in range(10) for right in range(10))
    problems = [problem.problem for problem in addition_problems("train", 2 * available, seed=4)]
    assert len(set(problems[:available])) == available
    assert len(set(problems[available:])) == available


def test_additions_need_a_digit():
    with pytest.raises(ValueError, match="digits is 0"):
        addition_problems("train", 1, 0, digits=0)
