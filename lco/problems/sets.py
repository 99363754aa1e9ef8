"""Every problem set by name: its hub id, its local file, its splits, and where an answer is expected."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lco import hub
from lco.errors import UserError, nearest
from lco.problems.addition import addition_problems
from lco.problems.arithmetic import arithmetic_problems
from lco.problems.local import ENDINGS, as_text, is_file_name, problems_of, read_problems
from lco.problems.progress import counted
from lco.problems.records import Problem
from lco.verifier.rules import Rules

GENERATED_COUNT = {"train": 20_000, "validation": 512, "test": 384}
"""Problems of a generated split; --limit takes fewer."""


@dataclass(frozen=True)
class HubSource:
    """A data set on the model hub.

    Attributes:
        id, configs, split: as `datasets.load_dataset` takes them; several configurations are concatenated.
        mirror: another hub id with the same content, named when the first one vanished.
        convert: (row, position) → problem.
    """

    id: str
    split: str
    convert: Callable[[dict[str, Any], int], Problem]
    configs: tuple[str | None, ...] = (None,)
    mirror: str = ""


@dataclass(frozen=True)
class ProblemSet:
    """A named set.

    Attributes:
        splits: {split: local file name}; generated sets have no files.
        hub: {split: where it lies on the hub}.
        generate: (split, count, seed) → problems, for generated sets.
        extraction, relative_tolerance: the verifier's rules that suit its answers.
        prompt: the prompt style that suits it.
    """

    splits: dict[str, str]
    hub: dict[str, HubSource] = field(default_factory=dict)
    generate: Callable[[str, int, int], list[Problem]] | None = None
    extraction: str = "lenient"
    relative_tolerance: float = 0.0
    prompt: str = "boxed"


def rules_of(doc: Mapping[str, Any]) -> Rules:
    """The verifier's rules for a problem of a task: its set's, or those that it brings itself as `extraction` and
    `relative_tolerance`, where it is of no set that the suite knows."""
    known = SETS.get(str(doc.get("set")))
    if known is not None:
        return Rules(known.extraction, relative_tolerance=known.relative_tolerance)
    return Rules(str(doc.get("extraction", "lenient")), relative_tolerance=float(doc.get("relative_tolerance", 0.0)))


def last_boxed(solution: str) -> str:
    """The content of the last \\boxed{…}, braces balanced; "" without one."""
    start = solution.rfind("\\boxed{")
    if start < 0:
        return ""
    depth, begin = 0, start + len("\\boxed")
    for i in range(begin, len(solution)):
        depth += (solution[i] == "{") - (solution[i] == "}")
        if depth == 0:
            return solution[begin + 1 : i]
    return ""


def _gsm8k(split: str) -> HubSource:
    def convert(row: dict[str, Any], i: int) -> Problem:
        answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
        # The published solutions carry calculator marks such as <<3*4=12>>, which no model should imitate. Their last
        # line, "#### 12", stays: without it SFT would teach a model to give no answer.
        clean = re.sub(r"<<[^<>]*>>", "", row["answer"]).strip()
        return Problem(f"gsm8k-{split}-{i:04d}", row["question"].strip(), answer, clean, source="openai/gsm8k")

    return HubSource("openai/gsm8k", split, convert, ("main",))


def _math(split: str) -> HubSource:
    subjects = (
        *("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory"),
        *("prealgebra", "precalculus"),
    )

    def convert(row: dict[str, Any], i: int) -> Problem:
        answer = last_boxed(row["solution"])
        source = "EleutherAI/hendrycks_math"
        return Problem(
            f"math-{split}-{i:04d}", row["problem"], answer, row["solution"], row["level"], row["type"], source
        )

    return HubSource("EleutherAI/hendrycks_math", split, convert, subjects)


def _columns(name: str, hub: str, split: str, question: str, answer: str, **more: Any) -> HubSource:
    def convert(row: dict[str, Any], i: int) -> Problem:
        return Problem(f"{name}-{i:03d}", str(row[question]), str(row[answer]), _text(row.get("solution")), source=hub)

    return HubSource(hub, split, convert, **more)


def _text(value: Any) -> str:
    """Text of a column that may be empty or hold a list of texts (OlympiadBench has several solutions a problem)."""
    return "\n\n".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _math500() -> HubSource:
    def convert(row: dict[str, Any], i: int) -> Problem:
        # test/precalculus/807.json → math500-precalculus-807
        name = "-".join(str(row["unique_id"]).removesuffix(".json").split("/")[1:])
        source = "HuggingFaceH4/MATH-500"
        return Problem(
            f"math500-{name}", row["problem"], row["answer"], row["solution"], str(row["level"]), row["subject"], source
        )

    return HubSource("HuggingFaceH4/MATH-500", "test", convert)


def _olympiadbench() -> HubSource:
    def convert(row: dict[str, Any], i: int) -> Problem:
        answer = ", ".join(str(part) for part in row["final_answer"] or ())
        source, solution = "Hothan/OlympiadBench", _text(row["solution"])
        return Problem(
            f"olympiad-{row['id']}", row["question"], answer, solution, subject=str(row["subfield"]), source=source
        )

    return HubSource("Hothan/OlympiadBench", "train", convert, ("OE_TO_maths_en_COMP",))


def _aime_1983_2023() -> HubSource:
    def convert(row: dict[str, Any], i: int) -> Problem:
        # The collection goes on to 2024, which is a test set of its own: no answer, and `from_hub` drops it.
        answer = str(row["Answer"]) if int(row["Year"]) <= 2023 else ""
        return Problem(f"aime-{row['ID']}", row["Question"], answer, source="gneubig/aime-1983-2024")

    return HubSource("gneubig/aime-1983-2024", "train", convert)


SETS: dict[str, ProblemSet] = {
    "arithmetic": ProblemSet({"train": "", "validation": "", "test": ""}, generate=arithmetic_problems,
                             extraction="hash", prompt="plain"),
    "addition": ProblemSet({"train": "", "validation": "", "test": ""}, generate=addition_problems,
                           extraction="last_number", prompt="number_only"),
    "gsm8k": ProblemSet({"train": "gsm8k_train.jsonl", "test": "gsm8k_test.jsonl"},
                        {"train": _gsm8k("train"), "test": _gsm8k("test")}),
    "math": ProblemSet({"train": "math_train.jsonl", "test": "math_test.jsonl"},
                       {"train": _math("train"), "test": _math("test")}),
    "math500": ProblemSet({"test": "math500.jsonl"}, {"test": _math500()}),
    "aime24": ProblemSet({"test": "aime24.jsonl"},
                         {"test": _columns("aime24", "Maxwell-Jia/AIME_2024", "train", "Problem", "Answer",
                                           mirror="HuggingFaceH4/aime_2024")}),
    "aime25": ProblemSet({"test": "aime25.jsonl"},
                         {"test": _columns("aime25", "math-ai/aime25", "test", "problem", "answer")}),
    "aime_1983_2023": ProblemSet({"train": "aime_1983_2023.jsonl"}, {"train": _aime_1983_2023()}),
    "amc23": ProblemSet({"test": "amc23.jsonl"},
                        {"test": _columns("amc23", "math-ai/amc23", "test", "question", "answer")}),
    "minerva_math": ProblemSet({"test": "minerva_math.jsonl"},
                               {"test": _columns("minerva", "math-ai/minervamath", "test", "question", "answer")},
                               relative_tolerance=0.01),
    "olympiadbench": ProblemSet({"test": "olympiadbench.jsonl"}, {"test": _olympiadbench()}),
    "gaokao2023en": ProblemSet({"test": "gaokao2023en.jsonl"},
                               {"test": _columns("gaokao2023en", "MARIO-Math-Reasoning/Gaokao2023-Math-En", "train",
                                                 "question", "answer")}),
}  # fmt: skip


def load_problems(
    name: str, split: str, data_dir: str = "", limit: int = 0, columns: Mapping[str, str] | None = None
) -> list[Problem]:
    """The problems of a set, in published order; `limit` takes the first ones.

    Args:
        name: a key of SETS, a file (JSON Lines, a JSON list, CSV, Parquet), or a hub id `owner/name` or `owner/name:config`.
        data_dir: a folder of JSON Lines files that takes the place of the hub.
        columns: {problem, answer, …: what a file or hub set calls it}.

    Raises:
        UserError: no such set, split, folder or file, a broken line, or a hub id that cannot be loaded.
    """
    if limit < 0:
        raise UserError(f"limit is {limit}; give the number of first problems to take, or 0 for all")
    if is_file_name(name) or is_hub_id(name):
        problems = (
            read_problems(Path(name), columns) if is_file_name(name) else from_any_hub(name, split, columns or {})
        )
        return problems[:limit] if limit else problems
    chosen = set_named(name, split)
    if chosen.generate is not None:
        return chosen.generate(split, limit or GENERATED_COUNT[split], 0)
    if data_dir:
        folder = Path(data_dir)
        if not folder.is_dir():
            raise UserError(f"there is no data folder {data_dir}; check --data-dir")
        problems = read_problems(folder / chosen.splits[split])
    else:
        problems = from_hub(name, split, chosen)
    return problems[:limit] if limit else problems


def is_hub_id(name: str) -> bool:
    """Whether a name is none of the suite's and has the form of a hub's `owner/name` or `owner/name:config`."""
    return (
        name not in SETS and re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name) is not None and not Path(name).exists()
    )


def from_any_hub(name: str, split: str, columns: Mapping[str, str]) -> list[Problem]:
    """
    Raises:
        UserError: the hub does not give the set, or its rows are no problems.
    """
    place, _, config = name.partition(":")
    source = HubSource(place, split, lambda row, i: Problem("", "", ""), (config or None,))
    parts = download(source, f"give a local file that ends in {', '.join(ENDINGS)} with --problems")
    rows = (row for part in parts for row in part)
    named = ((f"{name}, row {i}", as_text(row)) for i, row in enumerate(counted(rows, f"reading {name}"), 1))
    return problems_of(named, place, columns, numbered=True)


def is_held_out(problem: Problem, share: float) -> bool:
    """Whether a problem is one of the validation share: by the hash of its text, so that it is the same under every seed, limit
    and order, and that equal questions are never on both sides."""
    digest = hashlib.sha256(problem.problem.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def set_named(name: str, split: str) -> ProblemSet:
    """The set, which has this split.

    Raises:
        UserError: no such set or split; the message names the nearest one.
    """
    if name not in SETS:
        raise UserError(
            f"there is no problem set {name!r}{nearest(name, SETS)}; or give a file that ends in {', '.join(ENDINGS)}, or the "
            "hub's owner/name"
        )
    if split not in SETS[name].splits:
        raise UserError(f"{name} has no split {split!r}{nearest(split, SETS[name].splits)}")
    return SETS[name]


def from_hub(name: str, split: str, chosen: ProblemSet) -> list[Problem]:
    """Downloads a split.

    Raises:
        UserError: the set is on no hub, or loading failed; the message names the mirror and the local way.
    """
    local = f"give --data-dir with a folder that holds {chosen.splits[split]}"
    if split not in chosen.hub:
        raise UserError(f"no hub id is known for {split} of {name}; {local}")
    source = chosen.hub[split]
    parts = download(source, local)
    rows = (row for part in parts for row in part)
    try:
        problems = [source.convert(row, i) for i, row in enumerate(counted(rows, f"reading {source.id}"))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{source.id} no longer has the columns it had ({type(error).__name__}: {error}); {local}"
        ) from None
    return [p for p in problems if p.answer]


def download(source: HubSource, local: str) -> list[Any]:
    """The parts of a data set, from the hub or from what an earlier download left in the cache.

    Raises:
        UserError: neither has it; the message names the mirror and, with `local`, the way around the hub.
    """
    import datasets  # kept out of the commands that need no hub

    from_where = f"{source.id} (or its mirror {source.mirror})" if source.mirror else source.id
    kept = Path(datasets.config.HF_DATASETS_CACHE) / source.id.replace("/", "___")
    if not hub.answers(source.id, "dataset") and not kept.is_dir():
        raise UserError(f"cannot load {from_where}: {hub.silence(source.id)}, or {local}")
    try:
        return [datasets.load_dataset(source.id, config, split=source.split) for config in source.configs]
    except Exception as error:
        # Whatever went wrong (a vanished id, a file that is no longer there), the remedy is the same.
        raise UserError(f"cannot load {from_where} from the hub ({type(error).__name__}); {local}") from None


def content_sha256(problems: Iterable[Problem]) -> str:
    """Hash of ids, texts and answers, in order: the same for the same problems under the same ids."""
    digest = hashlib.sha256()
    for p in problems:
        digest.update(json.dumps([p.id, p.problem, p.answer]).encode())
    return digest.hexdigest()
