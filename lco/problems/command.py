"""`lco problems`: the problem sets and prompt styles, or what would be read of a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from lco.errors import UserError
from lco.problems.local import parse_columns, read_problems
from lco.problems.prompts import STYLES, encode_all, style_named
from lco.problems.records import Problem
from lco.problems.sets import SETS, is_held_out
from lco.verifier import Pool, Rules

T = TypeVar("T")

SHOWN = 5
"""Examples of what is wrong with a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Lists the problem sets with their splits, and the prompt styles, that `lco train` and the tasks use. `lco problems "
        "check FILE` says what would be read of a file, what is broken, too long for a model, or unreadable by the verifier."
    )
    parser.epilog = "example: lco problems check mine.csv --columns problem=question answer=final --model MODEL"
    parser.add_argument("action", nargs="?", choices=("check",), help="check a file")
    parser.add_argument("file", nargs="?", help="the file: .jsonl, .json, .csv or .parquet")
    parser.add_argument("--columns", nargs="+", metavar="KEY=COLUMN", default=[], help="as for lco train")
    parser.add_argument("--model", default="", help="whose tokens prompts are counted in (default: they are not)")
    parser.add_argument("--prompt", default="plain", help="prompt style")
    parser.add_argument("--max-prompt-tokens", type=int, default=512, help="longer prompts are dropped (default: 512)")
    parser.add_argument("--eval-share", type=float, default=0.0, help="also count the validation share of lco train")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action:
        return check(arguments)
    print("problem sets:\n" + "\n".join(f"  {name:20} {', '.join(s.splits)}" for name, s in SETS.items()))
    print("prompt styles:\n" + "\n".join(f"  {name:20} {style.template!r}" for name, style in STYLES.items()))
    return 0


def check(arguments: argparse.Namespace) -> int:
    """
    Raises:
        UserError: the file is missing, has no such columns, or holds nothing that can be read.
    """
    if not arguments.file:
        raise UserError("lco problems check has no file; name one that ends in .jsonl, .json, .csv or .parquet")
    style = style_named(arguments.prompt)
    columns = parse_columns(arguments.columns)
    faults: list[UserError] = []
    problems = read_problems(Path(arguments.file), columns, faults.append)
    if not problems:
        raise UserError(f"nothing of {arguments.file} can be read: {faults[0]}")
    print(f"{arguments.file}: {len(problems)} problems can be read")
    report(faults, "broken rows, with which `lco train` refuses the file", str)
    unread = unreadable(problems)
    report(
        unread, "answers that the verifier cannot read, so no response is right", lambda p: f"{p.id}: {p.answer[:60]!r}"
    )
    if arguments.model:
        from lco import models  # torch, which counting without a model does without

        lengths = [len(ids) for ids in encode_all(models.load_tokenizer(arguments.model), problems, style)]
        long = [(p, n) for p, n in zip(problems, lengths, strict=True) if n > arguments.max_prompt_tokens]
        print(f"  longest prompt: {max(lengths)} tokens")
        report(
            long, f"prompts longer than {arguments.max_prompt_tokens} tokens: dropped", lambda x: f"{x[0].id}: {x[1]}"
        )
    if arguments.eval_share:
        held = sum(is_held_out(p, arguments.eval_share) for p in problems)
        print(f"  {held} are for validation at --eval-share {arguments.eval_share:g}")
    return 1 if faults else 0


def report(found: Sequence[T], what: str, told: Callable[[T], str]) -> None:
    """So many of them, and the first few."""
    print(f"  {len(found)} {what}")
    for item in found[:SHOWN]:
        print(f"    {told(item)}")


def unreadable(problems: Iterable[Problem]) -> list[Problem]:
    """Those whose own answer, in a box, the verifier does not find right."""
    chosen = list(problems)
    with Pool(workers=1) as pool:
        verdicts = pool.verify_many([(f"\\boxed{{{p.answer}}}", p.answer) for p in chosen], Rules())
    return [p for p, verdict in zip(chosen, verdicts, strict=True) if not verdict.correct]
