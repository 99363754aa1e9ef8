"""`lco leaderboard`: pages of result records that a reader can sort, filter and open, down to a sample."""

from __future__ import annotations

import argparse
from pathlib import Path

from lco.errors import UserError
from lco.evidence.formats import visible

DESCRIPTION = """\
Makes a leaderboard of the result records below a folder: one HTML file that holds everything and asks nobody for anything.
It can be read without script. With script a table is sorted by any column (a click on its head) and filtered by model
family, scale, benchmark, kind of method and seeds, and a row opens to curves with a band over seeds, knobs, cost, commit
and machine of every run, its records, and samples with the verifier's verdicts. Under each board stand the paired
differences of all methods as a map, with intervals and p-values, and LaTeX of the columns that you choose.

A folder with a README.md is a folder of results, with all records below it. One makes OUT/index.html. Several, as below
results/, make a page each, and OUT/index.html lists them with what stands first on each; --together makes one page of all.
A folder whose records cannot stand side by side is listed with the reason. The same records give the same bytes."""
EXAMPLES = """\
examples:
  lco leaderboard --results records                            of your own records, into records/leaderboard/
  lco leaderboard --results results                            of all result folders, with an index
  lco leaderboard --results results/miniature results/lco_wider --together --out runs/board"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[Path("results")],
        metavar="FOLDER",
        help="folders of records (default: results)",
    )
    parser.add_argument("--out", type=Path, help="where the pages go (default: leaderboard in the first FOLDER)")
    parser.add_argument("--title", default="", help="title of index.html (default: what the folder's README is headed)")
    parser.add_argument(
        "--together", action="store_true", help="one page of all folders, in place of a page each and an index"
    )


def run(arguments: argparse.Namespace) -> int:
    from lco.evidence.leaderboard import build  # numpy and jinja2, which --help does without

    out = arguments.out or arguments.results[0] / "leaderboard"
    try:
        said = build(arguments.results, out, arguments.title, arguments.together)
    except UserError as error:  # it names what stands in somebody's record
        raise UserError(visible(str(error))) from None
    for reason in said.pop("", []):
        print(f"no board of {visible(reason)}")
    for file, shown in said.items():
        print(f"{out / file}: {visible(', '.join(shown))}")
    return 0
