"""The comparison of methods, and what of the records may stand in one table: pure functions of records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lco.errors import UserError
from lco.evidence.check import SEAL
from lco.evidence.formats import Table
from lco.evidence.names import code_of, family, from_outside, is_control, rewards_of, row_key
from lco.evidence.statistics import hierarchical_interval

Record = Mapping[str, Any]

COMPARED = ("lco", "baseline")
"""Families whose methods are compared with each other. The others stand last, marked *: their data differ."""
DATA = {"imitation": "right answers alone", "preference": "pairs of a right and a wrong answer"}
"""What those families learn from."""
CONTROL = "rewards dealt out by chance, a control"
RANKS = (
    "ranks: the places that a method may have. One stands above another where their paired difference, over seeds and problems, "
    "is told from chance (p below 5 %, by Holm over all pairs); others share their places. One seed tells nothing apart."
)
"""What the column is, beneath every table that has it."""


def sampled(record: Record) -> Mapping[str, Any]:
    """The record's evaluation at T = 1."""
    return evaluation(record, lambda t: t == 1, "at T = 1", "--temperature 1 --samples 8")


def greedy(record: Record) -> Mapping[str, Any]:
    return evaluation(record, lambda t: t == 0, "at T = 0", "--temperature 0")


def cooled(record: Record) -> Mapping[str, Any] | None:
    """Its evaluation at a lower temperature, None where there is none."""
    if not any(0 < e["sampling"]["temperature"] < 1 for e in record["evaluations"]):
        return None
    return evaluation(record, lambda t: 0 < t < 1, "between T = 0 and 1", "--temperature 0.6 --samples 8")


def evaluation(record: Record, wanted: Callable[[float], bool], where: str, flags: str) -> Mapping[str, Any]:
    """The one evaluation at such a temperature.

    Raises:
        UserError: none or several are, or its problems have unequal numbers of samples.
    """
    found = [e for e in record["evaluations"] if wanted(e["sampling"]["temperature"])]
    if not found:
        start = record["method"] == "start"
        model, evals, again = (
            ("START", "START-evals", "--start START-evals/*.json")
            if start
            else ("RUN/checkpoints/final", "RUN/evals", "RUN")
        )
        raise UserError(
            f"{label(record)} has no evaluation {where}; a table needs one at T = 1 and one at T = 0 of a task: run `lco "
            f"evaluate --model {model} --tasks TASK {flags} --out {evals}`, then `lco record {again}` again"
        )
    if len(found) > 1:
        tasks = ", ".join(str(e["task"]) for e in found)
        raise UserError(
            f"{label(record)} has {len(found)} evaluations {where} ({tasks}), and a table shows one task; keep records of "
            "one task each, a folder a task"
        )
    if not found[0]["samples"] or not found[0]["correct"]:
        raise UserError(
            f"{label(record)}: its evaluation {where} has no problem, or not as many samples of each; evaluate it again"
        )
    return found[0]


def label(record: Record) -> str:
    seed = "" if record["seed"] is None else f" seed {record['seed']}"
    return f"{record['model']['class']} {row_key(record)}{seed}"


def comparable(records: Iterable[Record]) -> None:
    """Refuses to put unlike things into one table.

    Raises:
        UserError: other problems, a limit on one side, other sample counts, or unequal budgets; both sides are named.
    """
    first: dict[str, tuple[Record, Any]] = {}
    for record in records:
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
            f"source of {record['method']}": code_of(record).get("method"),
            **rewards_of(record),
        }
        for key in ("top_p", "top_k"):
            facts[key] = sampled(record)["sampling"].get(key)
        if record["method"] != "start" and not set_apart([record]):
            budget = record["budget"]
            facts |= {key: budget[key] for key in ("rollouts", "rows")}
            if not filtered(record):
                facts["updates"] = budget["updates"] + budget.get("updates_skipped", 0)
        for fact, value in facts.items():
            other, expected = first.setdefault(fact, (record, value))
            if value != expected:
                if fact.startswith("start weights"):
                    expected, value = (f"{r['model']['name']} ({r['model']['sha256'][:8]}…)" for r in (other, record))
                raise UserError(
                    f"cannot compare {label(other)} and {label(record)}: {fact} is {expected} and {value}; give records that "
                    "differ in this a folder of their own"
                )


def set_apart(runs: Iterable[Record]) -> str:
    """Why a method's runs are not compared with the others: other data, or more samples than they learnt from; "" if they
    are."""
    for record in runs:
        if is_control(record):
            return CONTROL
        group = family(record)
        if group not in COMPARED:
            return DATA.get(group, f"the family {group}")
        drawn = record["curves"].get("generation_multiplier", [])
        if any(times > 1 for times in drawn if times is not None):
            return "more prompts drawn than learnt from"
    return ""


def skipped(record: Record) -> int:
    """Updates that moved nothing, because their gradient was no number."""
    return sum(count or 0 for count in record["curves"].get("updates_skipped", []))


def filtered(record: Record) -> bool:
    """Whether the method left sampled rows out of its updates, which may leave it fewer of them."""
    kept = [rows for rows in record["curves"].get("rows_kept", []) if rows is not None]
    return sum(kept) < record["budget"]["rows"] if kept else False


def collapsed(record: Record) -> bool:
    """Whether pass@1 on validation problems ended below half of its running maximum, or was no number."""
    path = record["curves"]["validation"]["pass@1"]
    return any(x is None or not math.isfinite(x) for x in path) or path[-1] < max(path) / 2


def by_model(records: Iterable[Record]) -> dict[str, list[Record]]:
    """{model: its records}: a model is called by its class where its weights are the only ones of it, by its name otherwise."""
    records = list(records)
    weights: dict[str, set[str]] = {}
    for record in records:
        weights.setdefault(record["model"]["class"], set()).add(record["model"]["sha256"])
    found: dict[str, list[Record]] = {}
    for record in records:
        model = record["model"]
        found.setdefault(model["class"] if len(weights[model["class"]]) == 1 else model["name"], []).append(record)
    return dict(sorted(found.items()))


def runs_of(records: Iterable[Record]) -> dict[str, list[Record]]:
    """{method (`row_key`): its records by seed}: the LCO losses first, then the methods that they are compared with, then the
    others; by name within each."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["method"], r["seed"] or 0)):
        if record["method"] != "start":
            found.setdefault(row_key(record), []).append(record)

    def place(runs: Sequence[Record]) -> tuple[bool, bool]:
        return bool(set_apart(runs)), family(runs[0]) != "lco"

    return dict(sorted(found.items(), key=lambda item: place(item[1])))


def rates(records: Sequence[Record]) -> np.ndarray:
    """[seeds, problems] share of right samples at T = 1."""
    return np.array([np.asarray(sampled(r)["correct"]) / sampled(r)["samples"] for r in records])


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of two rates, in points with its sign; zero has no minus."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


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


def start_of(records: Iterable[Record]) -> Record | None:
    """The start model's record, from which every gain is measured; None where it was not evaluated."""
    return next((record for record in records if record["method"] == "start"), None)


def sharpened(start: Record) -> float:
    """The better of what the start model scores greedily and cooled, which needs no training."""
    found = (greedy(start), cooled(start))
    return max(float(e["scores"]["pass@1"]) for e in found if e is not None)


@dataclass(frozen=True)
class Standing:
    """What one method's runs on one class come to.

    Attributes:
        runs: its records by seed.
        scores: their pass@1 at T = 1.
        interval: 95 % of the mean, over seeds and problems.
        apart: why it is not compared with the others, or "".
    """

    method: str
    runs: Sequence[Record]
    scores: Sequence[float]
    interval: tuple[float, float]
    apart: str

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)


def standings(records: Sequence[Record]) -> list[Standing]:
    """The methods of one class, the highest mean first, those that stand apart last.

    Raises:
        UserError: the records may not stand in one table.
    """
    comparable(records)
    found = [
        Standing(
            method,
            runs,
            [sampled(r)["scores"]["pass@1"] for r in runs],
            hierarchical_interval(rates(runs)),
            set_apart(runs),
        )
        for method, runs in runs_of(records).items()
    ]
    return sorted(found, key=lambda standing: (bool(standing.apart), -standing.mean, standing.method))


def comparison(
    model_class: str,
    records: Sequence[Record],
    titles: Mapping[str, str],
    ranked: Sequence[Standing],
    places: Mapping[str, str],
) -> Table:
    """Start and methods of one class, the best first.

    Args:
        titles: {method: its printed name}.
        places: {method: the ranks that are open to it}.
    """
    start = start_of(records)
    rows = [
        *start_rows(start),
        *(
            (*method_row(start, titles.get(s.method, s.method), s), places.get(s.method, ""), majority_of(s.runs))
            for s in ranked
        ),
    ]
    header = ("method", "pass@1, T = 1", "95 % interval", "gain", "beyond sharpening", "greedy", "greedy gain", "pass@8",
              "seeds", "tokens", "collapsed", "no answer", "cut", "ranks", "maj@n")  # fmt: skip
    return Table(model_class, header, tuple(rows), (*notes(records, start), *remarks(records, titles)))


def start_rows(start: Record | None) -> list[tuple[str, ...]]:
    """The start model as it samples, greedily, and at a lower temperature where it was evaluated there."""
    gap = ("", "", "", "", "", "", "")
    if start is None:
        return [("start, not evaluated", "", "", "", *gap, "", "", "", "")]
    base, base_greedy, cool = sampled(start)["scores"]["pass@1"], greedy(start)["scores"]["pass@1"], cooled(start)
    rows: list[tuple[str, ...]] = [
        ("start, T = 1", percent(base), "", "", "", percent(base_greedy), "", pass_at(start), "", "", "",
         *shares([sampled(start)]), "", majority_of([start])),
        ("start, greedy", percent(base_greedy), "", points(base_greedy - base), *gap, *shares([greedy(start)]), "", ""),
    ]  # fmt: skip
    if cool is not None:
        chosen = " (chosen on validation)" if "cooled_on_validation" in start.get("experiment", {}) else ""
        score = cool["scores"]["pass@1"]
        name = f"start, T = {cool['sampling']['temperature']:g}{chosen}"
        rows.append((name, percent(score), "", points(score - base), *gap, *shares([cool]), "", ""))
    return rows


def method_row(start: Record | None, title: str, standing: Standing) -> tuple[str, ...]:
    runs, mean, (low, high) = standing.runs, standing.mean, standing.interval
    greedies = [greedy(r)["scores"]["pass@1"] for r in runs]
    watched = [r for r in runs if "validation" in r["curves"]]
    eights = [r for r in (sampled(run)["scores"]["pass@k"].get("8") for run in runs) if r is not None]
    gain, beyond, greedy_gain = ("", "", "") if start is None else (
        points(mean - sampled(start)["scores"]["pass@1"]),
        points(mean - sharpened(start)),
        points(statistics.fmean(greedies) - greedy(start)["scores"]["pass@1"]),
    )  # fmt: skip
    return (
        title + (" *" if standing.apart else ""),
        spread(standing.scores),
        f"[{percent(low)}, {percent(high)}]",
        gain,
        beyond,
        spread(greedies),
        greedy_gain,
        spread(eights) if len(eights) == len(runs) else "",
        ", ".join(percent(score) for score in standing.scores),
        f"{statistics.fmean([r['budget']['response_tokens'] for r in runs]) / 1000:.0f} k",
        f"{sum(map(collapsed, watched))}/{len(watched)}" if watched else "",
        *shares([sampled(run) for run in runs]),
    )


def majority_of(runs: Sequence[Record]) -> str:
    """maj@n at T = 1, mean over seeds; empty where an older record lacks it."""
    return share([sampled(run) for run in runs], "maj@n")


GAINS = (
    "gain: over the start at T = 1. beyond sharpening: over the better of the start's greedy and cooled rows, which "
    "need no training."
)
NO_GAINS = (
    "The start model was not evaluated, so no gain is known: `lco evaluate --model START` with the same task, samples and "
    "temperatures (1 and 0), then `lco record --start` with its results."
)


def notes(records: Sequence[Record], start: Record | None) -> tuple[str, ...]:
    task = sampled(start or records[0])
    return (
        f"{task['task']}: {task['problems']} test problems, {task['samples']} samples each at T = 1, read once at the end.",
        "pass@1: mean ± sample standard deviation over training seeds; the interval resamples seeds and problems.",
        NO_GAINS if start is None else GAINS,
        "collapsed: runs whose pass@1 on validation problems ended below half of its best.",
        "no answer, cut: per cent of the responses in which the verifier found none, and that the token limit cut; at T = 1, "
        "mean over seeds, in the start's other rows at their own temperature.",
        RANKS,
        f"maj@n: per cent of the problems that the majority of {task['samples']} samples answers.",
    )


def remarks(records: Sequence[Record], titles: Mapping[str, str]) -> list[str]:
    """What is true of some rows alone: those that stand apart, single seeds, skipped updates, records without a hash."""
    runs, said = runs_of(records), []
    apart: dict[str, list[str]] = {}
    for method, found in runs.items():
        if reason := set_apart(found):
            apart.setdefault(reason, []).append(titles.get(method, method))
    if apart:
        reasons = ", ".join(f"{reason} ({', '.join(names)})" for reason, names in apart.items())
        said.append(f"* sorted last and not compared, because the data differ: {reasons}.")
    if single := [titles.get(method, method) for method, found in runs.items() if len(found) == 1]:
        said.append(f"One seed: {', '.join(single)}. The interval resamples problems alone and knows of no other seed.")
    if idle := [f"{label(r)} ({skipped(r)})" for found in runs.values() for r in found if skipped(r)]:
        said.append(f"Updates that moved nothing, because their gradient was no number: {', '.join(idle)}.")
    said += from_outside(records, titles)
    if unsealed := sum(SEAL not in record for record in records):
        said.append(
            f"{unsealed} of {len(records)} records carry no hash of their own: what cannot be counted again in them (tokens, "
            "curves, and what has no counts) is taken as it stands."
        )
    return said


def pass_at(record: Record) -> str:
    found = sampled(record)["scores"]["pass@k"]
    return percent(found["8"]) if "8" in found else ""
