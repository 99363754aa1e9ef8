"""Tables as pure functions of records: the comparison of methods, in Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lco.errors import UserError
from lco.evidence.statistics import hierarchical_interval

Record = Mapping[str, Any]

APART = ("dapo_refill", "rft", "sft")
"""Methods that draw more samples, or learn from verified samples or reference solutions alone; they stand below a line."""


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def sampled(record: Record) -> Mapping[str, Any]:
    """The record's evaluation at T = 1."""
    return evaluation(record, lambda e: e["sampling"]["temperature"] == 1.0)


def greedy(record: Record) -> Mapping[str, Any]:
    return evaluation(record, lambda e: e["sampling"]["temperature"] == 0.0)


def evaluation(record: Record, wanted: Any) -> Mapping[str, Any]:
    """The one evaluation that fits.

    Raises:
        UserError: none or several do.
    """
    found = [e for e in record["evaluations"] if wanted(e)]
    if len(found) != 1:
        raise UserError(
            f"record of {record['method']} seed {record['seed']} has {len(found)} evaluations where one is needed"
        )
    return found[0]


def comparable(records: Iterable[Record]) -> None:
    """Refuses to put unlike things into one table.

    Raises:
        UserError: other problems, a limit on one side, other sample counts, or unequal budgets; both sides are named.
    """
    first: dict[str, tuple[str, Any]] = {}
    for record in records:
        name = f"{record['model']['class']} {record['method']} seed {record['seed']}"
        facts = {
            "test problems": sampled(record)["ids_sha256"],
            "limit": sampled(record)["limit"],
            "samples a problem": sampled(record)["samples"],
            "length limit": sampled(record)["sampling"]["max_new_tokens"],
            "task": sampled(record)["task"],
            "greedy test problems": greedy(record)["ids_sha256"],
            "limit of the greedy evaluation": greedy(record)["limit"],
            "greedy length limit": greedy(record)["sampling"]["max_new_tokens"],
            f"start weights of {record['model']['class']}": record["model"]["sha256"],
        }
        for key in ("top_p", "top_k"):
            facts[key] = sampled(record)["sampling"].get(key)
        if record["method"] not in (*APART, "start"):
            budget = record["budget"]
            facts |= {key: budget[key] for key in ("rollouts", "rows")}
            if not filtered(record):
                facts["updates"] = budget["updates"]
        for fact, value in facts.items():
            other, expected = first.setdefault(fact, (name, value))
            if value != expected:
                raise UserError(f"cannot compare {other} and {name}: {fact} is {expected} and {value}")


def filtered(record: Record) -> bool:
    """Whether the method left sampled rows out of its updates, which may leave it fewer of them."""
    kept = [rows for rows in record["curves"].get("rows_kept", []) if rows is not None]
    return sum(kept) < record["budget"]["rows"] if kept else False


def collapsed(record: Record) -> bool:
    """Whether pass@1 on validation problems ended below half of its running maximum, or was no number."""
    path = [float(x) for x in record["curves"]["validation"]["pass@1"]]
    return not all(map(math.isfinite, path)) or path[-1] < max(path) / 2


def by_class(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["model"]["class"], []).append(record)
    return dict(sorted(found.items()))


def runs_of(records: Iterable[Record]) -> dict[str, list[Record]]:
    """{method: its records by seed}, methods in the order of the registry's names, those that stand apart last."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["method"] in APART, r["method"], r["seed"] or 0)):
        if record["method"] != "start":
            found.setdefault(record["method"], []).append(record)
    return found


def leaderboard(records: Iterable[Record]) -> dict[str, list[Record]]:
    """`runs_of` with the highest mean pass@1 at T = 1 first; those that stand apart stay last."""

    def place(item: tuple[str, list[Record]]) -> tuple[bool, float]:
        method, runs = item
        return method in APART, -statistics.fmean(sampled(r)["scores"]["pass@1"] for r in runs)

    return dict(sorted(runs_of(records).items(), key=place))


def rates(records: Sequence[Record]) -> np.ndarray:
    """[seeds, problems] share of right samples at T = 1."""
    return np.array([np.asarray(sampled(r)["correct"]) / sampled(r)["samples"] for r in records])


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def spread(values: Sequence[float]) -> str:
    """mean ± sample standard deviation, in per cent."""
    mean = percent(statistics.fmean(values))
    return f"{mean} ± {percent(statistics.stdev(values))}" if len(values) > 1 else mean


def share(evaluations: Sequence[Mapping[str, Any]], name: str) -> str:
    """Mean of a rate among the scores, in per cent; empty where an older record lacks it."""
    found = [e["scores"].get(name) for e in evaluations]
    return "" if None in found else percent(statistics.fmean(found))


def shares(evaluations: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What explains a low score: responses without an answer, and responses cut by the token limit."""
    return share(evaluations, "no_answer"), share(evaluations, "truncated")


def comparison(model_class: str, records: Sequence[Record], titles: Mapping[str, str]) -> Table:
    """Start and methods of one class, the best first. `titles` maps method names to printed ones."""
    comparable(records)
    start = next((r for r in records if r["method"] == "start"), None)
    if start is None:
        raise UserError(f"{model_class}: the record of the start model is missing")
    base, base_greedy = sampled(start)["scores"]["pass@1"], greedy(start)["scores"]["pass@1"]
    cooled = evaluation(start, lambda e: 0 < e["sampling"]["temperature"] < 1)
    sharpened = max(base_greedy, cooled["scores"]["pass@1"])
    rows = [
        ("start, T = 1", percent(base), "", "", "", percent(base_greedy), "", pass_at(start), "", "", "",
         *shares([sampled(start)])),
        ("start, greedy", percent(base_greedy), "", f"+{percent(base_greedy - base)}", "", "", "", "", "", "", "",
         *shares([greedy(start)])),
        (f"start, T = {cooled['sampling']['temperature']:g} (chosen on validation)",
         percent(cooled["scores"]["pass@1"]), "", f"+{percent(cooled['scores']['pass@1'] - base)}", "", "", "", "", "", "", "",
         *shares([cooled])),
    ]  # fmt: skip
    for method, runs in leaderboard(records).items():
        scores = [sampled(r)["scores"]["pass@1"] for r in runs]
        watched = [r for r in runs if "validation" in r["curves"]]
        mean, greedies = statistics.fmean(scores), [greedy(r)["scores"]["pass@1"] for r in runs]
        low, high = hierarchical_interval(rates(runs))
        eights = [r for r in (sampled(run)["scores"]["pass@k"].get("8") for run in runs) if r is not None]
        rows.append(
            (
                titles.get(method, method) + (" *" if method in APART else ""),
                spread(scores),
                f"[{percent(low)}, {percent(high)}]",
                f"{100 * (mean - base):+.1f}",
                f"{100 * (mean - sharpened):+.1f}",
                spread(greedies),
                f"{100 * (statistics.fmean(greedies) - base_greedy):+.1f}",
                spread(eights) if len(eights) == len(runs) else "",
                ", ".join(percent(s) for s in scores),
                f"{statistics.fmean([r['budget']['response_tokens'] for r in runs]) / 1000:.0f} k",
                f"{sum(map(collapsed, watched))}/{len(watched)}" if watched else "",
                *shares([sampled(run) for run in runs]),
            )
        )
    header = ("method", "pass@1, T = 1", "95 % interval", "gain", "beyond sharpening", "greedy", "greedy gain", "pass@8",
              "seeds", "tokens", "collapsed", "no answer", "cut")  # fmt: skip
    task = sampled(start)
    notes = (
        f"{task['task']}: {task['problems']} test problems, {task['samples']} samples each at T = 1, read once at the end.",
        "pass@1: mean ± sample standard deviation over training seeds; the interval resamples seeds and problems.",
        "gain: over the start at T = 1. beyond sharpening: over the better of the start's greedy and cooled rows, which "
        "need no training.",
        "collapsed: runs whose pass@1 on validation problems ended below half of its best.",
        "no answer, cut: per cent of the responses in which the verifier found none, and that the token limit cut; at T = 1, "
        "mean over seeds, in the start's other rows at their own temperature.",
        "* stands apart: learns from right samples alone (RFT) or from reference solutions (SFT), or draws more samples "
        "(DAPO with refill).",
    )
    return Table(model_class, header, tuple(rows), notes)


def pass_at(record: Record) -> str:
    found = sampled(record)["scores"]["pass@k"]
    return percent(found["8"]) if "8" in found else ""


def markdown(table: Table) -> str:
    lines = [f"### {table.title}", "", "| " + " | ".join(table.header) + " |", "|---" * len(table.header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes), ""])


def latex(table: Table) -> str:
    escape = str.maketrans(
        {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$", "−": "$-$", "$": r"\$", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    )  # fmt: skip
    body = [" & ".join(cell.translate(escape) for cell in row) + r" \\" for row in table.rows]
    head = " & ".join(cell.translate(escape) for cell in table.header) + r" \\"
    columns = "l" + "r" * (len(table.header) - 1)
    return "\n".join(
        [
            f"% {table.title}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "\n".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in table.notes)
    grid = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    return f"<h3>{html.escape(table.title)}</h3>\n<div class=scroll>{grid}</div>\n{notes}\n"


def _cells(row: Sequence[str]) -> str:
    first, *rest = (html.escape(cell) for cell in row)
    return f"<th>{first}</th>" + "".join(f"<td>{cell}</td>" for cell in rest)
