"""Problems from JSON Lines: one object a line with at least `id`, `problem` and `answer`.

Lines end at a newline and nowhere else: some texts contain U+2028 or U+0085, at which `str.splitlines` would cut.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lco.errors import UserError
from lco.problems.records import Problem

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
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
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
    extra = {key: text_of(record, key, where) for key in OPTIONAL if record.get(key) is not None}
    return Problem(**required, **extra)


def text_of(record: dict[str, Any], key: str, where: str) -> str:
    """The value as text; a number as answer becomes its text, null and lists are refused."""
    if key not in record:
        raise UserError(f"{where}: key {key!r} is missing; a line needs id, problem and answer")
    value = record[key]
    if not isinstance(value, str):  # numbers arrive as text
        raise UserError(f"{where}: {key} is {json.dumps(value)[:40]}; give text or a number")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {key} holds half of a surrogate pair, which no tokenizer reads; mend it") from None
    return value
