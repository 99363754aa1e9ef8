"""What the verifier's tests share: the tables of cases, and rewritings of an answer that keep or break its meaning."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CASES = Path(__file__).with_name("cases")


class TableCase(NamedTuple):
    """A line of a table: the reference, the answer (or whole response), and whether they mean the same."""

    file: str
    line: int
    right: bool
    gold: str
    answer: str
    rule: str

    @property
    def response(self) -> str:
        """The answer in a box, unless the table holds whole responses."""
        return self.answer if self.file == "extraction" else f"\\boxed{{{self.answer}}}"


def table(path: Path) -> Iterator[TableCase]:
    """The cases of one file: sign, reference, answer and perhaps a rule, separated by tabs; # begins a comment."""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line and not line.startswith("#"):
            sign, gold, answer, *rule = line.split("\t")
            if sign not in ("=", "≠"):
                raise ValueError(f"{path.name}:{number} begins with {sign!r}, not with = or ≠")
            yield TableCase(path.stem, number, sign == "=", gold, answer.replace("⏎", "\n"), " ".join(rule))


def tables() -> list[Path]:
    """All tables for exact judgement."""
    return sorted(path for path in CASES.glob("*.tsv") if path.stem != "tolerance")


def all_cases() -> list[TableCase]:
    """Every case of every table."""
    return [case for path in tables() for case in table(path)]


def answers_of(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(file, id, reference answer) of every record of the data files; lines end at newlines alone."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                record = json.loads(line)
                yield path.stem, record["id"], record["answer"]


# Rewritings that say the same in other signs. Each returns its text unchanged where it does not apply.
_SAME: tuple[Callable[[str, random.Random], str], ...] = (
    lambda text, rng: text.replace("\\frac{", "\\dfrac{"),
    lambda text, rng: text.replace("\\frac{", "\\tfrac{"),
    lambda text, rng: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", text),
    lambda text, rng: re.sub(r"(?<![\\\w])-", "−", text),
    lambda text, rng: text.replace("\\pi", "π") if "\\pit" not in text else text,
    lambda text, rng: text.replace("^\\circ", "°"),
    lambda text, rng: text.replace("\\infty", "∞").replace("\\cup", "∪"),
    lambda text, rng: re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", text),
    lambda text, rng: re.sub(r"\\sqrt\{(\d)\}", r"√\1", text),
    lambda text, rng: text.replace("(", "\\left(").replace(")", "\\right)") if "\\left" not in text else text,
    lambda text, rng: text.replace("\\left", "").replace("\\right", "") if "\\rightarrow" not in text else text,
    lambda text, rng: text.replace(",", ", ") if not re.search(r"\d,\d{3}|\\,|\{,", text) else text,
    lambda text, rng: re.sub(r" ?([+=]) ?", r" \1 ", text),
    lambda text, rng: re.sub(r" ?\+ ?", r"\\, +\\; ", text),
    lambda text, rng: f"${text}$" if "$" not in text and "\\text" not in text else text,
    lambda text, rng: f"\\displaystyle {text}" if "\\text" not in text and "\\mbox" not in text else text,
    lambda text, rng: f"{{{text}}}" if re.fullmatch(r"[\w+\-*/^\\{}() ]+", text) and "\\text" not in text else text,
    lambda text, rng: f" {text} .",
    lambda text, rng: re.sub(r"\^(\d)(?!\d)", r"^{\1}", text),
    lambda text, rng: (
        "".join(chr(ord(sign) + 0xFEE0) if sign.isdigit() else sign for sign in text) if "\\" not in text else text
    ),
    lambda text, rng: f"{int(text):,}" if re.fullmatch(r"\d{4,15}", text) else text,
    lambda text, rng: f"{text}.0" if re.fullmatch(r"\d{1,15}", text) else text,
    lambda text, rng: f"\\frac{{{int(text) * 6}}}{{6}}" if re.fullmatch(r"-?\d{1,15}", text) else text,
    lambda text, rng: re.sub(r"^\\frac\{(\d+)\}\{(\d+)\}$", lambda found: f"{found[1]}/{found[2]}", text),
    lambda text, rng: re.sub(
        r"^\\frac\{(\d+)\}\{(\d+)\}$", lambda found: f"\\frac{{{int(found[1]) * 7}}}{{{int(found[2]) * 7}}}", text
    ),
)


def rewritten(text: str, rng: random.Random) -> str:
    """The same answer written differently: one to three of the rewritings, in random order."""
    for change in rng.sample(_SAME, rng.randint(1, 3)):
        text = change(text, rng)
    return text


def near_misses(text: str, rng: random.Random) -> list[str]:
    """Answers that differ in one digit, sign, bracket or element, wherever such a change certainly changes the meaning."""
    found = []
    digits = [at for at, sign in enumerate(text) if sign in "123456789"]
    # The number of a free constant is a name; ±1 and ±4 are the same modulo 5, so are 7n + 2 and 7n + 9, and C(9, 2) is C(9, 7).
    if digits and not re.search(r"\\(?:phantom|begin\{array|pmod|binom|in\s*\\mathbb)|C_\{?\d", text):
        at = rng.choice(digits)
        found.append(text[:at] + rng.choice([d for d in "123456789" if d != text[at]]) + text[at + 1 :])
    if re.fullmatch(r"\d*[1-9]\d*(?:\.\d+)?", text):
        found += [f"-{text}", f"{text}7", f"{text}, {text}1"]
    brackets = {"(": "[", "[": "(", ")": "]", "]": ")"}
    interval = re.fullmatch(r"([(\[])\s*(-?\d+)\s*,\s*(-?\d+)\s*([)\]])", text)
    if interval:
        found.append(brackets[text[0]] + text[1:])
        found.append(text[:-1] + brackets[text[-1]])
        if interval[2] != interval[3]:
            found.append(f"{interval[1]}{interval[3]},{interval[2]}{interval[4]}")
    elements = re.split(r",\s*", text)
    if (
        len(elements) > 2
        and all(re.fullmatch(r"-?\d+", part) for part in elements)
        and not re.search(r",\d{3}\b", text)
    ):
        found.append(", ".join(elements[:-1]))
        found.append(", ".join([*elements, "987654"]))
    return found
