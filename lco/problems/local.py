"""Problems from files: JSON Lines with at least `problem` and `answer` on a line, one JSON list, CSV, Parquet.

Lines end at a newline and nowhere else: some texts contain U+2028 or U+0085, at which `str.splitlines` would cut.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lco.errors import UserError, nearest
from lco.problems.progress import counted
from lco.problems.records import Problem
from lco.scratch import scratch_folder

OTHER_NAMES = {
    "id": {"unique_id", "uid", "uuid", "idx", "index", "problem_id", "question_id"},
    "problem": {"question", "prompt", "input", "query", "instruction", "problem_statement"},
    "answer": {"final_answer", "ground_truth", "expected_answer", "reference_answer", "target", "label", "output"},
}
"""What public data sets call the keys that a line needs, in lower case."""

OPTIONAL = ("solution", "level", "subject", "source")
KEYS = ("id", "problem", "answer", *OPTIONAL)


ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
"""What a file of problems may end in."""

Rows = Iterator[tuple[str, str | dict[str, Any] | UserError]]
"""(where it stands, a line, an object, or what is wrong with it) of each row"""

OnFault = Callable[[UserError], None]


def is_file_name(name: str) -> bool:
    """Whether the name of some problems is that of a file."""
    return Path(name).suffix.lower() in ENDINGS


def raise_fault(fault: UserError) -> None:
    raise fault


def read_problems(
    path: Path, columns: Mapping[str, str] | None = None, on_fault: OnFault = raise_fault
) -> list[Problem]:
    """All problems of a file, in order: JSON Lines, one JSON list, CSV or Parquet.

    Args:
        columns: {problem, answer, …: what the file calls it}, where it calls it something else. A file needs no ids: the
            number of the row is one where the first row has none, with `columns`, and in tables.
        on_fault: called with what is wrong with a row, which is then left out; raises it by default.

    Raises:
        UserError: the file is missing or empty, a column is not in it, or a row is broken; names file and row.
    """
    readers: dict[str, Callable[[Path], Rows]] = {".csv": read_csv, ".parquet": read_parquet}
    ending = path.suffix.lower()
    rows = readers.get(ending, read_rows)(path)
    return problems_of(rows, str(path), columns or {}, bool(columns) or ending in readers, on_fault)


def problems_of(
    rows: Rows,
    name: str,
    columns: Mapping[str, str],
    numbered: bool,
    on_fault: OnFault = raise_fault,
) -> list[Problem]:
    """Rows, each with where it stands, → problems; see `read_problems`. `numbered` rows without an id have their number, as have
    those of a file whose first row has none."""
    stem, problems, seen = Path(name).stem, list[Problem](), dict[str, str]()
    first = next(rows, None)
    if first is None:
        raise UserError(f"{name} holds no problem")
    for number, (where, row) in enumerate(itertools.chain([first], rows), 1):
        try:
            if isinstance(row, UserError):
                raise row
            record = parse_json(row, where) if isinstance(row, str) else row
            if number == 1:
                check_columns(record, columns, name)
                numbered = numbered or not any(key.lower() in {"id"} | OTHER_NAMES["id"] for key in record)
            problem = problem_of(renamed(record, columns, f"{stem}-{number}" if numbered else ""), where)
            if problem.id in seen:
                raise UserError(f"{where}: id {problem.id!r} stands on {seen[problem.id]} too; ids are unique")
        except UserError as fault:
            on_fault(fault)
            continue
        seen[problem.id] = where.rpartition(", ")[2]
        problems.append(problem)
    return problems


def read_rows(path: Path) -> Rows:
    """(where it stands, a line or an object) of JSON Lines, or of one JSON list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check --data-dir and --problems") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from None
    if is_list(text):
        found = parse(text, str(path))
        for number, item in enumerate(counted(found, f"reading {path.name}", len(found)), 1):
            where = f"{path}, item {number}"
            yield where, item if isinstance(item, dict) else not_an_object(item, where)
        return
    lines = text.split("\n")
    for number, line in enumerate(counted(lines, f"reading {path.name}", len(lines)), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def read_csv(path: Path) -> Rows:
    """(where it stands, a row) of a CSV file with a header. Every cell is text, so that 0.50 stays 0.50."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(counted(file, f"reading {path.name}"), strict=True)
            header = next(rows, None)
            if not header:
                raise UserError(f"{path} cannot be read as CSV: it has no header; mend the file")
            for row in rows:
                if row:  # a blank line is none
                    where = f"{path}, line {rows.line_num}"
                    if len(row) == len(header):
                        yield where, dict(zip(header, row, strict=True))
                    else:
                        cells = f"{len(row)} cells under a header of {len(header)}"
                        yield where, UserError(f"{where}: {cells}; quote texts that hold commas")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check --problems") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}; mend the file") from None


def read_parquet(path: Path) -> Rows:
    """(where it stands, a row) of a Parquet file."""
    import datasets  # kept out of the commands that read no table

    if not path.is_file():
        raise UserError(f"cannot read {path}: there is no such file; check --problems")
    with scratch_folder() as cache:
        try:
            rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(cache), keep_in_memory=True).to_list()
        except Exception as error:  # whatever the library below says of a broken file
            reason = " ".join(str(error.__cause__ or error).split())[:160]
            raise UserError(f"{path} cannot be read as Parquet: {reason}; mend the file") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", as_text(row)


def as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table with its numbers as text, as JSON gives them."""
    plain = {key: value for key, value in row.items() if value is not None}
    return {k: str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in plain.items()}


def parse_columns(pairs: list[str]) -> dict[str, str]:
    """["problem=question"] → {"problem": "question"}."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UserError(f"--columns {pair!r} names no column; write problem=COLUMN answer=COLUMN")
    return {key: column for key, _, column in (pair.partition("=") for pair in pairs)}


def check_columns(record: Mapping[str, Any], columns: Mapping[str, str], name: str) -> None:
    """
    Raises:
        UserError: a column is named that the first row does not have, or for a key that no problem has.
    """
    for key, column in columns.items():
        if key not in KEYS:
            raise UserError(f"--columns {key}={column}: a problem has no {key!r}{nearest(key, KEYS)}")
        if column not in record:
            raise UserError(f"{name} has no column {column!r} for {key}{nearest(column, record)}")


def renamed(record: dict[str, Any], columns: Mapping[str, str], number: str) -> dict[str, Any]:
    """The record under a problem's own keys; with `number` as id where it has none and one is given."""
    found = {**record, **{key: record[column] for key, column in columns.items() if column in record}}
    return {"id": number, **found} if number else found


def is_list(text: str) -> bool:
    """Whether a file holds a list of objects in place of one object a line."""
    return text.lstrip()[:1] == "[" and text.lstrip()[1:].lstrip()[:1] in {"{", "]"}


def parse(text: str, where: str) -> Any:
    """Parsed JSON. Numbers keep their spelling: 0.50 stays "0.50", and 1e400 does not become infinity."""
    try:
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        raise UserError(f"{where}{line}: not a JSON object ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a problem") from None


def parse_json(line: str, where: str) -> dict[str, Any]:
    value = parse(line, where)
    if not isinstance(value, dict):
        raise not_an_object(value, where)
    return value


def not_an_object(value: Any, where: str) -> UserError:
    return UserError(f"{where}: expected a JSON object, found {type(value).__name__}")


def problem_of(record: dict[str, Any], where: str) -> Problem:
    """One problem; `where` names file and row in messages."""
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
            f"{meant!r} was probably meant, rename it to {key!r} or give --columns {key}={meant}"
            if meant
            else "a line needs problem and answer, and an id where others have one"
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
