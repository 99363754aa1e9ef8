"""The final screen of `make reproduce`: what was made, what it means, where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lco.evidence.report import build
from lco.evidence.tables import Table

COLUMNS = ("method", "pass@1, T = 1", "gain", "beyond sharpening", "greedy", "greedy gain")
"""What of the table fits a terminal."""


def build_report(records: Path, report: Path, beside: Sequence[Path] = ()) -> None:
    """Builds table, figures and page of these records, and those in folders beside them, and prints the short version."""
    tables = build(records, report, beside=beside)
    for table in tables:
        if set(COLUMNS) <= set(table.header):  # the tables of differences stay on the page
            print(screen(table))
    print(
        "gain = over the start model at T = 1.  beyond sharpening = over the start sampled greedily or at its best\n"
        "temperature, which needs no training.  greedy gain = the trained model's greedy score over the start's.\n"
        "* learns from right answers or pairs alone, or draws more; stands apart.\n\n"
        f"table      {report / 'table.md'}\n"
        f"figure     {report / 'learning_curves.png'}\n"
        f"page       {report / 'index.html'}\n"
        f"records    {records}"
    )


def screen(table: Table) -> str:
    """The table's columns that fit a terminal."""
    columns = [table.header.index(name) for name in COLUMNS]
    lines = [[table.header[i] for i in columns], *([row[i] for i in columns] for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return f"\n{table.title}\n{text}\n"
