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

NOT_THE_RUN = {*PRIVATE, "save_every", "keep", "vllm_cache_gib", "track"}
"""Configuration keys that may differ between two calls that make the same run."""
WEIGHTS = "start weights"
"""The name under which the hash of the model that a run starts from is compared."""


def settings(experiment: Experiment) -> dict[str, Any]:
    """What defines a run, as a record has it."""
    values = rounded(dataclasses.asdict(experiment))
    return {name: value for name, value in values.items() if name not in NOT_THE_RUN}


def read_object(path: Path) -> dict[str, Any]:
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


def settings_in_record(path: Path) -> dict[str, Any]:
    """What a record says that it was made from: its own values, those of its configuration, the hash of the start weights."""
    record = read_object(path)
    return {**record, **record.get("experiment", {}), **weights_in(record)}


def settings_in_folder(run: Path) -> dict[str, Any]:
    """What a run folder, finished or not, says that it is made from."""
    manifest = run / "manifest.json"
    return {**read_object(run / "config.json"), **(weights_in(read_object(manifest)) if manifest.exists() else {})}


def weights_in(found: Mapping[str, Any]) -> dict[str, str]:
    """{WEIGHTS: hash} of a record or manifest that has one."""
    digest = found.get("model", {}).get("sha256")
    return {WEIGHTS: digest} if digest else {}


def weights_of(model: str, dtype: str) -> dict[str, str]:
    """{WEIGHTS: hash} of a model's folder or hub id, as records and manifests have it. Loads the model."""
    from lco import models  # torch, which a call that finds nothing to compare does without

    return {WEIGHTS: models.weights_sha256(models.load_model(model, dtype, "cpu"))}


def refuse_another(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str) -> None:
    """
    Raises:
        UserError: a setting that both name differs in six digits. What only one of them names cannot be compared: older
            records lack younger settings.
    """
    for name in wanted:
        if name in found and rounded(found[name]) != rounded(wanted[name]):
            was, now = found[name], wanted[name]
            raise UserError(f"{path} was made with {name} {was!r}, and this call asks for {now!r}; {remedy}")
