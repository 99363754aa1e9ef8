"""Waiting rollouts inside a checkpoint, so that a resumed run learns from the same rows with the same π_old, bit for bit.

    waiting.json           per rollout: its number, metrics, history, and its rows: prompt, verdict, reward, lengths
    waiting.safetensors    ids, the sampler's log-probabilities, its likeliest tokens, and what was measured of π_old

Names of tensors begin with the rollout's number. What follows from the rest (texts, which rows are compared, advantages' signal)
is computed again by the collector, from prompts whose hash a resume has compared. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lco.disk import write_text
from lco.heads import FixedHead, LinearHead
from lco.rollout.records import Row, TopTokens, collate
from lco.training.collector import Collector
from lco.training.state import Behaviour, Rollout, VerifiedRow
from lco.verifier import Verdict

RECORD, TENSORS = "waiting.json", "waiting.safetensors"
FILES = (RECORD, TENSORS)
"""What `save_rollouts` writes."""

STATISTIC = "statistic/"


def save_rollouts(folder: Path, rollouts: Iterable[Rollout], collector: Collector) -> None:
    """Writes both files, also where no rollout waits."""
    numbers = {(prompt.problem.id, prompt.ids): number for number, prompt in enumerate(collector.prompts)}
    records, tensors = [], dict[str, Tensor]()
    for rollout in rollouts:
        rows = [describe_row(row, numbers[row.problem.id, row.row.prompt_ids]) for row in rollout.rows]
        history = [] if rollout.signal is None else list(rollout.signal.reward_history)
        records.append({"step": rollout.step, "metrics": rollout.metrics, "history": history, "rows": rows})
        parts = {**tensors_of_rows([row.row for row in rollout.rows]), **tensors_of_behaviour(rollout.behaviour)}
        tensors |= {f"{rollout.step}/{name}": value.contiguous() for name, value in parts.items()}
    write_text(
        folder / RECORD, json.dumps(records, ensure_ascii=False)
    )  # NaN of a reward included, which Python reads back
    save_file(tensors, folder / TENSORS)


def load_rollouts(folder: Path, collector: Collector) -> Iterator[Rollout]:
    """What `save_rollouts` wrote, oldest first."""
    tensors = load_file(folder / TENSORS)
    for record in json.loads((folder / RECORD).read_text(encoding="utf-8")):
        prefix = f"{record['step']}/"
        found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        rows = read_rows(record["rows"], found, collector)
        compared = collector.rows_to_compare(rows)
        signal = None
        if compared:
            signal = dataclasses.replace(collector.signal_of(compared), reward_history=tuple(record["history"]))
        behaviour = read_behaviour(found, compared, collector.experiment.temperature)
        yield Rollout(record["step"], rows, compared, signal, record["metrics"], behaviour)


def describe_row(row: VerifiedRow, prompt: int) -> dict[str, Any]:
    """What JSON holds of a row; `prompt` is its prompt's place among all."""
    sampled = row.row
    return {
        "prompt": prompt,
        "group": sampled.group,
        "finish_reason": sampled.finish_reason,
        "tokens": len(sampled.response_ids),
        "logprobs": len(sampled.logprobs),
        "top": 0 if sampled.top is None else len(sampled.top.ids),
        "version": sampled.version,
        "put_in": sampled.put_in,
        "verdict": dataclasses.asdict(row.verdict),
        "parts": dict(row.parts),
        "dealt": row.dealt,
    }


def tensors_of_rows(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Ids, log-probabilities (float64, in which a sampler's Python numbers are exact) and likeliest tokens, row after row."""
    tops = [row.top for row in rows if row.top is not None]
    found = {
        "ids": torch.tensor([i for row in rows for i in row.response_ids], dtype=torch.int64),
        "logprobs": torch.tensor([x for row in rows for x in row.logprobs], dtype=torch.float64),
    }
    if tops:
        found |= {"top/ids": torch.cat([top.ids for top in tops])}
        found |= {"top/logprobs": torch.cat([top.logprobs for top in tops])}
    return found


def read_rows(
    records: Sequence[Mapping[str, Any]], found: Mapping[str, Tensor], collector: Collector
) -> list[VerifiedRow]:
    ids = cut(found["ids"].tolist(), [record["tokens"] for record in records])
    logprobs = cut(found["logprobs"].tolist(), [record["logprobs"] for record in records])
    tops: list[TopTokens | None] = [None] * len(records)
    if "top/ids" in found:
        lengths = [record["top"] for record in records]
        parts = zip(found["top/ids"].split(lengths), found["top/logprobs"].split(lengths), strict=True)
        tops = [TopTokens(*part) for part in parts]
    rows = []
    for record, response, numbers, top in zip(records, ids, logprobs, tops, strict=True):
        prompt = collector.prompts[record["prompt"]]
        reason, version = record["finish_reason"], record["version"]
        row = Row(
            record["group"], prompt.ids, tuple(response), reason, tuple(numbers), top, version, tuple(record["put_in"])
        )
        verdict, text = Verdict(**record["verdict"]), collector.decode(row.response_ids)
        rows.append(VerifiedRow(row, prompt.problem, verdict, text, record["parts"], record["dealt"]))
    return rows


def cut(values: Sequence[Any], lengths: Sequence[int]) -> Iterator[Sequence[Any]]:
    """One part after another, each so long."""
    for start, length in zip(itertools.accumulate([0, *lengths]), lengths, strict=False):
        yield values[start : start + length]


def tensors_of_behaviour(behaviour: Behaviour | None) -> dict[str, Tensor]:
    if behaviour is None:
        return {}
    found = {STATISTIC + name: value for name, value in behaviour.statistics.items()}
    found |= {"row_norms": behaviour.row_norms} if behaviour.row_norms is not None else {}
    found |= {"logprob": behaviour.logprob} if behaviour.logprob is not None else {}
    if behaviour.snapshots:
        head = next(iter(behaviour.snapshots.values())).head
        found["old/rows"] = torch.tensor(list(behaviour.snapshots))
        found["old/hidden"] = torch.cat([one.hidden for one in behaviour.snapshots.values()])
        found["old/weight"] = head.weight
        found |= {"old/bias": head.bias} if head.bias is not None else {}
    # The log-probabilities for the comparison with the sampler may be one of the statistics: a file holds no tensor twice.
    return {name: value.clone() for name, value in found.items()}


def read_behaviour(
    found: Mapping[str, Tensor], compared: Sequence[VerifiedRow], temperature: float
) -> Behaviour | None:
    """What `tensors_of_behaviour` made tensors of; None where a rollout without updates had none."""
    if "logprob" not in found:
        return None
    statistics = {name.removeprefix(STATISTIC): value for name, value in found.items() if name.startswith(STATISTIC)}
    snapshots: dict[int, FixedHead] = {}
    if "old/rows" in found:
        head = LinearHead(found["old/weight"], found.get("old/bias"), temperature)
        rows = found["old/rows"].tolist()
        parts = found["old/hidden"].split(collate([compared[row].row for row in rows]).sampled_lengths)
        snapshots = {row: FixedHead(hidden, head) for row, hidden in zip(rows, parts, strict=True)}
    return Behaviour(statistics, snapshots, found.get("row_norms"), found["logprob"])
