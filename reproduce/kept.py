"""What an earlier call left is taken over only if this call would make the same.

Records and run folders save hours when an interrupted call is repeated. Under other knobs, or from other start weights,
the same file would stand in a table under a name that is not its own; so what is there is compared before work begins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lco.config import Experiment
from lco.errors import UserError
from lco.evidence.records import PRIVATE, rounded
from reproduce import setting

NOT_THE_RUN = {*PRIVATE, "save_every"}
"""Configuration keys that may differ between two calls that make the same run."""
WEIGHTS = "start weights"


def settings(experiment: Experiment) -> dict[str, Any]:
    """What defines a run, as a record has it."""
    values = rounded(dataclasses.asdict(experiment))
    return {name: value for name, value in values.items() if name not in NOT_THE_RUN}


def start_sha256(family: str) -> str:
    """Hash of the start model's weights, as records have it."""
    from lco import models  # torch, which a call that finds nothing to compare does without

    return models.weights_sha256(models.load_model(str(setting.START / family), "float32", "cpu"))


def read(path: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file is not one JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); remove the file") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected one JSON object; remove the file")
    return value


def of_record(path: Path) -> dict[str, Any]:
    """What a result record says that it was made from."""
    record = read(path)
    return {**record.get("experiment", {}), **weights(record)}


def of_run(run: Path) -> dict[str, Any]:
    """What a run folder, finished or not, says that it is made from."""
    manifest = run / "manifest.json"
    return {**rounded(read(run / "config.json")), **(weights(read(manifest)) if manifest.exists() else {})}


def weights(found: Mapping[str, Any]) -> dict[str, str]:
    digest = found.get("model", {}).get("sha256")
    return {WEIGHTS: digest} if digest else {}


def refuse_another(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str) -> None:
    """
    Raises:
        UserError: a setting that both name differs. What only one of them names cannot be compared: older records
            lack younger settings.
    """
    for name in wanted:
        if name in found and found[name] != wanted[name]:
            was, now = found[name], wanted[name]
            raise UserError(f"{path} was made with {name} {was!r}, and this call asks for {now!r}; {remedy}")


def refuse_another_run(record: Path, defined: Mapping[str, Any], run: Experiment) -> None:
    """Compares a run's record, or its folder where there is no record yet, with what this call would make.

    Args:
        record: where the record is or will be.
        defined: the part of it that is known before the run.

    Raises:
        UserError: they differ.
    """
    if record.exists():
        remedy = "remove it and its run folder to have it made again"
        refuse_another(record, read(record), defined, remedy)
    elif (run.folder / "config.json").exists():
        remedy = "give another --out, or remove this folder"
        refuse_another(run.folder, of_run(run.folder), settings(run), remedy)
