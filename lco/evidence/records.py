"""Result records: what is committed of a run, small, validated, and tied by hashes to what it was distilled from.

A record names a model and the hash of its weights, never a path. Tables, figures and the page read nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lco.errors import UserError

SCHEMA = "lco-result/1"
CURVES = (
    *("accuracy", "entropy", "gradient_norm", "kl_old", "ratio_outside", "response_length", "truncated", "no_answer"),
    *("sampler_gap_mean", "updates_skipped"),
)
KEYS = ("schema", "experiment", "model", "seed", "method", "budget", "curves", "evaluations", "seconds", "provenance",
        "problems_sha256", "source_sha256")  # fmt: skip
PRIVATE = ("model", "data_dir", "out")
"""Configuration keys that may hold a path; a record leaves them out."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def distil(run: Path, evaluations: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The record of a finished run folder, with what `lco.evaluation` found for its model.

    Raises:
        UserError: the folder is not that of a run.
    """
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        lines = read_lines(run / "metrics.jsonl")
    except OSError as error:
        raise UserError(f"{run} is not a finished run: {error.strerror} ({error.filename})") from None
    steps = [line for line in lines if line["step"] > 0]
    return rounded(
        {
            "schema": SCHEMA,
            "experiment": {key: value for key, value in config.items() if key not in PRIVATE},
            "method": config["method"],
            "seed": config["seed"],
            "model": manifest["model"],
            "budget": {
                "rollouts": len(steps),
                "rows": sum(line["rows"] for line in steps),
                "updates": sum(line["updates"] for line in steps),
                "response_tokens": sum(line["tokens"] for line in steps),
            },
            "curves": curves(lines),
            "evaluations": [distil_evaluation(found) for found in evaluations],
            "seconds": seconds(steps),
            "provenance": {
                key: manifest[key] for key in ("git", "packages", "torch_wheel_sha256", "python", "hardware")
            },
            "problems_sha256": manifest["problems_sha256"],
            "source_sha256": {
                name: hashlib.sha256((run / name).read_bytes()).hexdigest()
                for name in ("config.json", "manifest.json", "metrics.jsonl")
            },
        }
    )


def curves(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Arrays over rollouts, and over the validations among them."""
    steps = [line for line in lines if line["step"] > 0]
    watched = [line for line in lines if "validation" in line]
    found: dict[str, Any] = {"step": [line["step"] for line in steps]}
    for name in CURVES:
        if any(line.get(name) is not None for line in steps):
            found[name] = [line.get(name) for line in steps]
    if watched:
        found["validation"] = {
            "step": [line["step"] for line in watched],
            "pass@1": [line["validation"]["pass@1"] for line in watched],
            "greedy": [line["validation"]["greedy"] for line in watched],
        }
    return found


def seconds(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds by phase, over all rollouts."""
    names = dict.fromkeys(name for line in steps for name in line["seconds"])
    return {name: sum(line["seconds"].get(name, 0.0) for line in steps) for name in names}


def distil_evaluation(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, scores and counts per problem; the responses stay in the run folder."""
    counts = {key: [p[key] for p in found["problems"]] for key in ("correct", "no_answer", "truncated")}
    sizes = {p["n"] for p in found["problems"]}
    return {
        "task": found["task"],
        "sampling": found["sampling"],
        "limit": found["limit"],
        "scores": found["scores"],
        "problems": len(found["problems"]),
        "samples": sizes.pop() if len(sizes) == 1 else None,
        "ids_sha256": hashlib.sha256("\n".join(p["id"] for p in found["problems"]).encode()).hexdigest(),
        "correct": counts["correct"],
    }


def rounded(value: Any, digits: int = 6) -> Any:
    """Floats to six significant digits, so that records stay small and diffs readable."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Indented JSON with every array of numbers on one line; temporary name, then rename."""
    validate(record, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(layout(record) + "\n", encoding="utf-8")
    temporary.replace(path)


def layout(value: Any, indent: int = 0) -> str:
    pad = "  " * (indent + 1)
    if isinstance(value, Mapping) and value:
        inner = ",\n".join(f"{pad}{json.dumps(key)}: {layout(item, indent + 1)}" for key, item in value.items())
        return "{\n" + inner + "\n" + "  " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inner = ",\n".join(pad + layout(item, indent + 1) for item in value)
        return "[\n" + inner + "\n" + "  " * indent + "]"
    return json.dumps(value, ensure_ascii=False)


def validate(record: Mapping[str, Any], where: str) -> None:
    """Refuses what is not a record of this schema.

    Raises:
        UserError: another schema, or a missing key, named with the file.
    """
    if record.get("schema") != SCHEMA:
        raise UserError(f"{where}: schema is {record.get('schema')!r}; this version reads {SCHEMA!r}")
    for key in KEYS:
        if key not in record:
            raise UserError(f"{where}: key {key!r} is missing from the record")


def read_all(folder: Path) -> list[dict[str, Any]]:
    """All result records below a folder, in order of their paths; other JSON files are passed over.

    Raises:
        UserError: no record, a file that is not JSON, or a broken record.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
        if isinstance(record, dict) and str(record.get("schema", "")).startswith("lco-result/"):
            validate(record, str(path))
            found.append(record)
    if not found:
        raise UserError(f"there is no result record below {folder}; make one with `make reproduce`")
    return found
