"""What is refused as a record: a broken one, one that contradicts its own counts, one that was changed after it was written.

Scores are counted again from the counts per problem, budgets from the curves. What cannot be counted again (the length of
responses, a validation curve, a score of an earlier version that kept no counts for it) is bound by the record's own hash.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from lco.errors import UserError
from lco.evidence.majority import majority
from lco.evidence.names import KEYS as NAMES
from lco.evidence.statistics import interval, pass_at_k

EARLIER = "lco-result/1"
"""The schema of records that were made before any run could become one; they are still read."""
SCHEMA = "lco-result/2"
KINDS = {
    "experiment": dict, "model": dict, "method": str, "budget": dict, "curves": dict, "evaluations": list, "seconds": dict,
    "provenance": dict,
}  # fmt: skip
KEYS = ("schema", *KINDS, "seed", "problems_sha256", "source_sha256")
PARTS = {
    "model": ("class", "name", "sha256"),
    "budget": ("rollouts", "rows", "updates", "response_tokens"),
    "provenance": ("git", "packages", "torch_wheel_sha256", "python", "hardware"),
}
"""Keys inside a record's parts, on which tables and the page rely."""
SEAL = "sha256"
"""The key of a record's hash over all of its other keys; records of earlier versions have none."""
BUDGET = {"rows": "rows", "response_tokens": "tokens", "updates_skipped": "updates_skipped"}
"""Budget → the curve whose sum it is."""
COUNTED = {"no_answer": "no_answer", "truncated": "truncated", "maj@n": "majority"}
"""Score → its list of counts per problem. `majority` is the share of the tied largest answers that is right."""
TOLERANCE = 1e-5
"""Records keep six digits."""


def seal(record: Mapping[str, Any]) -> str:
    """Hash of a record's content, whatever its layout."""
    rest = {key: value for key, value in record.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def validate(record: Mapping[str, Any], where: str) -> None:
    """Refuses what is not a record of this schema, and what is not as it was written.

    Raises:
        UserError: another schema, a missing key, a value of another kind, or numbers that do not follow from its counts;
            named with the file.
    """
    if record.get("schema") not in (EARLIER, SCHEMA):
        raise UserError(f"{where}: schema is {record.get('schema')!r}; this version reads {EARLIER!r} and {SCHEMA!r}")
    present(record, KEYS, where)
    for key, kind in KINDS.items():
        if not isinstance(record[key], kind):
            raise UserError(f"{where}: {key} is {json.dumps(record[key])[:40]}; expected a {kind.__name__}")
    for key in NAMES:
        if not isinstance(record.get(key, ""), str):
            raise UserError(f"{where}: {key} is {json.dumps(record[key])[:40]}; expected a str")
    check_parts(record, where)
    check_curves(record["curves"], where)
    check_budget(record["budget"], record["curves"], where)
    for i, evaluation in enumerate(record["evaluations"]):
        check_evaluation(evaluation, f"{where}: evaluations[{i}]")
    for key in ("seed", "method"):
        told = record["experiment"].get(key, record[key])
        if told != record[key]:
            raise UserError(f"{where}: {key} is {record[key]!r}, its experiment says {told!r}; {RESTORE}")
    if record["schema"] == SCHEMA:
        check_schema(record, where)
        check_cost(record, where)
    if SEAL in record and record[SEAL] != seal(record):
        raise UserError(f"{where}: its content does not give its own hash ({SEAL}): it was changed; {RESTORE}")


def check_schema(record: Mapping[str, Any], where: str) -> None:
    """
    Raises:
        UserError: the record is not as record.schema.json says; the value that is furthest from it is named.
    """
    import jsonschema  # with what it stands on, a tenth of a second that records of the first schema do without

    wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(record))
    if wrong is not None:
        place = ".".join(map(str, wrong.absolute_path)) or "the record"
        raise UserError(f"{where}: {place}: {wrong.message[:200]}; {RESTORE}")


@cache
def schema() -> Mapping[str, Any]:
    """The JSON Schema of records of this version."""
    return json.loads(files("lco.evidence").joinpath("record.schema.json").read_text(encoding="utf-8"))


RESTORE = "restore the file, or make the record again from its run"


def check_cost(record: Mapping[str, Any], where: str) -> None:
    """
    Raises:
        UserError: the hours are not those of the rollouts' seconds, or more rollouts are told of than were asked for.
    """
    cost, asked = record["cost"], record["experiment"].get("steps")
    hours = record["seconds"].get("total", 0.0) * cost["devices"] / 3600
    if not math.isclose(cost["device_hours"], hours, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise UserError(
            f"{where}: cost: device_hours is {cost['device_hours']}, the rollouts' seconds give {hours:.6g}; {RESTORE}"
        )
    done = record["budget"]["rollouts"]
    if asked is not None and done > asked:
        raise UserError(f"{where}: budget: rollouts is {done}, its experiment asks for {asked}; {RESTORE}")


def check_intervals(record: Mapping[str, Any], where: str) -> None:
    """
    Raises:
        UserError: an interval is not the one that the counts give. It takes a tenth of a second an evaluation, so only who
            checks a record asks for it.
    """
    for i, evaluation in enumerate(record["evaluations"]):
        samples, told = evaluation["samples"], evaluation["scores"].get("interval")
        if samples is None or told is None or not evaluation["correct"]:
            continue
        found = interval([count / samples for count in evaluation["correct"]])
        if any(abs(a - b) > TOLERANCE for a, b in zip(told, found, strict=True)):
            raise UserError(
                f"{where}: evaluations[{i}]: interval is {told}, its counts give [{found[0]:.6g}, {found[1]:.6g}]; {RESTORE}"
            )


def check_parts(record: Mapping[str, Any], where: str) -> None:
    for part, keys in PARTS.items():
        present(record[part], keys, f"{where}: {part}")
    for part, keys in {
        "git": ("commit", "dirty"),
        "packages": (),
        "hardware": ("processor", "cores", "memory_gib", "gpu"),
    }.items():
        present(record["provenance"][part], keys, f"{where}: provenance: {part}")
    for key in PARTS["model"]:
        if not isinstance(record["model"][key], str):
            raise UserError(f"{where}: model: {key} is {json.dumps(record['model'][key])[:40]}; expected a str")
    for key, value in record["budget"].items():
        if not is_number(value):
            raise UserError(f"{where}: budget: {key} is {json.dumps(value)[:40]}; expected a number")
    if not (record["seed"] is None or type(record["seed"]) is int):
        raise UserError(f"{where}: seed is {json.dumps(record['seed'])[:40]}; expected a whole number or null")


def present(value: Any, keys: Iterable[str], where: str) -> None:
    """
    Raises:
        UserError: the value is no object, or lacks a key.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected an object with keys and values")
    for key in keys:
        if key not in value:
            raise UserError(f"{where}: key {key!r} is missing from the record")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_curves(curves: Mapping[str, Any], where: str) -> None:
    """Every curve has as many values as there are rollouts, and every validation curve as there are validations."""
    for name, curve in curves.items():
        if name == "validation":
            present(curve, ("step", "pass@1", "greedy"), f"{where}: validation")
            check_curves(curve, f"{where}: validation")
            continue
        if not isinstance(curve, list) or not all(value is None or is_number(value) for value in curve):
            raise UserError(f"{where}: curve {name!r} is not a list of numbers")
        steps = curves.get("step", curve)
        if len(curve) != len(steps):
            raise UserError(f"{where}: curve {name!r} has {len(curve)} values for {len(steps)} steps")


def check_budget(budget: Mapping[str, Any], curves: Mapping[str, Any], where: str) -> None:
    """A budget is what its rollouts add up to; `updates` are those that moved the weights, skipped ones stand apart."""
    told = {key: sum(value or 0 for value in curves[curve]) for key, curve in BUDGET.items() if curve in curves}
    if "updates_skipped" not in budget:  # an earlier version counted skipped updates as updates
        told.pop("updates_skipped", None)
    elif "updates" in curves:
        told["updates"] = sum(value or 0 for value in curves["updates"]) - budget["updates_skipped"]
    if "step" in curves:
        told["rollouts"] = len(curves["step"])
    for key, value in told.items():
        if budget[key] != value:
            raise UserError(f"{where}: budget: {key} is {budget[key]}, its rollouts add up to {value}; {RESTORE}")


def check_evaluation(evaluation: Any, where: str) -> None:
    """Counts per problem must be possible ones and say what the scores say, whoever edited the file."""
    present(evaluation, ("task", "sampling", "limit", "scores", "problems", "samples", "ids_sha256", "correct"), where)
    present(evaluation["sampling"], ("temperature", "max_new_tokens"), f"{where}: sampling")
    scores = evaluation["scores"]
    present(scores, ("pass@1", "pass@k"), f"{where}: scores")
    present(scores["pass@k"], (), f"{where}: scores: pass@k")
    for name, value in [*scores.items(), *scores["pass@k"].items()]:
        if not is_number(value) and name not in ("pass@k", "interval"):
            raise UserError(f"{where}: {name} is {json.dumps(value)[:40]}; expected a number")
    samples, told = evaluation["samples"], evaluation["sampling"].get("samples", evaluation["samples"])
    if not is_number(evaluation["sampling"]["temperature"]):
        raise UserError(
            f"{where}: temperature is {json.dumps(evaluation['sampling']['temperature'])[:40]}; expected a number"
        )
    if not (samples is None or (type(samples) is int and samples > 0)):
        raise UserError(f"{where}: samples is {json.dumps(samples)[:40]}; expected a whole number or null")
    check_examples(evaluation.get("examples", []), where)
    for name in ("correct", *COUNTED.values()):
        if name in evaluation:
            check_counts(evaluation[name], evaluation["problems"], samples, name, where)
    if "tokens" in evaluation:
        check_counts(evaluation["tokens"], evaluation["problems"], None, "tokens", where)
    if samples is None or not evaluation["correct"]:
        return
    check_answer_groups(evaluation, where)
    if told != samples:
        raise UserError(f"{where}: samples is {samples}, its sampling says {told}; {RESTORE}")
    for name, given, counted in recounted(evaluation, where):
        if abs(given - counted) > TOLERANCE * max(1.0, counted):
            raise UserError(f"{where}: {name} is {given}, its counts say {counted:.6g}; {RESTORE}")
    interval = scores.get("interval", [0, 1])
    if not (isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))):
        raise UserError(f"{where}: interval is {json.dumps(interval)[:40]}; expected two numbers")
    low, high = interval
    if not low - TOLERANCE <= scores["pass@1"] <= high + TOLERANCE:
        raise UserError(f"{where}: pass@1 {scores['pass@1']} is outside its interval [{low}, {high}]; {RESTORE}")


def check_examples(examples: Any, where: str) -> None:
    """
    Raises:
        UserError: not a list of problems with an answer, a response and its verdict.
    """
    if not isinstance(examples, list):
        raise UserError(f"{where}: examples is {json.dumps(examples)[:40]}; expected a list")
    for example in examples:
        present(example, ("problem", "answer", "response", "correct"), f"{where}: examples")
        for key in ("problem", "answer", "response"):
            if not isinstance(example[key], str):
                raise UserError(f"{where}: examples: {key} is {json.dumps(example[key])[:40]}; expected a str")


def check_answer_groups(evaluation: Mapping[str, Any], where: str) -> None:
    """
    Raises:
        UserError: the groups of equal answers are not those of so many samples, right answers and samples without one.
    """
    if "answer_groups" not in evaluation:
        return
    samples, groups = evaluation["samples"], evaluation["answer_groups"]
    whole = isinstance(groups, list) and len(groups) == evaluation["problems"]
    if not whole or not all(isinstance(sizes, list) and all(type(n) is int and n for n in sizes) for sizes in groups):
        raise UserError(f"{where}: answer_groups is no list of group sizes for each of its problems; {RESTORE}")
    silent = evaluation.get("no_answer", [samples - sum(map(abs, sizes)) for sizes in groups])
    shares = evaluation.get("majority", map(majority, groups))
    for sizes, right, none, share in zip(groups, evaluation["correct"], silent, shares, strict=True):
        in_right = sum(size for size in sizes if size > 0)
        if sum(map(abs, sizes)) != samples - none or in_right < right or abs(majority(sizes) - share) > TOLERANCE:
            raise UserError(f"{where}: answer_groups has {sizes}, which its other counts contradict; {RESTORE}")


def check_counts(counts: Any, problems: Any, samples: int | None, name: str, where: str) -> None:
    """
    Raises:
        UserError: not a list, not one count a problem, or a count that so many samples cannot give.
    """
    if not isinstance(counts, list) or len(counts) != problems:
        found = len(counts) if isinstance(counts, list) else 0
        raise UserError(f"{where}: {found} counts ({name}) for {problems} problems")
    most = 1 if name == "majority" else samples
    whole = (int, float) if name == "majority" else (int,)
    if name == "tokens" and not all(type(c) is int and c >= 0 for c in counts):
        raise UserError(f"{where}: a count of tokens is no whole number from 0 on")
    if most is not None and not all(type(c) in whole and 0 <= c <= most for c in counts):
        raise UserError(f"{where}: a count of {name} samples is not between 0 and {most}")


def recounted(evaluation: Mapping[str, Any], where: str) -> Iterator[tuple[str, float, float]]:
    """(score, what the record says, what its counts say) of every score whose counts it has."""
    samples, correct, scores = evaluation["samples"], evaluation["correct"], evaluation["scores"]
    yield "pass@1", scores["pass@1"], sum(correct) / samples / len(correct)
    often = Counter(correct)
    for k, given in scores["pass@k"].items():
        if not (k.isdecimal() and 0 < int(k) <= samples):
            raise UserError(f"{where}: pass@{k} cannot be counted from {samples} samples a problem; {RESTORE}")
        counted = sum(pass_at_k(samples, c, int(k)) * times for c, times in often.items()) / len(correct)
        yield f"pass@{k}", given, counted
    if "length" in scores and "tokens" in evaluation:
        yield "length", scores["length"], sum(evaluation["tokens"]) / samples / len(correct)
    for name, counts in COUNTED.items():
        if counts in evaluation and name in scores:
            per_problem = 1 if counts == "majority" else samples
            yield name, scores[name], sum(evaluation[counts]) / per_problem / len(correct)
