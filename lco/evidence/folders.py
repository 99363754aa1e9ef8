"""Files that appear in a folder together, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lco.errors import UserError


@contextmanager
def replacing(folder: Path, files: str) -> Iterator[Path]:
    """A place beside the folder's own files to write new ones, which take the place of those of their names at the end.

    Args:
        files: what they are, for the message.

    Raises:
        UserError: the folder cannot be written: read-only, no room left, or not a folder. It is as it was before.
    """
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in sorted(partial.iterdir()):
            file.replace(folder / file.name)
    except OSError as error:
        raise UserError(
            f"{files} cannot be written into {folder} ({error.strerror or error}); give another --out, with some MiB of room"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
