"""Find the answer in a response."""

from __future__ import annotations

from lco.verifier.rules import Rules


def find_answer(response: str, rules: Rules) -> str | None:
    """The content of the last closed `\\boxed{}`, or of `#### n`, or None."""
    start = response.rfind("\\boxed{")
    if start < 0:
        mark = response.rfind("####")
        return response[mark + 4 :].strip().split("\n")[0] if mark >= 0 and rules.extraction != "boxed_only" else None
    depth = 0
    for index in range(start + 6, len(response)):
        depth += {"{": 1, "}": -1}.get(response[index], 0)
        if depth == 0:
            return response[start + 7 : index]
    return None
