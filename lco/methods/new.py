"""`lco methods --new NAME`: one file that is a whole method, to be changed into another."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

from lco.disk import write_text
from lco.errors import UserError
from lco.methods import METHODS


def write_skeleton(name: str, folder: Path) -> str:
    """Writes NAME.py; returns the place of the method in it, as --method takes it.

    Raises:
        UserError: the name is no name for a Python variable, is taken by a method of the suite, or the file is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} cannot be the name of a method and a file; give small letters, digits and _, as in my_method"
        )
    if name in METHODS:
        raise UserError(f"{name!r} is a method of the suite; give the new one another name")
    file = folder / f"{name}.py"
    if file.exists():
        raise UserError(f"{file} is there already and stays as it is; give another name, or move it away")
    template = files("lco.methods").joinpath("skeleton.txt").read_text(encoding="utf-8")
    text = template.replace("my_method", name).replace("MY_METHOD", name.upper())
    try:
        write_text(file, text)
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror}); call this in a folder of your own") from None
    return f"{file}:{name.upper()}"
