"""`lco record`: a run folder → its record, or records checked.

lco evaluate --model RUN/checkpoints/final --tasks lco_gsm8k --samples 8 --temperature 1 --out RUN/evals
lco record --start START-evals/*.json records/<model>/start.json, of the model that the runs start from
lco record RUN --out records          records/<model>/<method>-seed-<n>.json, and .samples.jsonl beside it
lco record --check records/*/*.json   what is wrong with them, whoever made them
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lco.disk import full_disk_named, sha256, write_text
from lco.errors import UserError
from lco.evidence.names import row_key
from lco.evidence.samples import choose_samples
from lco.runs.folder import read_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes the record of a run, whatever made the run: its configuration, curves, cost, and the counts of every evaluation "
        "in its folder evals/. Or checks records: their form, their scores from their counts, and their hashes."
    )
    parser.epilog = (
        "example: lco record runs/gsm8k/lco_kld/seed-0 --out records; then lco record --check records/*/*.json"
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="run folders; with --check files of records, with --start results",
    )
    parser.add_argument("--out", type=Path, default=Path("records"), help="where records go (default: records)")
    parser.add_argument(
        "--evaluations",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="results of `lco evaluate` for the run's last model (default: those in RUN/evals)",
    )
    parser.add_argument("--check", action="store_true", help="check records in place of making them")
    parser.add_argument(
        "--start",
        action="store_true",
        help="make the record of the model that runs start from, by which tables know gains: PATHs are its results of `lco "
        "evaluate`, with the --dtype of the runs",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="with --check: where run folders lie that records can be held against",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        return check(arguments.paths, arguments.runs)
    if arguments.start:
        if arguments.evaluations:
            raise UserError("--evaluations belongs to a run; name the start model's results alone with --start")
        with full_disk_named(arguments.out, "free some space, or give another --out"):
            print(make_start(arguments.paths, arguments.out))
        return 0
    if arguments.evaluations and len(arguments.paths) > 1:
        raise UserError("--evaluations belongs to one run; record the runs one by one")
    for folder in arguments.paths:
        with full_disk_named(arguments.out, "free some space, or give another --out"):
            place = make(folder, arguments.evaluations, arguments.out)
        print(f"{folder} → {place}{lacking(folder, place)}")
    return 0


def lacking(folder: Path, place: Path) -> str:
    """What a run's record lacks, in brackets; "" where it has all."""
    run = read_run(folder)
    said = [] if run.done >= run.steps else [f"unfinished: {run.done} of {run.steps} rollouts"]
    said += [] if beside(place).exists() else ["no results in its evals/: nothing of it can stand in a table"]
    return f" ({'; '.join(said)})" if said else ""


def make(folder: Path, files: Sequence[Path] | None, out: Path) -> Path:
    """Writes the record of a run and its samples; returns the record's place.

    Raises:
        UserError: no run, results of another model, or another record in the way.
    """
    from lco.evidence import records  # numpy, which --help does without

    results = {file: read_result(file) for file in (files or sorted((folder / "evals").glob("*.json")))}
    final = hash_of_final(folder, results)
    samples = choose_samples(results.values())
    digest = hashlib.sha256(samples.encode()).hexdigest() if results else None
    record = records.distil(folder, results.values(), final, digest)
    place = out / record["model"]["name"] / f"{row_key(record)}-seed-{record['seed']}.json"
    return keep(place, record, samples if results else None)


def make_start(files: Sequence[Path], out: Path) -> Path:
    """Writes the record of a start model and its samples; returns the record's place.

    Raises:
        UserError: the results are of several models, or another record is in the way.
    """
    from lco.evidence import records  # numpy, which --help does without

    results = {file: read_result(file) for file in files}
    for file, found in results.items():
        if not {"provenance", "problems_sha256"} <= found.keys():
            raise UserError(f"{file} does not say what made it; make it again with `lco evaluate`")
    refuse_alike(results)
    first, model = next((file, found["model"]) for file, found in results.items())
    other = next((file for file, found in results.items() if found["model"] != model), None)
    if other is not None:
        raise UserError(f"{first} and {other} are of two models, or of two dtypes of one; record them one by one")
    samples = choose_samples(results.values())
    record = records.distil_start(list(results.values()), hashlib.sha256(samples.encode()).hexdigest())
    return keep(out / record["model"]["name"] / "start.json", record, samples)


def keep(place: Path, record: dict[str, Any], samples: str | None) -> Path:
    """Writes a record, and its samples beside it; returns its place.

    Raises:
        UserError: another record is in the way.
    """
    from lco.evidence import records  # numpy, which --help does without

    if place.exists() and not goes_on(records.read_json(place), records.sealed(record)):
        raise UserError(f"{place} holds another record; give another --out, or move it away")
    if samples is not None:
        write_text(beside(place), samples)
    records.write(place, record)
    return place


def goes_on(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> bool:
    """Whether a record is of the same run as an older one, has all its evaluations, and perhaps more."""
    if (
        old is None
        or old.get("model") != new["model"]
        or old.get("source_sha256") != new["source_sha256"]
        or old.get("final_sha256") != new["final_sha256"]
    ):
        return False
    return all(found in new["evaluations"] for found in old.get("evaluations", ()))


def beside(place: Path) -> Path:
    """The file of samples that belongs to a record's file."""
    return place.with_suffix(".samples.jsonl")


def read_result(file: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file is no result of `lco evaluate`.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); name results of `lco evaluate`") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); make it again with `lco evaluate`") from None
    if not isinstance(found, dict) or not {"task", "sampling", "problems", "responses", "model"} <= found.keys():
        raise UserError(f"{file} is no result of `lco evaluate`; name such files with --evaluations")
    return found


def hash_of_final(folder: Path, results: Mapping[Path, Mapping[str, Any]]) -> str | None:
    """The hash of the run's last model, which every result has to be of; None where nothing says it.

    Results of different dtypes hash the same weights differently, so the model is loaded as each result says.

    Raises:
        UserError: a result is of another model, or two are of the same task and sampling values.
    """
    from lco import models

    final = folder / "checkpoints" / "final"
    if not final.is_dir():
        if results:
            raise UserError(
                f"{folder} has no checkpoints/final that its evaluations could be of; finish it with --resume"
            )
        return None
    dtypes = {str(found.get("dtype", "float32")) for found in results.values()} | {"float32"}
    hashes = {dtype: models.weights_sha256(models.load_model(str(final), dtype, "cpu")) for dtype in sorted(dtypes)}
    refuse_alike(results)
    for file, found in results.items():
        if found["model"]["sha256"] != hashes[str(found.get("dtype", "float32"))]:
            raise UserError(f"{file} is of another model than {final}; evaluate that one, or leave the file out")
    return hashes["float32"]


def refuse_alike(results: Mapping[Path, Mapping[str, Any]]) -> None:
    """
    Raises:
        UserError: two results are of the same task and sampling values.
    """
    kinds: dict[tuple[Any, ...], Path] = {}
    for file, found in results.items():
        kind = (found["task"], found["limit"], json.dumps(found["sampling"], sort_keys=True))
        if kind in kinds:
            raise UserError(f"{file} and {kinds[kind]} are the same task with the same sampling values; leave one out")
        kinds[kind] = file


def check(files: Sequence[Path], runs: Path | None) -> int:
    """Says of every record whether it holds; exit code 1 where one does not.

    Raises:
        UserError: there is no folder of runs where one is named.
    """
    if runs is not None and not runs.is_dir():
        raise UserError(f"there is no folder {runs}; give the folder of the runs with --runs")
    sources = hashes_of_runs(runs)
    failed = 0
    for file in files:
        try:
            print(f"{file}: {verdict(file, sources)}")
        except UserError as error:
            failed += 1
            print(f"refused: {error}")
    return 1 if failed else 0


def verdict(file: Path, sources: Mapping[str, Mapping[str, str]]) -> str:
    """What is known of a record that is true to itself: whether it is held against its run.

    Raises:
        UserError: it is none, contradicts itself, or is not what its samples or its run say.
    """
    from lco.evidence import records
    from lco.evidence.check import RESTORE, check_intervals, validate

    if not file.is_file():
        raise UserError(f"there is no file {file}")
    record = records.read_json(file)
    if record is None:
        raise UserError(f"{file} is no result record; its key 'schema' names none")
    validate(record, str(file))
    check_intervals(record, str(file))
    if record.get("samples_sha256"):
        text = beside(file).read_bytes() if beside(file).is_file() else None
        if text is None:
            raise UserError(f"{file}: {beside(file).name} is missing beside it; {RESTORE}")
        if hashlib.sha256(text).hexdigest() != record["samples_sha256"]:
            raise UserError(f"{file}: {beside(file).name} is not the one that it was made with; {RESTORE}")
    told = record["source_sha256"]
    made_from = [
        folder for folder, found in sources.items() if found.get("manifest.json") == told.get("manifest.json", "")
    ]
    run = next(iter(made_from), None)
    if run is None:
        return "whole and true to itself; unverified, for its run is not at hand (--runs)"
    for name, digest in told.items():
        if sources[run].get(name) != digest:
            raise UserError(f"{file}: {name} of {run} is not what it was made from; {RESTORE}")
    refuse_other_than_run(file, record, Path(run))
    return f"verified against {run}"


ELSEWHERE = {"sha256", "evaluations", "final_sha256", "samples_sha256", "plan_sha256", "planned"}
"""Keys of a record that stand in none of its run's files: which model the results are of, which plan it belongs
to, and what that plan said."""


def refuse_other_than_run(file: Path, record: Mapping[str, Any], run: Path) -> None:
    """
    Raises:
        UserError: a value of the record is not what the run's files, and the results in its folder evals/, give.
    """
    from lco.evidence import records
    from lco.evidence.check import EARLIER, RESTORE

    again = records.distil(run, (read_result(result) for result in sorted((run / "evals").glob("*.json"))))
    both = (
        record.keys() & again.keys() - {"schema", "model"}
        if record["schema"] == EARLIER
        else record.keys() | again.keys()
    )
    for key in sorted(both - ELSEWHERE):
        if record.get(key) != again.get(key):
            raise UserError(f"{file}: {key} is not what {run} gives; {RESTORE}")
    for number, evaluation in enumerate(record["evaluations"]):
        if evaluation not in again["evaluations"]:
            raise UserError(f"{file}: evaluations[{number}] is none of the results in {run / 'evals'}; {RESTORE}")


def hashes_of_runs(runs: Path | None) -> dict[str, dict[str, str]]:
    """{run folder: the hashes of the files that records are made from} of all runs below a folder."""
    found: dict[str, dict[str, str]] = {}
    for manifest in sorted(runs.rglob("manifest.json")) if runs is not None else ():
        files = (manifest.with_name(name) for name in ("config.json", "manifest.json", "metrics.jsonl"))
        found[str(manifest.parent)] = {file.name: sha256(file) for file in files if file.is_file()}
    return found
