"""`lco card`: a finished run → the model card in its exported folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lco.disk import full_disk_named, write_text
from lco.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes RUN/checkpoints/final/README.md, the model card of a run's last model: method and knobs, data, scores with "
        "intervals from the results in RUN/evals, cost, hashes, and the base model's licence where its folder says it."
    )
    parser.epilog = "example: lco card runs/gsm8k/lco_kld/seed-0"
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "--evaluations",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="results of `lco evaluate` for the run's last model (default: those in RUN/evals)",
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="the run's record, for the hash of the plan that it belongs to"
    )
    parser.add_argument("--force", action="store_true", help="take the place of a README that `lco card` did not write")


def run(arguments: argparse.Namespace) -> int:
    place = write_card(arguments.run, arguments.evaluations, arguments.record, arguments.force)
    print(f"{arguments.run} → {place}")
    return 0


def write_card(folder: Path, files: list[Path] | None, record_file: Path | None, force: bool) -> Path:
    """Writes the card; returns its place.

    Raises:
        UserError: no finished run, results of another model, a record of another run, or a README of somebody's own in the way.
    """
    from lco.evidence import records  # numpy, and torch for the hash of weights, which --help does without
    from lco.evidence.card import MARK, licence_of, render_card
    from lco.evidence.record_command import hash_of_final, read_result

    final = folder / "checkpoints" / "final"
    results = {file: read_result(file) for file in (files or sorted((folder / "evals").glob("*.json")))}
    record = records.distil(folder, results.values(), hash_of_final(folder, results))
    if not final.is_dir():
        raise UserError(f"{folder} has no checkpoints/final that a card could describe; finish it with --resume")
    if record_file is not None:
        record["plan_sha256"] = plan_of(record_file, record)
    place = final / "README.md"
    if place.exists() and MARK not in place.read_text(encoding="utf-8", errors="replace") and not force:
        raise UserError(f"{place} was not written by lco card; move it away, or give --force to replace it")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    base, hub_id = base_model(config["model"])
    text = render_card(record, licence_of(base), hub_id, manifest["problems_used"])
    with full_disk_named(final, "free some space, then call again"):
        write_text(place, text)
    return place


def base_model(model: str) -> tuple[Path | None, str]:
    """(the folder of a run's base model where there is one on this machine, its hub id or "")."""
    from lco.models.place import cached  # torch comes with its folder

    path = Path(model).expanduser()
    if path.exists():
        return (path if path.is_dir() else path.parent), ""
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        return None, ""  # a folder that is no longer there
    try:
        return Path(cached(model)), model
    except UserError:  # not in the cache: what its folder says is not known here
        return None, model


def plan_of(file: Path, record: Mapping[str, Any]) -> str | None:
    """The hash of the plan that a record names.

    Raises:
        UserError: it is no record, or one of another run.
    """
    from lco.evidence import records  # as above

    found = records.read_json(file) if file.is_file() else None
    if found is None:
        raise UserError(f"{file} is no result record; make one with `lco record`")
    if found["source_sha256"] != record["source_sha256"]:
        raise UserError(f"{file} is the record of another run; give that of this one")
    plan: str | None = found.get("plan_sha256")
    return plan
