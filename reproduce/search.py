"""Chooses every method's knobs on validation problems: four tries a method on one class, carried over to the other.

    python reproduce/search.py                  the tries of the methods of `make reproduce` (about 15 minutes on two quiet cores)
    python reproduce/search.py --methods all    of every method of the big table (about 40 minutes), resumable
    python reproduce/search.py --methods grpo   only these methods' tries
    python reproduce/search.py --wider         tries beyond the four, which no preset comes from (about ten minutes)

Each try is one training run of the setting that `miniature.py` uses (`setting.py` holds both), with a seed that no
final run uses. Its score is pass@1 at T = 1 on 512 validation problems after the last rollout; the best of the four
becomes the preset. The test problems are never read. Records land one by one in results/miniature/search/, a try whose
record is there is not repeated, and reproduce/presets.json is written from them when all tries of a method are in.
A record of other knobs than the try of its number has now is refused by name.

`--wider` asks what the limit of four costs: five methods whose choice lies at the edge of their tries get more of them in
the direction of that edge (`WIDER` in setting.py), numbered on from the four, results/miniature/report/wider.md sets the best of
all beside the best of four, and `miniature.py --wider` runs what was best of all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from lco.config import Experiment  # noqa: E402
from lco.disk import write_json, write_text  # noqa: E402
from lco.errors import UserError  # noqa: E402
from reproduce import kept, setting  # noqa: E402
from reproduce.worker import become_worker, side_by_side, trained  # noqa: E402

RECORDS = HERE.parent / "results" / "miniature" / "search"
VALIDATION_PROBLEMS = 512


def record_file(method: str, number: int) -> Path:
    return RECORDS / f"{method}-{number}.json"


def tries(method: str) -> list[dict[str, Any]]:
    """The four that presets come from, then the wider ones."""
    return [*setting.TRIES[method], *setting.WIDER.get(method, ())]


def experiment(method: str, number: int, folder: Path) -> Experiment:
    """The training run of one try."""
    # Validated once, at the end, on more problems than the curves of the final runs use.
    watched = {"eval_every": setting.COMMON["steps"], "eval_problems": VALIDATION_PROBLEMS}
    knobs = {**tries(method)[number], **watched}
    return setting.experiment(setting.SEARCH_CLASS, method, setting.SEARCH_SEED, knobs, folder)


def defined(method: str, number: int) -> dict[str, Any]:
    """The part of a try's record that is known before it runs."""
    return {
        "method": method,
        "try": number,
        "class": setting.CLASSES[setting.SEARCH_CLASS],
        "seed": setting.SEARCH_SEED,
        "knobs": tries(method)[number],
        "validation_problems": VALIDATION_PROBLEMS,
    }


def refuse_others(wanted: Mapping[str, int], out: Path) -> None:
    """Compares the records and run folders that are there with these methods' first so many tries.

    Raises:
        UserError: one is of another try.
    """
    for method, number in ((m, n) for m, count in wanted.items() for n in range(count)):
        run = experiment(method, number, out / f"{method}-{number}")
        kept.refuse_another_run(record_file(method, number), defined(method, number), run)


def one_try(task: tuple[str, int, str]) -> str:
    """Trains and validates one try; writes its record."""
    method, number, out = task
    become_worker()
    from lco.provenance import collect

    lines = trained(experiment(method, number, Path(out) / f"{method}-{number}"))
    record = {
        "schema": "lco-search/1",
        **defined(method, number),
        "start": lines[0]["validation"],
        "end": lines[-1]["validation"],
        "tokens": sum(line.get("tokens", 0) for line in lines),
        "provenance": collect(),
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    write_json(record_file(method, number), record)
    return f"{method} {record['knobs']}: pass@1 {record['end']['pass@1']:.1%}, greedy {record['end']['greedy']:.1%}"


def chosen(methods: Iterable[str], wider: bool = False) -> dict[str, Any]:
    """The best of the four tries, or of all, of every method for which all of them are recorded."""
    found: dict[str, Any] = {}
    for method in methods:
        count = len(tries(method) if wider else setting.TRIES[method])
        files = [record_file(method, number) for number in range(count)]
        if not all(file.exists() for file in files):
            continue
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        best = max(records, key=lambda record: record["end"]["pass@1"])
        found[method] = {
            "knobs": best["knobs"],
            "validation_pass@1": best["end"]["pass@1"],
            "tried": [{"knobs": r["knobs"], "validation_pass@1": r["end"]["pass@1"]} for r in records],
        }
    return found


def wider_table() -> str:
    """Best of four beside best of all, for the methods whose wider tries are all recorded."""
    lines = [
        "pass@1 (T = 1) on validation problems of the Llama class, one seed; the presets come from the four.",
        "",
        "| method | best of four | | best of all | | tries |",
        "|---|---|---|---|---|---|",
    ]
    four = chosen(setting.WIDER)
    for method, best in chosen(setting.WIDER, wider=True).items():
        cells = [f"{c['validation_pass@1']:.1%} | {named(c['knobs'])}" for c in (four[method], best)]
        lines.append(f"| {method} | {' | '.join(cells)} | {len(best['tried'])} |")
    return "\n".join(lines) + "\n"


def named(knobs: Mapping[str, Any]) -> str:
    """`lr 0.0005, beta 0.7`."""
    flat = {**{k: v for k, v in knobs.items() if k != "hyper"}, **knobs.get("hyper", {})}
    return ", ".join(f"{name} {value:g}" for name, value in flat.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", nargs="+", default=list(setting.METHODS), choices=["all", *setting.TRIES], metavar="METHOD"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/search"), help="where the runs go")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--wider", action="store_true", help="tries beyond the four, for five methods chosen at their edge"
    )
    options = parser.parse_args()
    if "all" in options.methods:
        options.methods = [*setting.METHODS, *setting.BASELINES]
    wanted = (
        {m: len(tries(m)) for m in setting.WIDER}
        if options.wider
        else {m: len(setting.TRIES[m]) for m in options.methods}
    )
    try:
        refuse_others(wanted, options.out)
    except UserError as error:
        raise SystemExit(f"search.py: {error}") from None
    tasks = [
        (method, number, str(options.out))
        for method, count in wanted.items()
        for number in range(count)
        if not record_file(method, number).exists()
    ]
    side_by_side(one_try, tasks, options.processes, "tries")
    if options.wider:
        write_json(setting.WIDER_PRESETS, chosen(setting.WIDER, wider=True))
        text = wider_table()
        write_text(RECORDS.parent / "report" / "wider.md", text)
        print(text)
        return
    write_json(setting.PRESETS, chosen(list(setting.TRIES)))
    print(f"presets: {setting.PRESETS}")


if __name__ == "__main__":
    main()
