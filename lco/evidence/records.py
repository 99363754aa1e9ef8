"""Result records: what is committed of a run, small, validated, and tied by hashes to what it was distilled from.

A record names a model and the hash of its weights, never a path. Tables, figures and the page read nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lco import disk
from lco.errors import UserError
from lco.evidence.check import SCHEMA, SEAL, seal, validate
from lco.evidence.names import naming, row_key
from lco.problems.local import is_file_name
from lco.problems.rewards import public_terms

CURVES = (
    *("rows", "tokens", "updates", "updates_skipped", "reward"),
    *("accuracy", "entropy", "gradient_norm", "kl_old", "ratio_outside", "response_length", "truncated", "no_answer"),
    *("sampler_gap_mean", "target_tv", "target_kl", "kl_target", "kl_old_exact", "tilt_clamped"),
    *("hidden_gradient_positive", "hidden_gradient_negative", "gradient_norm_positive", "gradient_norm_negative"),
    *("length_right", "length_wrong", "rows_kept", "prompts_drawn", "generation_multiplier"),
    *("clip_high", "clip_low", "weight_effective_share", "log_ratio_abs", "explained_variance"),
    *("target_kl_per_sequence", "sampled_probability"),
)
CURVES_WITH_PARAMETER = ("outside_top/", "reward/")
"""Curves whose names end in a number that the method's knobs set, or in the name of a reward's term."""
PRIVATE = ("model", "data_dir", "out")
"""Configuration keys that may hold a path and say nothing else; a record leaves them out."""

OTHER_MODELS = ("reference_model", "verifier_model", "dpo_model", "critic_model")
"""Configuration keys that name a model beside the trained one: a hub id or a path."""


def distil(
    run: Path,
    evaluations: Iterable[Mapping[str, Any]] = (),
    final: str | None = None,
    samples: str | None = None,
    plan: str | None = None,
    planned: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The record of a run folder, with what `lco.evaluation` found for its last model.

    Args:
        final: hash of that model's weights, where it is known.
        samples: hash of the file of samples beside the record, if there is one.
        plan: hash of the plan that the run belongs to, if it was planned.
        planned: what that plan said of its cost: device_hours, and memory_gib of a device.

    Raises:
        UserError: the folder is not that of a run.
    """
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        lines, peaks = read_metrics(run / "metrics.jsonl"), peak_memory(run)
    except OSError as error:
        raise UserError(
            f"there is no run in {run} that could become a record: {error.strerror} ({error.filename})"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{run}: config.json or manifest.json is not JSON ({error.msg}); no record can be made"
        ) from None
    steps = [line for line in lines if line["step"] > 0]
    skipped = sum(line.get("updates_skipped") or 0 for line in steps)
    method = name_of_method(config, manifest)
    return rounded(
        {
            "schema": SCHEMA,
            "experiment": public(config, manifest),
            "method": method,
            **naming(method, manifest.get("method", {})),
            **{key: manifest[key] for key in ("code", "reduction") if key in manifest},
            "seed": config["seed"],
            "model": {**manifest["model"], **naming_of_model(manifest["model"]["name"])},
            "final_sha256": final,
            **{key: manifest[key] for key in ("fixed_models", "critic_model") if key in manifest},
            "budget": {
                "rollouts": len(steps),
                "rows": sum(line["rows"] for line in steps),
                "updates": sum(line["updates"] for line in steps) - skipped,
                "updates_skipped": skipped,
                "response_tokens": sum(line["tokens"] for line in steps),
            },
            "curves": curves(lines),
            "evaluations": [distil_evaluation(found) for found in evaluations],
            "seconds": seconds(steps),
            "cost": cost(steps, manifest) | peaks,
            **({"planned": dict(planned)} if planned else {}),
            "plan_sha256": plan,
            "samples_sha256": samples,
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


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """
    Raises:
        UserError: a line is damaged; names it.
    """
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        try:
            found += [json.loads(line)] if line else []
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {number}: not JSON ({error.msg}); no record can be made") from None
    return found


def distil_start(
    evaluations: Sequence[Mapping[str, Any]], samples: str | None = None, plan: str | None = None,
    experiment: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The record of a model's scores before any training: what every gain is measured from.

    Args:
        evaluations: results of `lco evaluate`, one at least, all of one model.
        experiment: what else is known of it.
    """
    model, made_by = evaluations[0]["model"], evaluations[0]["provenance"]
    return rounded(
        {
            "schema": SCHEMA,
            "experiment": dict(experiment or {}),
            "method": "start",
            "seed": None,
            "model": {**model, **naming_of_model(model["name"])},
            "final_sha256": None,
            "budget": {"rollouts": 0, "rows": 0, "updates": 0, "updates_skipped": 0, "response_tokens": 0},
            "curves": {},
            "evaluations": [distil_evaluation(found) for found in evaluations],
            "seconds": {},
            "cost": cost([], made_by),
            "plan_sha256": plan,
            "samples_sha256": samples,
            "provenance": made_by,
            "problems_sha256": evaluations[0]["problems_sha256"],
            "source_sha256": {},
        }
    )


def public(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without its paths: other models as the manifest names them, a file of problems by its name."""
    names = {f"{name}_model": model["name"] for name, model in manifest.get("fixed_models", {}).items()}
    if "critic_model" in manifest:
        names["critic_model"] = manifest["critic_model"]["name"]
    found = {key: value for key, value in config.items() if key not in PRIVATE}
    if "reward" in found:
        found["reward"] = public_terms(found["reward"])
    found["method"] = name_of_method(config, manifest)
    for key in OTHER_MODELS:
        if found.get(key):
            found[key] = names.get(key, Path(found[key]).name)
    if is_file_name(found["problems"]):
        found["problems"] = Path(found["problems"]).name
    return found


def name_of_method(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """What the method calls itself; its place where it came from a file is somebody's path. The record's `code` has the hash."""
    return str(manifest.get("method", {}).get("name", config["method"]))


def curves(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Arrays over rollouts, and over the validations among them."""
    steps = [line for line in lines if line["step"] > 0]
    watched = [line for line in lines if "validation" in line]
    found: dict[str, Any] = {"step": [line["step"] for line in steps]}
    parametrised = {name for line in steps for name in line if name.startswith(CURVES_WITH_PARAMETER)}
    for name in (*CURVES, *sorted(parametrised)):
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


def cost(steps: list[dict[str, Any]], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Hours of all devices together over the rollouts, how many there were, and what they are called."""
    devices, hardware = manifest.get("world_size", 1), manifest["hardware"]
    whole = sum(line["seconds"].get("total", 0.0) for line in steps)
    return {
        "device_hours": whole * devices / 3600,
        "devices": devices,
        "device": hardware["gpu"] or hardware["processor"] or hardware.get("machine", ""),
    }


def peak_memory(run: Path) -> dict[str, Any]:
    """{"peak_memory_gib": the largest process's peak on the host and on its GPU}, where the run measured it."""
    file = run / "memory.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {"peak_memory_gib": {kind: max(found[kind]) / 2**30 for kind in ("host", "device")}}


def naming_of_model(name: str) -> dict[str, str]:
    """Family and scale of a model, as far as its name says them.

    >>> naming_of_model("Qwen2.5-Math-1.5B-Instruct"), naming_of_model("llama")
    ({'family': 'Qwen2.5-Math', 'scale': '1.5B'}, {'family': 'llama', 'scale': ''})
    """
    found = re.match(r"(.+?)[-_ ](\d+(?:\.\d+)?[bmBM])(?![A-Za-z0-9])", name)
    return {"family": found[1] if found else name, "scale": found[2].upper() if found else ""}


def distil_evaluation(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, scores and counts per problem; the responses stay in the run folder."""
    sizes = {p["n"] for p in found["problems"]}
    return {
        "task": found["task"],
        "sampling": found["sampling"],
        "limit": found["limit"],
        "scores": found["scores"],
        "problems": len(found["problems"]),
        "samples": sizes.pop() if len(sizes) == 1 else None,
        "ids_sha256": hashlib.sha256("\n".join(p["id"] for p in found["problems"]).encode()).hexdigest(),
        **{name: [p[name] for p in found["problems"]] for name in ("correct", "no_answer", "truncated", "majority")},
        **({"tokens": [p["tokens"] for p in found["problems"]]} if "length" in found["scores"] else {}),
        **answer_groups(found),
        "examples": examples(found),
    }


def answer_groups(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of each problem the sizes of its groups of equal answers (see `majority`), from which maj@k follows for every k; none
    where each has one sample, or the result is of a version that did not keep them."""
    problems = found["problems"]
    if all(p["n"] == 1 for p in problems) or not all("answer_groups" in p for p in problems):
        return {}
    return {"answer_groups": [list(p["answer_groups"]) for p in problems]}


def examples(found: Mapping[str, Any], count: int = 3, longest: int = 600) -> list[dict[str, Any]]:
    """The first response to each of the first problems, not picked by anybody, long ones cut.

    Of generated problems alone: published ones belong to others, and a record carries none of their text.
    """
    if not found["generated"]:
        return []
    first: dict[str, Mapping[str, Any]] = {}
    for response in found["responses"]:
        first.setdefault(response["id"], response)

    def cut(text: str) -> str:
        return text if len(text) <= longest else text[:longest] + " …"

    return [
        {
            "problem": cut(problem["problem"]),
            "answer": problem["answer"],
            "response": cut(first[problem["id"]]["response"]),
            "correct": first[problem["id"]]["correct"],
        }
        for problem in found["problems"][:count]
    ]


def rounded(value: Any, digits: int = 6) -> Any:
    """Floats to six significant digits, so that records stay small and diffs readable; null where there is no number."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Sealed with the hash of its content; indented JSON with every array of numbers on one line."""
    whole = sealed(record)
    validate(whole, str(path))
    disk.write_text(path, layout(whole) + "\n")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the hash of its content."""
    return {**record, SEAL: seal(record)}


def layout(value: Any, indent: int = 0) -> str:
    pad = "  " * (indent + 1)
    if isinstance(value, Mapping) and value:
        inner = ",\n".join(f"{pad}{json.dumps(key)}: {layout(item, indent + 1)}" for key, item in value.items())
        return "{\n" + inner + "\n" + "  " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = ",\n".join(pad + layout(item, indent + 1) for item in value)
        return "[\n" + inner + "\n" + "  " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read_all(folder: Path, *beside: Path) -> list[dict[str, Any]]:
    """All result records below a folder, and below those beside it, in order of their paths; other JSON files are passed over.

    Raises:
        UserError: a folder without a record, a file that is not JSON, a broken record, or two records of one run.
    """
    folders = (folder, *beside)
    found = read_records(path for place in folders for path in sorted(place.rglob("*.json")))
    for place in folders:
        if not any(path.is_relative_to(place) for path, _ in found):
            refuse_empty(place)
    return [record for _, record in found]


def refuse_empty(folder: Path) -> NoReturn:
    """Says what a folder without a record lacks."""
    runs = sorted(path.parent for path in folder.rglob("metrics.jsonl"))
    if runs:
        raise UserError(
            f"{runs[0]} is the folder of a run; make its record with `lco record {runs[0]}`, after `lco evaluate` of its "
            "checkpoints/final"
        )
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the folder of the records with --results")
    raise UserError(f"there is no result record below {folder}; make one with `make reproduce`")


def read_records(paths: Iterable[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Those of the files that are result records, with their content.

    Raises:
        UserError: a file that is not JSON, a broken record, or two records of one run.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    homes: dict[tuple[Any, ...], tuple[Path, Mapping[str, Any]]] = {}
    for path in paths:
        record = read_json(path)
        if record is None:
            continue
        validate(record, str(path))
        run = (record["model"]["class"], record["model"]["name"], row_key(record), record["seed"])
        if run in homes:
            refuse_twins(homes[run], (path, record))
        homes[run] = path, record
        found.append((path, record))
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """The record in a file; None where it holds something else.

    Raises:
        UserError: it cannot be read, or is not JSON, which has no NaN.
    """
    constants: list[str] = []
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=constants.append)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); mend it or move it away") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend it or move it away") from None
    if not isinstance(value, dict) or not str(value.get("schema", "")).startswith("lco-result/"):
        return None
    if constants:
        raise UserError(f"{path}: {constants[0]} is no number in JSON; restore the file")
    return value


def refuse_twins(first: tuple[Path, Mapping[str, Any]], second: tuple[Path, Mapping[str, Any]]) -> NoReturn:
    """Says whether two records with one class, method and seed are one run or two models."""
    (home, one), (path, other) = first, second
    names = f"{path} and {home} are both {one['method']} seed {one['seed']} on {one['model']['class']}"
    if one["model"]["sha256"] != other["model"]["sha256"]:
        models = " and ".join(f"{r['model']['name']} ({r['model']['sha256'][:8]}…)" for r in (other, one))
        raise UserError(f"{names}, of different start models of one name, {models}; give each a folder of its own")
    raise UserError(f"{names}; a run counts once: move one away")
