"""What a method is called in tables, what it is compared as, and where its rows come from: a record says all three.

Records of earlier versions name the method alone. What those versions called it stands in names.json, which is not
continued: a method that is not in it is called by its name, and compared as a baseline that learns from its rollouts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from lco.evidence.formats import visible

KEYS = ("title", "family", "source")
"""By these names in a record, a run's manifest and `lco.methods.Method`."""
CONTROLLED = "-random"
"""What follows a method's name where its rewards were random."""


@cache
def earlier() -> Mapping[str, Mapping[str, str]]:
    """{method: its title, family and source} as earlier versions had them."""
    return json.loads(files("lco.evidence").joinpath("names.json").read_text(encoding="utf-8"))


def naming(method: str, said: Mapping[str, Any]) -> dict[str, str]:
    """Title, family and source of a method, from what a record or a manifest says of it."""
    default = {"title": method, "family": "baseline", "source": "rollouts"}
    return {key: said.get(key) or earlier().get(method, default)[key] for key in KEYS}


def title(record: Mapping[str, Any]) -> str:
    return naming(record["method"], record)["title"]


def family(record: Mapping[str, Any]) -> str:
    return naming(record["method"], record)["family"]


def source(record: Mapping[str, Any]) -> str:
    return naming(record["method"], record)["source"]


def is_control(record: Mapping[str, Any]) -> bool:
    """Whether the run's rewards knew nothing of the answers."""
    return "random" in (record.get("experiment", {}).get("reward") or ())


def row_key(record: Mapping[str, Any]) -> str:
    """What keeps the rows of a table apart: the method, and the same under random rewards."""
    return record["method"] + (CONTROLLED if is_control(record) else "")


def titles(records: Iterable[Mapping[str, Any]] = ()) -> dict[str, str]:
    """{method: printed name} of all earlier methods and of those in the records; no two are printed alike."""
    known = {method: said["title"] for method, said in earlier().items()}
    for record in records:
        known[row_key(record)] = visible(title(record)) + (", random rewards" if is_control(record) else "")
    often = Counter(known.values())
    return {
        method: name if often[name] == 1 or earlier().get(method, {}).get("title") == name else f"{name} ({method})"
        for method, name in known.items()
    }


def from_outside(records: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """A sentence about the methods that are not the suite's own, with the hashes of their code; none where there is none."""
    found = {names.get(r["method"], r["method"]): code["method"] for r in records if (code := code_of(r)).get("method")}
    told = ", ".join(f"{name} (sha256 {digest[:12]}…)" for name, digest in sorted(found.items()))
    return [f"Not the suite's own, by the hash of its source: {told}."] if told else []


def code_of(record: Mapping[str, Any]) -> Mapping[str, str]:
    """{what: hash of its source} of the code from outside that a run was made with."""
    return record.get("code") or {}


def rewards_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was rewarded for, with the hashes of functions that are not the suite's own; nothing of a start model, nor of
    a control, which is compared with nothing."""
    if record["method"] == "start" or is_control(record):
        return {}
    sources = {name: digest for name, digest in code_of(record).items() if name.startswith("reward/")}
    return {"reward": record["experiment"].get("reward", {"verifier": 1.0}), "source of the rewards": sources}
