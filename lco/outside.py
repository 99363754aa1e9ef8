"""Code of the user's own: an object in a Python file, named on a command line as `path/to/file.py:NAME`.

Whoever names a file runs it, with all that it may do: it is the user's own code. A file is run only because a person has
typed its name, never because a run folder or a record speaks of it (`refuse_untyped`).
"""

from __future__ import annotations

import ast
import hashlib
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.errors import UserError, nearest


@dataclass(frozen=True)
class Outside:
    """What a file gave.

    Attributes:
        value: the object of that name.
        sha256: of the file, as it was when it was run.
    """

    value: Any
    sha256: str


def is_place(name: str) -> bool:
    """Whether a name is that of a file's object rather than one that the suite or a package knows."""
    return ".py:" in name or name.endswith(".py")


def label(name: str) -> str:
    """What a folder is called after: of a place its NAME."""
    return name.rpartition(":")[2] if is_place(name) else name


def load(place: str, kind: str) -> Outside:
    """Runs a file, once for each of its contents, and takes an object from it.

    Args:
        place: `path/to/file.py:NAME`.
        kind: what it should be, as the messages call it ("method", "reward").

    Raises:
        UserError: no such file or name in it, or the file cannot be run; the message has the nearest name.
    """
    path, _, name = place.partition(".py:")
    file = Path(path + ".py" if name or not path.endswith(".py") else path)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); name a {kind} as path/to/file.py:NAME") from None
    digest = hashlib.sha256(source).hexdigest()
    module = run(file, source, digest)
    if not name:
        own = ", ".join(defined(source)) or "none"
        raise UserError(f"{file} is given without a name in it; write {file}:NAME (it has {own})")
    if name not in vars(module):
        raise UserError(f"{file} has no {name!r}{nearest(name, defined(source))}")
    return Outside(vars(module)[name], digest)


def run(file: Path, source: bytes, digest: str) -> types.ModuleType:
    """The file as a module of its own; one that was run before is not run again.

    Raises:
        UserError: it ends in an error, which the message names.
    """
    title = f"lco_outside_{hashlib.sha256(f'{file.resolve()} {digest}'.encode()).hexdigest()[:16]}"
    if title in sys.modules:
        return sys.modules[title]
    module = types.ModuleType(title)
    module.__file__ = str(file)
    sys.modules[title] = module  # where dataclasses look for the names of annotations
    try:
        exec(compile(source, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[title]
        raise UserError(f"{file} cannot be run: {type(error).__name__}: {error}{where_in(file, error)}") from None
    return module


def defined(source: bytes) -> list[str]:
    """The names that a file gives at its top level, without what it imports."""
    found: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in found if not name.startswith("_")]


def where_in(file: Path, error: BaseException) -> str:
    """` (line 3)`: the last line of the file that an error came through; "" where there is none."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == str(file):
            line = at.tb_lineno
        at = at.tb_next
    return "" if line is None else f" (line {line})"


def refuse_untyped(flags: Mapping[str, Sequence[str]], folder: str) -> None:
    """
    Args:
        flags: flag → its words, some of which name files.

    Raises:
        UserError: only a run folder speaks of these files, and nobody has typed them.
    """
    files = [word.partition("=")[0] for words in flags.values() for word in words if is_place(word)]
    if files:
        typed = " ".join(f"{flag} {' '.join(words)}" for flag, words in flags.items())
        raise UserError(
            f"the run in {folder} was made with code from {' and '.join(files)}, which no folder's word alone runs; name it "
            f"again with {typed}"
        )
