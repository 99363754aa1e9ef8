"""Which knobs does each method get? Four tries a method on validation problems of one class, carried over to the other.

    python -m reproduce.miniature.tune                  the methods of `make reproduce` (15 minutes on two quiet cores)
    python -m reproduce.miniature.tune --methods all    every method of the big table (40 minutes)
    python -m reproduce.miniature.tune --methods grpo   only these methods' tries
    python -m reproduce.miniature.tune --wider          tries beyond the four, which no preset comes from (ten minutes)

Each try is one training run with the budget of the final runs (`budget.py` holds both), with a seed that no final run
uses. Its score is pass@1 at T = 1 on 512 validation problems after the last rollout; the best of the four becomes the
preset. The test problems are never read. Records land one by one in results/miniature/search/, a try whose record is there
is not repeated, and reproduce/miniature/presets.json is written from them when all tries of a method are in. A record of
other knobs than the try of its number has now is refused by name.

`--wider` asks what the limit of four costs: five methods whose choice lies at the edge of their tries get more of them in
the direction of that edge (`WIDER` in budget.py), numbered on from the four, results/miniature/report/wider.md sets the
best of all beside the best of four, and `reproduce.miniature.run --wider` runs what was best of all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lco.config import Experiment
from lco.disk import read_lines, write_json, write_text
from lco.provenance import collect
from reproduce.common.entry import add_processes, command_parser, run_command
from reproduce.common.study import RESULTS, Cell, Record, Study, make_missing
from reproduce.miniature import budget

MODULE = "reproduce.miniature.tune"
RECORDS = RESULTS / "miniature" / "search"
VALIDATION_PROBLEMS = 512


def record_file(method: str, number: int) -> Path:
    return RECORDS / f"{method}-{number}.json"


def tries(method: str) -> list[dict[str, Any]]:
    """The four that presets come from, then the wider ones."""
    return [*budget.TRIES[method], *budget.WIDER.get(method, ())]


def experiment(method: str, knobs: Mapping[str, Any], folder: Path) -> Experiment:
    """The training run of one try."""
    # Validated once, at the end, on more problems than the curves of the final runs use.
    watched = {"eval_every": budget.COMMON["steps"], "eval_problems": VALIDATION_PROBLEMS}
    return budget.experiment(budget.TUNING_CLASS, method, budget.TUNING_SEED, {**knobs, **watched}, folder)


def cell_of(method: str, number: int, knobs: Mapping[str, Any], out: Path, record: Path) -> Cell:
    """A method's try of that number."""
    name = f"{method}-{number}"
    run = experiment(method, knobs, out / name)
    defined = {
        "method": method,
        "try": number,
        "class": budget.CLASSES[budget.TUNING_CLASS],
        "seed": budget.TUNING_SEED,
        "knobs": knobs,
        "validation_problems": VALIDATION_PROBLEMS,
    }
    return Cell(name, run, record, defined, run.steps)


def plan_cells(wanted: Mapping[str, int], out: Path) -> list[Cell]:
    """These methods' first so many tries."""
    return [
        cell_of(method, number, tries(method)[number], out, record_file(method, number))
        for method, count in wanted.items()
        for number in range(count)
    ]


def record_try(cell: Cell) -> Record:
    """Scores on validation problems before and after a finished try."""
    lines = read_lines(cell.folder / "metrics.jsonl")
    return {
        "schema": "lco-search/1",
        **cell.defined,
        "start": lines[0]["validation"],
        "end": lines[-1]["validation"],
        "tokens": sum(line.get("tokens", 0) for line in lines),
        "provenance": collect(),
    }


def describe_try(record: Record) -> str:
    return f"{named(record['knobs'])}: pass@1 {record['end']['pass@1']:.1%}, greedy {record['end']['greedy']:.1%}"


def best_tries(methods: Iterable[str], wider: bool = False) -> dict[str, Any]:
    """The best of the four tries, or of all, of every method for which all of them are recorded."""
    found: dict[str, Any] = {}
    for method in methods:
        count = len(tries(method) if wider else budget.TRIES[method])
        best = best_of([record_file(method, number) for number in range(count)])
        if best is not None:
            found[method] = best
    return found


def best_of(files: Iterable[Path]) -> dict[str, Any] | None:
    """The best of the tries in these files, and all of them; None where one is not there."""
    files = list(files)
    if not all(file.exists() for file in files):
        return None
    tried = [
        {"knobs": record["knobs"], "validation_pass@1": record["end"]["pass@1"]}
        for record in (json.loads(file.read_text(encoding="utf-8")) for file in files)
    ]
    return {**max(tried, key=lambda one: one["validation_pass@1"]), "tried": tried}


def wider_table() -> str:
    """Best of four beside best of all, for the methods whose wider tries are all recorded."""
    lines = [
        "pass@1 (T = 1) on validation problems of the Llama class, one seed; the presets come from the four.",
        "",
        "| method | best of four | | best of all | | tries |",
        "|---|---|---|---|---|---|",
    ]
    four = best_tries(budget.WIDER)
    for method, best in best_tries(budget.WIDER, wider=True).items():
        cells = [f"{c['validation_pass@1']:.1%} | {named(c['knobs'])}" for c in (four[method], best)]
        lines.append(f"| {method} | {' | '.join(cells)} | {len(best['tried'])} |")
    return "\n".join(lines) + "\n"


def named(knobs: Mapping[str, Any]) -> str:
    """`lr 0.0005, beta 0.7`."""
    flat = {**{k: v for k, v in knobs.items() if k != "hyper"}, **knobs.get("hyper", {})}
    return ", ".join(f"{name} {value:g}" for name, value in flat.items())


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    parser.add_argument(
        "--methods", nargs="+", default=list(budget.METHODS), choices=["all", *budget.TRIES], metavar="METHOD"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), help="where the runs go")
    add_processes(parser)
    parser.add_argument(
        "--wider", action="store_true", help="tries beyond the four, for five methods chosen at their edge"
    )
    chosen = parser.parse_args()
    if "all" in chosen.methods:
        chosen.methods = [*budget.METHODS, *budget.BASELINES]
    return chosen


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a record or run folder is of another try, or tries failed.
    """
    if chosen.wider:
        wanted = {method: len(tries(method)) for method in budget.WIDER}
    else:
        wanted = {method: len(budget.TRIES[method]) for method in chosen.methods}
    made = make_missing(Study("tries", plan_cells(wanted, chosen.out), record_try, describe_try), chosen.processes)
    made.require_all()
    if chosen.wider:
        write_json(budget.WIDER_PRESETS, best_tries(budget.WIDER, wider=True))
        text = wider_table()
        write_text(RECORDS.parent / "report" / "wider.md", text)
        print(text)
    else:
        write_json(budget.PRESETS, best_tries(budget.TRIES))
        print(f"presets: {budget.PRESETS}")


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE)


if __name__ == "__main__":
    main()
