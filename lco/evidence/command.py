"""`lco table`: tables, figures and page from result records."""

from __future__ import annotations

import argparse
from pathlib import Path

from lco.errors import UserError
from lco.evidence.formats import latex, markdown, visible
from lco.evidence.reported import whole_ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Builds table.md, table.tex, the figures and a self-contained page from the result records below a folder. "
        "The same records give the same bytes."
    )
    parser.epilog = "example: lco table --results results/miniature --out results/miniature/report"
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[Path("results/miniature")],
        metavar="FOLDER",
        help="folders of records (default: results/miniature); several stand in one table",
    )
    parser.add_argument("--out", type=Path, help="where the report goes (default: report/ in the first of them)")
    parser.add_argument(
        "--title", default="", help="title of the page (default: what the README in the first folder is headed)"
    )
    parser.add_argument(
        "--reported",
        action="store_true",
        help="print what papers report, with source and confidence, and read no records",
    )
    parser.add_argument("--format", default="md", choices=("md", "latex"), help="what is printed (all are written)")


def run(arguments: argparse.Namespace) -> int:
    from lco.evidence.report import build  # numpy and matplotlib, which --help does without

    if arguments.reported:
        print(markdown(whole_ledger()) if arguments.format == "md" else latex(whole_ledger()))
        return 0
    source, *beside = arguments.results
    out = arguments.out or source / "report"
    try:
        tables = build(source, out, arguments.title, beside)
    except UserError as error:  # it names what stands in somebody's record
        raise UserError(visible(str(error))) from None
    for table in tables:
        print(markdown(table) if arguments.format == "md" else latex(table))
    page = out / "index.html"
    print(
        f"written to {out}: table.md, table.tex{', index.html, and the figures as PNG and SVG' if page.exists() else ''}"
    )
    return 0
