"""Methods that are not the suite's: `path/to/file.py:NAME`, or announced by an installed package.

[project.entry-points."lco.methods"]          # in the package's pyproject.toml
my_method = "my_package.my_module:MY_METHOD"
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lco import outside
from lco.errors import UserError

if TYPE_CHECKING:
    from lco.methods.method import Method

GROUP = "lco.methods"


@dataclass(frozen=True)
class Found:
    """A method from outside.

    Attributes:
        method: it.
        code: where it came from, for manifests and records: {"method": hash of its file}, and the package that it is of.
    """

    method: Method
    code: dict[str, str]


@cache
def announced() -> dict[str, EntryPoint]:
    """{name: where} of the methods of installed packages; nothing of theirs is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def from_file(place: str, taken: Container[str]) -> Found:
    """
    Args:
        taken: the names of the suite's own methods.

    Raises:
        UserError: no such file or name, or what it names is no method that can stand beside the suite's.
    """
    found = outside.load(place, "method")
    return Found(checked(found.value, place, taken), {"method": found.sha256})


def from_package(name: str, taken: Container[str]) -> Found:
    """
    Raises:
        UserError: the package cannot be imported, or what it announces is no method of that name.
    """
    point = announced()[name]
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
    try:
        value = point.load()
    except Exception as error:
        raise UserError(
            f"the method {name!r} of {package} cannot be loaded ({type(error).__name__}: {error}); mend or remove that package"
        ) from None
    method = checked(value, f"{point.value} of {package}", taken)
    if method.name != name:
        raise UserError(
            f"{package} announces a method {name!r} that calls itself {method.name!r}; give both one name in that package"
        )
    return Found(method, {"method": hash_of_module(point.module), "package": package})


def checked(value: Any, where: str, taken: Container[str]) -> Method:
    """
    Raises:
        UserError: it is no Method, or its name is the suite's or cannot name a folder.
    """
    from lco.methods.method import Method  # torch, which a mistyped name does without

    if not isinstance(value, Method):
        raise UserError(
            f"{where} is no method but of type {type(value).__name__}; give a lco.methods.method.Method "
            "(`lco methods --new NAME` writes a file that has one)"
        )
    if value.name in taken:
        raise UserError(f"{where} calls itself {value.name!r}, as a method of the suite; give it another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value.name):
        raise UserError(
            f"{where} calls itself {value.name!r}, which names no folder; give letters, digits, _ and - alone"
        )
    return value


def hash_of_module(name: str) -> str:
    """The hash of a module's file, "" where it has none."""
    spec = find_spec(name)
    file = Path(spec.origin) if spec is not None and spec.origin else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else ""
