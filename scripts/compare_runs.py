"""Where two finished run folders differ: in the texts of their metrics' numbers, in the bytes of their weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS, WEIGHTS = Path("metrics.jsonl"), Path("checkpoints/final/model.safetensors")
TIMES = "seconds"
"""The key of a line that holds how long it took."""


class Number(str):
    """A JSON number (or NaN, or an infinity) as it is written."""


@dataclass(frozen=True)
class Allowed:
    """Differences that are none: keys that only the second run has; null where the other run has NaN."""

    new_keys: bool = False
    null_for_nan: bool = False


@dataclass(frozen=True)
class Comparison:
    """Sentences that name what differs, first of all the first; and the second run's own keys, if they are allowed."""

    differences: tuple[str, ...]
    new_keys: tuple[str, ...] = ()


def compare_runs(before: Path, after: Path, allowed: Allowed) -> Comparison:
    """Metrics and weights of two run folders."""
    metrics = compare_metrics(read_metrics(before / METRICS), read_metrics(after / METRICS), allowed)
    weights = compare_weights(before / WEIGHTS, after / WEIGHTS)
    return Comparison((*metrics.differences, *weights), metrics.new_keys)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """{key path: value} of every line, numbers as they are written, times left out."""
    decode = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number).decode
    lines = [decode(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return [dict(leaves({key: value for key, value in line.items() if key != TIMES})) for line in lines]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """("validation/greedy", value) of everything in a JSON value that holds nothing itself."""
    if isinstance(value, dict | list) and value:
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{name}" if path else str(name))
    else:
        yield path, value


def has_learnt(before: Path) -> bool:
    """Whether a run made an update that moved something: one without compares nothing of a method."""
    lines = read_metrics(before / METRICS)
    return any(float(line.get("updates", 0)) > 0 and float(line.get("gradient_norm", 0)) > 0 for line in lines)


def compare_metrics(before: list[dict[str, Any]], after: list[dict[str, Any]], allowed: Allowed) -> Comparison:
    """At most two sentences: the first value that differs with how many do, and another number of lines."""
    different: list[str] = []
    new: dict[str, None] = {}
    compared = 0
    for number, (old, now) in enumerate(zip(before, after, strict=False)):
        compared += len(old)
        line = f"line {number + 1}"
        for key, value in old.items():
            if key not in now:
                different.append(f"{line} has no {key} any more, it was {shown(value)}")
            elif not same(value, now[key], allowed):
                different.append(f"{line}, {key}: {shown(value)} → {shown(now[key])}{gap(value, now[key])}")
        added = [key for key in now if key not in old]
        new |= dict.fromkeys(added)
        if not allowed.new_keys:
            different += [f"{line} has a new key {key}: {shown(now[key])}" for key in added]
    sentences = [f"metrics: {different[0]} ({len(different)} of {compared} values differ)"] if different else []
    if len(before) != len(after):
        sentences.append(f"metrics: {len(before)} lines → {len(after)}")
    return Comparison(tuple(sentences), tuple(new) if allowed.new_keys else ())


def same(old: Any, now: Any, allowed: Allowed) -> bool:
    """Whether two values are written alike; "1" and "1.0" are not, nor are a number and a string."""
    if allowed.null_for_nan and ((old is None and is_nan(now)) or (is_nan(old) and now is None)):
        return True
    return type(old) is type(now) and old == now


def is_nan(value: Any) -> bool:
    return isinstance(value, Number) and value == "NaN"


def shown(value: Any) -> str:
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def gap(old: Any, now: Any) -> str:
    """How far two numbers are apart, absolutely and relatively; nothing where one of the values is none."""
    if not (isinstance(old, Number) and isinstance(now, Number)):
        return ""
    distance = abs(float(now) - float(old))
    share = f" ({distance / abs(float(old)):.1g} of it)" if float(old) else ""
    return f", by {distance:.2g}{share}"


def compare_weights(before: Path, after: Path) -> list[str]:
    """At most one sentence: the first tensor that differs in type, shape or bytes, by how much, and how many do."""
    import torch  # takes seconds; a wrong command line need not wait for it
    from safetensors import safe_open

    with safe_open(before, "pt") as one, safe_open(after, "pt") as other:
        names, others = list(one.keys()), set(other.keys())
        found = [f"{name} is in one of the two alone" for name in sorted(others.symmetric_difference(names))]
        for name in names:
            if name not in others:
                continue
            old, now = one.get_tensor(name), other.get_tensor(name)
            if (old.dtype, old.shape) != (now.dtype, now.shape):
                found.append(f"{name}: {list(old.shape)} {old.dtype} → {list(now.shape)} {now.dtype}")
            elif not torch.equal(old.flatten().view(torch.uint8), now.flatten().view(torch.uint8)):
                found.append(f"{name}, by up to {float((now.double() - old.double()).abs().max()):.2g}")
    return [f"weights: {found[0]} ({len(found)} of {len(names)} tensors differ)"] if found else []
