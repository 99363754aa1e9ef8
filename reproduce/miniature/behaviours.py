"""Which published behaviours do the miniature's records show? Tables from the records alone, nothing is run.

    python -m reproduce.miniature.behaviours            prints them and writes results/miniature/report/behaviours.md

    Dr. GRPO   responses to wrong answers stay shorter than GRPO's (arXiv 2503.20783)
    DAPO       clip-higher keeps more entropy than a symmetric clip (arXiv 2503.14476); dynamic sampling draws more
    GSPO       clips about a hundred times as often as GRPO (arXiv 2507.18071)
    CISPO      no token loses its gradient, few weights reach their bound (arXiv 2506.13585)

Every number is a mean over the rollouts of the second half of a run, then over seeds, with the standard deviation over seeds.
A run of 16 rollouts with answers of about 20 tokens can contradict such a statement about itself, not about long reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lco.disk import write_text
from lco.evidence.records import read_all
from lco.evidence.report import titles
from lco.evidence.tables import by_model, runs_of
from reproduce.common.entry import command_parser, run_command
from reproduce.common.study import RESULTS

MODULE = "reproduce.miniature.behaviours"
COLUMNS = {
    "length_right": ("length, right", 1.0, 1),
    "length_wrong": ("length, wrong", 1.0, 1),
    "entropy": ("entropy, nats", 1.0, 3),
    "clip_high": ("clipped above, %", 100.0, 2),
    "clip_low": ("clipped below, %", 100.0, 2),
    "rows_kept": ("rows learnt from", 1.0, 0),
    "generation_multiplier": ("drawn / used", 1.0, 2),
    "kl_old": ("KL(old ‖ new)", 1.0, 4),
}
"""curve → (heading, factor, digits)"""


def second_half(record: Mapping[str, Any], curve: str) -> float | None:
    """Mean of a curve over the later half of a run; None where it was not recorded."""
    values = record["curves"].get(curve)
    if values is None:
        return None
    later = [value for value in values[len(values) // 2 :] if value is not None]
    return fmean(later) if later else None


def cell(runs: Sequence[Mapping[str, Any]], curve: str) -> str:
    _, factor, digits = COLUMNS[curve]
    found = [factor * value for value in (second_half(run, curve) for run in runs) if value is not None]
    if not found:
        return ""
    spread = f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{fmean(found):.{digits}f}{spread}"


def table(records: Sequence[Mapping[str, Any]]) -> str:
    names = titles()
    lines = [
        "| method | " + " | ".join(heading for heading, _, _ in COLUMNS.values()) + " | seeds |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for method, runs in runs_of(records).items():
        row = [cell(runs, curve) for curve in COLUMNS]
        lines.append(f"| {names.get(method, method)} | " + " | ".join(row) + f" | {len(runs)} |")
    return "\n".join(lines)


def write_tables(folder: Path) -> None:
    """Prints the tables of a folder's records, and writes them into its report.

    Raises:
        UserError: there is no record, or a broken one.
    """
    parts = ["Means over the second half of every run, then over seeds, ± standard deviation over seeds.", ""]
    for model_class, records in by_model(read_all(folder)).items():
        parts += [f"### {model_class}", "", table(records), ""]
    text = "\n".join(parts)
    write_text(folder / "report" / "behaviours.md", text)
    print(text)


def main() -> None:
    parser = command_parser(MODULE, __doc__)
    parser.add_argument("--records", type=Path, default=RESULTS / "miniature", help="folder of the records")
    chosen = parser.parse_args()
    run_command(lambda: write_tables(chosen.records), MODULE)


if __name__ == "__main__":
    main()
