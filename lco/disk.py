"""Files that are whole or absent, also after a power cut: written to a temporary name, flushed and renamed, appended line by
line, hashed."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lco.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""What the system says where nothing more can be written."""

FULL_IN_WORDS = ("No space left on device", "PytorchStreamWriter failed", "Read-only file system", "File too large")
"""How libraries that hide the system's error say it."""


def write_text(path: Path, text: str) -> None:
    """Writes to a temporary name, flushes and renames, so that a reader finds the old file or the new one, whatever happens
    in between. Makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; null where a number is not finite."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON object as one line, on disk before the call returns; null where a number is not finite."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(value), ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder durable: a rename is on disk only once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Makes every file below a folder durable, and the names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(folder)


def in_words(size: float) -> str:
    """Bytes as a person reads them: 3.2 GiB."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(len(units) - 1, int(math.log(max(1.0, size), 1024)))
    return f"{size / 1024**power:.3g} {units[power]}"


def check_space(folder: Path, wanted: int, what: str) -> None:
    """
    Raises:
        UserError: less is free where `folder` lies than `what` (a few words) takes.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise UserError(
            f"{what}: about {in_words(wanted)} are wanted in {folder}, but only {in_words(free)} are free; free some space or "
            "write elsewhere"
        )


@contextmanager
def full_disk_named(folder: Path, remedy: str) -> Iterator[None]:
    """Turns the failure of any write below into one sentence.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors has a class of its own that derives from no other
        words = str(error)
        if getattr(error, "errno", None) not in FULL and not any(known in words for known in FULL_IN_WORDS):
            raise
        place = getattr(error, "filename", None) or folder
        free = in_words(shutil.disk_usage(folder).free)
        raise UserError(f"cannot write {place}: {words.splitlines()[0]} ({free} free); {remedy}") from None
