"""One case, from response to verdict, without a deadline: what both the caller's process and the workers run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lco.verifier.compare.answers import Answers
from lco.verifier.compare.simplified import is_simplified
from lco.verifier.find.extract import Found, find_answer
from lco.verifier.numbers.effort import Effort, NeedsWorkerError
from lco.verifier.numbers.ladder import Ladder, Prover
from lco.verifier.patterns import regex
from lco.verifier.read.guards import check_answer, check_response
from lco.verifier.read.numerals import has_foreign_digit
from lco.verifier.read.readings import is_empty, read, read_reference
from lco.verifier.read.tokens import clean, drop_dollars
from lco.verifier.read.words import is_speech
from lco.verifier.rules import Rules
from lco.verifier.tree import Node, RefusedError, UndefinedError, UnreadableError

_SPACE = regex(r"(?<!\d) | (?!\d)")

# Characters of answer and reference that are read in the caller's process; longer ones go to a worker with its
# deadline.
LIGHT = 1_000
# CPU time that the comparison may take there before a worker takes over.
CALLER_SECONDS = 0.25


class Judgement(NamedTuple):
    """A verdict without its time."""

    correct: bool
    extracted: str | None
    reason: str


def _silent(text: str) -> None:
    del text


def judge(
    response: str, gold: str, rules: Rules, prover: Prover | None = None, note: Callable[[str], None] = _silent
) -> Judgement:
    """The judgement of one response. Raises NeedsWorkerError if it takes a worker: for a proof, or for its length or cost."""
    found = find(response, rules, note)
    return found if isinstance(found, Judgement) else judge_answer(found, gold, rules, prover, note)


def find(response: str, rules: Rules, note: Callable[[str], None] = _silent) -> Found | Judgement:
    """The answer in the response, or the judgement that there is none."""
    try:
        check_response(response)
        return find_answer(response, rules, note) or Judgement(False, None, "no_answer")
    except RefusedError as refusal:
        note(str(refusal))
        return Judgement(False, None, refusal.reason)


def judge_answer(
    found: Found, gold: str, rules: Rules, prover: Prover | None = None, note: Callable[[str], None] = _silent
) -> Judgement:
    """The judgement of an answer that has been found. Raises NeedsWorkerError as `judge` does."""
    try:
        correct, reason = _compare(found, gold, rules, prover, note)
    except RefusedError as refusal:
        note(str(refusal))
        correct, reason = False, refusal.reason
    except RecursionError:
        correct, reason = False, "too_deep"
    return Judgement(correct, None if reason == "no_answer" else found.text, reason)


def _compare(
    found: Found, gold: str, rules: Rules, prover: Prover | None, note: Callable[[str], None]
) -> tuple[bool, str]:
    answer = found.text
    check_answer(answer)
    if is_empty(answer):
        return False, "empty_answer"
    if has_foreign_digit(answer):
        note("a digit is none of its base")
        return False, "undefined"
    if answer != gold and is_empty(gold):
        note("the reference is empty")
        return False, "unreadable_reference"
    if rules.string_shortcut and not rules.require_simplified and _same_text(answer, gold):
        note("the texts are the same")
        return True, "same_text"
    if prover is None and len(answer) + len(gold) > LIGHT:
        raise NeedsWorkerError
    try:
        references = read_reference(gold)
    except (UnreadableError, RefusedError) as error:
        note(f"the reference cannot be read as mathematics ({error}); only the same text would be right")
        return (True, "same_text") if _same_text(answer, gold) else (False, "unreadable_reference")
    try:
        readings = read(answer)
    except UnreadableError as error:
        note(f"the answer cannot be read: {error}")
        return False, "no_answer" if found.by_place else "unreadable"
    prose = found.by_place and (is_speech(answer) or all(map(_is_prose, readings)))
    if prose and not any(map(_is_wordy, references)):
        note("the line is prose and the reference is mathematics: no answer was given")
        return False, "no_answer"
    if note is not _silent:
        for label, nodes in (("reference", references), ("answer", readings)):
            note(f"the {label} is read as " + ", or ".join(show(node) for node in nodes))
    return _over_readings(references, readings, rules, prover, note)


def _over_readings(
    references: tuple[Node, ...],
    readings: tuple[Node, ...],
    rules: Rules,
    prover: Prover | None,
    note: Callable[[str], None],
) -> tuple[bool, str]:
    """Right if any reading of the answer equals any of the reference's."""
    ladder = Ladder(rules.relative_tolerance, prover, note, Effort(CALLER_SECONDS if prover is None else None))
    answers = Answers(ladder, note)
    wanted: NeedsWorkerError | None = None
    refused: RefusedError | None = None
    reason = "different"
    for reading in readings:
        for reference in references:
            try:
                if answers.equal(reference, reading):
                    if rules.require_simplified and is_simplified(reference) and not is_simplified(reading):
                        return False, "not_simplified"
                    return True, "proved" if ladder.proved else "equal"
            except NeedsWorkerError as error:
                wanted = error
            except UndefinedError as error:
                note(f"no value: {error}")
                reason = "undefined"
            except RefusedError as error:
                refused = error
            except UnreadableError as error:
                note(f"not comparable: {error}")
    if wanted is not None:
        raise wanted
    if refused is not None:
        raise refused
    if reason == "different" and not all(_may_have_value(reading, ladder) for reading in readings):
        reason = "undefined"
    return False, reason if reason != "different" else answers.reason


def _may_have_value(node: Node, ladder: Ladder) -> bool:
    """Whether a scalar answer has a value at all; other answers are taken to have one."""
    try:
        return ladder.has_value(node)
    except (UnreadableError, RefusedError, KeyError):
        return True


def _is_prose(node: Node) -> bool:
    return node.kind == "text" or (node.kind == "list" and all(map(_is_prose, node.args)))


def _is_wordy(node: Node) -> bool:
    """Whether a reference is met by words: a name, a choice, a day, no solution."""
    return _is_prose(node) or node.kind in ("choice", "date", "time", "nothing", "reals")


def _same_text(answer: str, gold: str) -> bool:
    if answer == gold:
        return True
    return _squeezed(answer) == _squeezed(gold)


def _squeezed(text: str) -> str:
    """The text without spaces, except between digits, where they may be all that keeps two numbers apart."""
    return _SPACE.sub("", drop_dollars(clean(text)))


_SIGNS = {"add": " + ", "mul": "·", "div": "/", "pow": "^", "list": ", ", "union": " ∪ ", "ratio": ":"}


def show(node: Node) -> str:
    """The tree as a person would write it, for --explain."""
    parts = [show(part) for part in node.args]
    kind = node.kind
    if kind in _SIGNS:
        inner = _SIGNS[kind].join(parts)
        return f"({inner})" if kind in ("add", "div", "pow", "mul") else inner
    if kind in ("num", "sym", "const", "text", "choice"):
        return f"“{node.value}”" if kind in ("text", "choice") else str(node.value)
    if kind == "neg":
        return f"-{parts[0]}"
    if kind == "seq":
        return f"{node.value[0]}{', '.join(parts)}{node.value[1]}"
    if kind == "set":
        return f"{{{', '.join(parts)}}}"
    if kind == "rel":
        return parts[0] + "".join(f" {sign} {part}" for sign, part in zip(node.value, parts[1:], strict=True))
    if kind == "quantity":
        return f"{parts[0]} [{node.value}]"
    label = kind if node.value is None else f"{kind} {node.value}" if kind != "fn" else str(node.value)
    return f"{label}({', '.join(parts)})" if parts else label
