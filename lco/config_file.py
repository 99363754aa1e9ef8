"""Configuration files: JSON, YAML or TOML by their ending, read into plain values and written from an experiment."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from lco.config import Experiment, dump
from lco.errors import UserError, nearest

FORMS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}
"""Ending of a configuration file → its form."""


def form_of(path: str) -> str:
    """
    Raises:
        UserError: the file ends in something else.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMS:
        raise UserError(f"the configuration {path} ends in {ending!r}{nearest(ending, FORMS)}")
    return FORMS[ending]


def read(path: str) -> dict[str, Any]:
    """The keys of a configuration file.

    Raises:
        UserError: it cannot be read, or is not one object.
    """
    form = form_of(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"the configuration {path} is not UTF-8 text (byte {error.start}); convert it") from None
    values = {"JSON": from_json, "YAML": from_yaml, "TOML": from_toml}[form](text, path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected one {form} object with the keys of `lco train --print-config`")
    return values


def from_json(text: str, path: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def from_toml(text: str, path: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not TOML ({error})") from None


def from_yaml(text: str, path: str) -> Any:
    """YAML as its version 1.2 has it: 1e-6 is a number, `on` and `no` are words, and no key stands there twice."""
    import yaml  # which a JSON configuration does without

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
            if twice is not None:
                raise UserError(
                    f"{path}, line {node.start_mark.line + 1}: {twice!r} stands there twice; leave one of them out"
                )
            return super().construct_mapping(node, deep)

    plain = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag not in plain]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    number = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)  # a safe loader: plain values alone
    except yaml.YAMLError as error:
        raise not_yaml(path, error) from None


def not_yaml(path: str | Path, error: Exception) -> UserError:
    """What YAML's own library says is wrong with a file, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    return UserError(f"{path}{line}: not YAML ({problem or ' '.join(str(error).split())})")


def write(experiment: Experiment, form: str) -> str:
    """The whole configuration as text, which `read` gives back as it was."""
    if form == "JSON":
        return dump(experiment)
    values = dataclasses.asdict(experiment)
    if form == "TOML":
        return to_toml(values)
    import yaml  # which a JSON configuration does without

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def to_toml(values: dict[str, Any]) -> str:
    """Plain values, then a table for each object among them. TOML's strings are JSON's."""
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {toml_value(value)}" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{json.dumps(key)} = {toml_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
