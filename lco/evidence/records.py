"""Result records: what is committed of a run, small, validated, and tied by hashes to what it was distilled from.

A record names a model and the hash of its weights, never a path. Tables, figures and the page read nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lco import disk
from lco.errors import UserError

SCHEMA = "lco-result/1"
CURVES = (
    *("accuracy", "entropy", "gradient_norm", "kl_old", "ratio_outside", "response_length", "truncated", "no_answer"),
    *("sampler_gap_mean", "updates_skipped", "target_tv", "target_kl", "kl_target", "kl_old_exact", "tilt_clamped"),
    *("hidden_gradient_positive", "hidden_gradient_negative", "gradient_norm_positive", "gradient_norm_negative"),
    *("length_right", "length_wrong", "rows_kept", "prompts_drawn", "generation_multiplier"),
    *("clip_high", "clip_low", "weight_effective_share", "log_ratio_abs", "explained_variance"),
    *("target_kl_per_sequence", "sampled_probability"),
)
CURVES_WITH_PARAMETER = ("outside_top/",)
"""Curves whose names end in a number that the method's knobs set."""
KEYS = ("schema", "experiment", "model", "seed", "method", "budget", "curves", "evaluations", "seconds", "provenance",
        "problems_sha256", "source_sha256")  # fmt: skip
PARTS = {
    "model": ("class", "name", "sha256"),
    "budget": ("rollouts", "rows", "updates", "response_tokens"),
    "provenance": ("git", "packages", "torch_wheel_sha256", "python", "hardware"),
}
"""Keys inside a record's parts, on which tables and the page rely."""
PRIVATE = ("model", "data_dir", "out")
"""Configuration keys that may hold a path and say nothing else; a record leaves them out."""

OTHER_MODELS = ("reference_model", "verifier_model", "dpo_model", "critic_model")
"""Configuration keys that name a model beside the trained one: a hub id or a path."""


def distil(run: Path, evaluations: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The record of a finished run folder, with what `lco.evaluation` found for its model.

    Raises:
        UserError: the folder is not that of a run.
    """
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        lines = disk.read_lines(run / "metrics.jsonl")
    except OSError as error:
        raise UserError(f"{run} is not a finished run: {error.strerror} ({error.filename})") from None
    steps = [line for line in lines if line["step"] > 0]
    return rounded(
        {
            "schema": SCHEMA,
            "experiment": public(config, manifest),
            "method": config["method"],
            "seed": config["seed"],
            "model": manifest["model"],
            **{key: manifest[key] for key in ("fixed_models", "critic_model") if key in manifest},
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


def public(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without its paths: other models as the manifest names them, a file of problems by its name."""
    names = {f"{name}_model": model["name"] for name, model in manifest.get("fixed_models", {}).items()}
    if "critic_model" in manifest:
        names["critic_model"] = manifest["critic_model"]["name"]
    found = {key: value for key, value in config.items() if key not in PRIVATE}
    for key in OTHER_MODELS:
        if found.get(key):
            found[key] = names.get(key, Path(found[key]).name)
    if found["problems"].endswith(".jsonl"):
        found["problems"] = Path(found["problems"]).name
    return found


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
        "correct": [p["correct"] for p in found["problems"]],
        "examples": examples(found),
    }


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
    """Indented JSON with every array of numbers on one line; temporary name, then rename."""
    validate(record, str(path))
    disk.write_text(path, layout(record) + "\n")


def layout(value: Any, indent: int = 0) -> str:
    pad = "  " * (indent + 1)
    if isinstance(value, Mapping) and value:
        inner = ",\n".join(f"{pad}{json.dumps(key)}: {layout(item, indent + 1)}" for key, item in value.items())
        return "{\n" + inner + "\n" + "  " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inner = ",\n".join(pad + layout(item, indent + 1) for item in value)
        return "[\n" + inner + "\n" + "  " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def validate(record: Mapping[str, Any], where: str) -> None:
    """Refuses what is not a record of this schema.

    Raises:
        UserError: another schema, a missing key, or a value of another kind, named with the file.
    """
    if record.get("schema") != SCHEMA:
        raise UserError(f"{where}: schema is {record.get('schema')!r}; this version reads {SCHEMA!r}")
    for key in KEYS:
        if key not in record:
            raise UserError(f"{where}: key {key!r} is missing from the record")
    for key, kind in {"experiment": dict, "model": dict, "budget": dict, "curves": dict, "evaluations": list,
                      "seconds": dict, "provenance": dict, "method": str}.items():  # fmt: skip
        if not isinstance(record[key], kind):
            raise UserError(f"{where}: {key} is {json.dumps(record[key])[:40]}; expected a {kind.__name__}")
    for part, keys in PARTS.items():
        present(record[part], keys, f"{where}: {part}")
    for i, evaluation in enumerate(record["evaluations"]):
        check_evaluation(evaluation, f"{where}: evaluations[{i}]")
    for name, curve in record["curves"].items():
        steps = record["curves"].get("step", curve)
        if isinstance(curve, list) and len(curve) != len(steps):
            raise UserError(f"{where}: curve {name!r} has {len(curve)} values for {len(steps)} steps")


def present(value: Any, keys: Iterable[str], where: str) -> None:
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise UserError(f"{where}: key {key!r} is missing from the record")


def check_evaluation(evaluation: Any, where: str) -> None:
    """Counts per problem must be possible ones and say what the score says, whoever edited the file."""
    present(evaluation, ("task", "sampling", "limit", "scores", "problems", "samples", "ids_sha256", "correct"), where)
    present(evaluation["sampling"], ("temperature", "max_new_tokens"), f"{where}: sampling")
    present(evaluation["scores"], ("pass@1", "pass@k"), f"{where}: scores")
    correct, samples = evaluation["correct"], evaluation["samples"]
    if len(correct) != evaluation["problems"]:
        raise UserError(f"{where}: {len(correct)} counts for {evaluation['problems']} problems")
    if samples is None or not correct:
        return
    if not all(isinstance(c, int) and 0 <= c <= samples for c in correct):
        raise UserError(f"{where}: a count of right samples is not between 0 and {samples}")
    counted = sum(correct) / samples / len(correct)
    if abs(counted - evaluation["scores"]["pass@1"]) > 1e-5:
        raise UserError(f"{where}: pass@1 is {evaluation['scores']['pass@1']}, its counts say {counted:.6g}")


def read_all(folder: Path) -> list[dict[str, Any]]:
    """All result records below a folder, in order of their paths; other JSON files are passed over.

    Raises:
        UserError: no record, a file that is not JSON, a broken record, or two records of one run.
    """
    found: list[dict[str, Any]] = []
    homes: dict[tuple[Any, ...], Path] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
        if isinstance(record, dict) and str(record.get("schema", "")).startswith("lco-result/"):
            validate(record, str(path))
            run = (record["model"]["class"], record["method"], record["seed"])
            if run in homes:
                raise UserError(
                    f"{path} and {homes[run]} are both {run[1]} seed {run[2]} on {run[0]}; a run counts once: move one away"
                )
            homes[run] = path
            found.append(record)
    if not found:
        raise UserError(f"there is no result record below {folder}; make one with `make reproduce`")
    return found
