"""A few responses beside every record, right and wrong ones, which nobody has picked: what a reader looks at first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

SHOWN = 8
"""So many right and so many wrong responses of an evaluation are kept."""
LONGEST = 4000
"""Characters of a response that are kept."""


def choose_samples(evaluations: Iterable[Mapping[str, Any]]) -> str:
    """JSON Lines of some responses of each evaluation: those whose hash of task, problem and place comes first.

    The text of a problem and its answer are kept of generated problems alone: published ones belong to others.

    Args:
        evaluations: results of `lco evaluate`, whole.
    """
    return "".join(
        json.dumps(line, ensure_ascii=False) + "\n"
        for found in evaluations
        for right in (True, False)
        for line in chosen(found, right)
    )


def chosen(found: Mapping[str, Any], right: bool) -> list[dict[str, Any]]:
    """The kept responses of one evaluation that are right, or that are not."""
    places = [at for at, response in enumerate(found["responses"]) if response["correct"] == right]
    problems = {problem["id"]: problem for problem in found["problems"]}

    def order(at: int) -> str:
        return hashlib.sha256(f"{found['task']}/{found['responses'][at]['id']}/{at}".encode()).hexdigest()

    lines = []
    for at in sorted(sorted(places, key=order)[:SHOWN]):
        response = found["responses"][at]
        text = response["response"]
        asked = {key: problems[response["id"]][key] for key in ("problem", "answer")} if found["generated"] else {}
        lines.append(
            {
                "task": found["task"],
                "temperature": found["sampling"]["temperature"],
                "id": response["id"],
                **asked,
                "response": text if len(text) <= LONGEST else text[:LONGEST] + " …",
                **{key: response[key] for key in ("extracted", "correct", "reason", "truncated")},
            }
        )
    return lines
