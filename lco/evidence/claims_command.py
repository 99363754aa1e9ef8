"""`lco claims`: what the records say of every claim in claims.toml."""

from __future__ import annotations

import argparse
from pathlib import Path

from lco.disk import write_text
from lco.evidence.formats import markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Judges every claim of a claims.toml by the records beside it: supported, contradicted, mixed, or not tested and what a "
        "test would take. Verdicts are computed, none is written by hand."
    )
    parser.epilog = "example: lco claims --results results --out results/claims.md"
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records (default: results)")
    parser.add_argument("--claims", type=Path, help="the file of claims (default: RESULTS/claims.toml)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table here too, as Markdown")


def run(arguments: argparse.Namespace) -> int:
    from lco.evidence.claims import judge, read_claims, table_of, untested  # numpy, which --help does without

    claims = read_claims(arguments.claims or arguments.results / "claims.toml")
    judged = [(claim, judge(claim, arguments.results)) for claim in claims]
    for claim, verdict in judged:
        print(f"{verdict.word.upper():<13} {claim.id}: {claim.words}")
        for effect in verdict.effects:
            print(
                f"{'':<13}     {'+' if effect.sign > 0 else '-' if effect.sign < 0 else ' '} {effect.of} {effect.found}"
            )
        if not verdict.effects:
            print(f"{'':<13}     {untested(claim)}")
    if arguments.out:
        write_text(arguments.out, markdown(table_of(judged)))
        print(f"written to {arguments.out}")
    return 0
