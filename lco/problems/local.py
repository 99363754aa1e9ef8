"""Problems from JSON Lines: one object a line with at least `id`, `problem` and `answer`.

Lines end at a newline and nowhere else: some texts contain U+2028 or U+0085, at which `str.splitlines` would cut.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lco.errors import UserError
from lco.problems.progress import counted
from lco.problems.records import Problem

OTHER_NAMES = {
    "id": {"unique_id", "uid", "uuid", "idx", "index", "problem_id", "question_id"},
    "problem": {"question", "prompt", "input", "query", "instruction", "problem_statement"},
    "answer": {"final_answer", "ground_truth", "expected_answer", "reference_answer", "target", "label", "output"},
}
"""What public data sets call the keys that a line needs, in lower case."""

OPTIONAL = ("solution", "level", "subject", "source")


def read_problems(path: Path) -> list[Problem]:
    """All problems of a file, in order.

    Raises:
        UserError: the file is missing or empty, or a line is broken; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check --data-dir and --problems") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from None
    if is_list(text):
        raise UserError(
            f"{path} holds one JSON list; give JSON Lines, one object a line, as `jq -c '.[]' {path.name}` prints them"
        )
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    lines = text.split("\n")
    for number, line in enumerate(counted(lines, f"reading {path.name}", len(lines)), 1):
        if not line.strip():
            continue
        problem = parse_line(line, f"{path}, line {number}")
        if problem.id in seen:
            raise UserError(
                f"{path}, line {number}: id {problem.id!r} stands on line {seen[problem.id]} too; ids are unique"
            )
        seen[problem.id] = number
        problems.append(problem)
    if not problems:
        raise UserError(f"{path} holds no problem")
    return problems


def is_list(text: str) -> bool:
    """Whether a file holds a list of objects in place of one object a line."""
    return text.lstrip()[:1] == "[" and text.lstrip()[1:].lstrip()[:1] in {"{", "]"}


def parse_line(line: str, where: str) -> Problem:
    """One problem; `where` names file and line in messages."""
    try:
        # Numbers keep their spelling: 0.50 stays "0.50", and 1e400 does not become infinity.
        record = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not a JSON object ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a problem") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(record).__name__}")
    required = {key: text_of(record, key, where) for key in ("id", "problem", "answer")}
    for key, text in required.items():
        if not text.strip():
            raise UserError(f"{where}: {key} is empty; a problem without it can be neither asked nor judged")
    if "####" in required["answer"]:
        raise UserError(
            f"{where}: answer holds a worked solution (####); call that key solution, and give what follows #### as answer"
        )
    extra = {key: text_of(record, key, where) for key in OPTIONAL if record.get(key) is not None}
    return Problem(**required, **extra)


def text_of(record: dict[str, Any], key: str, where: str) -> str:
    """The value as text; a number as answer becomes its text, null and lists are refused."""
    if key not in record:
        meant = next((name for name in record if name.lower() in OTHER_NAMES[key]), None)
        remedy = (
            f"{meant!r} was probably meant, rename it to {key!r}" if meant else "a line needs id, problem and answer"
        )
        raise UserError(f"{where}: key {key!r} is missing; {remedy}")
    value = record[key]
    if not isinstance(value, str):  # numbers arrive as text
        raise UserError(f"{where}: {key} is {json.dumps(value)[:40]}; give text or a number")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {key} holds half of a surrogate pair, which no tokenizer reads; mend it") from None
    return value
