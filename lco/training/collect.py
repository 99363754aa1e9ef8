"""The rows of a rollout: sampled and verified, or worked solutions; and which of them the updates see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lco.methods import Signal
from lco.problems import Problem
from lco.randomness import derived_seed
from lco.rollout.records import Row
from lco.training.metrics import Judged, group_numbers
from lco.training.plan import prompt_indices, refill_indices
from lco.verifier import Verdict

if TYPE_CHECKING:
    from lco.training.loop import Clock, Run


def demonstrated(run: Run, step: int) -> list[Judged]:
    """As many rows as a rollout has, one worked solution per problem."""
    chosen = prompt_indices(len(run.prompts), run.experiment.rows_per_step, step, run.experiment.seed)
    verdict = Verdict(True, None, "demonstration", 0.0)
    rows = []
    for i in chosen:
        prompt, response = run.prompts[i], run.demonstrations[i]
        rows.append(Judged(Row(prompt.problem.id, prompt.ids, response, "stop", ()), prompt.problem, verdict))
    return rows


def sampled(run: Run, step: int, clock: Clock) -> tuple[list[Judged], dict[str, Any]]:
    """A rollout, verified, and what its refill cost. All ranks get all rows.

    Where the method leaves whole groups out and asks for others in their place, further prompts are drawn for them, for at
    most so many rounds; what they are depends on (seed, step, round) alone, so a resumed run draws them again.
    """
    experiment = run.experiment
    rounds = run.method.needs(run.hyper).refill_rounds
    chosen = prompt_indices(len(run.prompts), experiment.prompts_per_step, step, experiment.seed)
    judged = answers(run, chosen, f"rollout/{run.engine.rank}", step, 0, clock)
    if not rounds:
        return judged, {}
    used, done = len(chosen), 0
    missing = experiment.prompts_per_step - groups_kept(run, judged)
    while done < rounds and missing:
        done += 1
        more = refill_indices(len(run.prompts), missing, step, done, experiment.seed, set(chosen))
        if not more:
            break
        chosen += more
        judged += answers(run, more, f"refill/{done}/{run.engine.rank}", step, used, clock)
        used += len(more)
        missing = experiment.prompts_per_step - groups_kept(run, judged)
    return judged, {
        "refill_rounds": done,
        "prompts_drawn": used,
        "generation_multiplier": used / max(1, experiment.prompts_per_step - missing),
        "refill_exhausted": bool(missing),
    }


def answers(run: Run, prompts: Sequence[int], purpose: str, step: int, first: int, clock: Clock) -> list[Judged]:
    """`samples` verified responses to each prompt; the ranks that have a sampler share them.

    `first` numbers the prompts within the rollout: positions keep groups apart where a small set repeats a problem.
    """
    engine, samples = run.engine, run.sampling.samples
    chosen = [run.prompts[i] for i in prompts]
    samplers = [rank for rank, has in enumerate(engine.gather(run.sampler is not None)) if has]
    mine: list[Judged] = []
    if run.sampler is not None:
        place, stride = samplers.index(engine.rank), len(samplers)
        share = chosen[place::stride]
        seed = derived_seed(run.experiment.seed, step, purpose)
        named = [(f"{p.problem.id}#{first + place + i * stride}", p.ids) for i, p in enumerate(share)]
        problems = {group: p.problem for (group, _), p in zip(named, share, strict=True)}
        # One part's rows are verified while the next part is generated.
        with ThreadPoolExecutor(max_workers=1) as verifier:
            parts: list[Future[list[Judged]]] = []

            def verify(rows: Sequence[Row]) -> None:
                parts.append(verifier.submit(judge, run, rows, [problems[row.group] for row in rows]))

            with clock.phase("generation"):
                run.sampler.sample(named, run.sampling, seed, verify)
            with clock.phase("reward"):
                mine = [judged for part in parts for judged in part.result()]
    shares = engine.gather(mine)
    return [
        judged
        for i in range(len(chosen))
        for judged in _group(shares[samplers[i % len(samplers)]], i // len(samplers), samples)
    ]


def _group(rows: Sequence[Judged], index: int, samples: int) -> Sequence[Judged]:
    return rows[index * samples : (index + 1) * samples]


def judge(run: Run, rows: Sequence[Row], problems: Sequence[Problem]) -> list[Judged]:
    texts = [run.decode(row.response_ids) for row in rows]
    verdicts = run.verify([(text, problem.answer) for text, problem in zip(texts, problems, strict=True)])
    return [Judged(*found) for found in zip(rows, problems, verdicts, texts, strict=True)]


def groups_kept(run: Run, judged: Sequence[Judged]) -> int:
    """Groups of which the updates will see a row."""
    rows = comparable(run, judged)
    if not rows:
        return 0
    return len(group_numbers(rows)[kept(run, signal_of(run, rows))].unique())


def comparable(run: Run, judged: Sequence[Judged]) -> list[Judged]:
    """The rows that advantages are computed from: those with a reward; or pairs, row 2i right and row 2i + 1 wrong."""
    rows = [j for j in judged if math.isfinite(j.reward)]
    return pairs(rows) if run.method.source == "pairs" else rows


def pairs(judged: Sequence[Judged]) -> list[Judged]:
    """Right against wrong answers to one prompt, each used at most once; empty responses and lone sides are left out."""
    sides: dict[str, tuple[list[Judged], list[Judged]]] = {}
    for j in judged:
        if j.row.response_ids:
            sides.setdefault(j.row.group, ([], []))[not j.verdict.correct].append(j)
    return [row for right, wrong in sides.values() for pair in zip(right, wrong, strict=False) for row in pair]


def signal_of(run: Run, judged: Sequence[Judged]) -> Signal:
    """What is known of the rows before any policy is asked."""
    lengths = torch.tensor([len(j.row.response_ids) for j in judged])
    return Signal(
        rewards=torch.tensor([j.reward for j in judged]),
        groups=group_numbers(judged),
        mask=torch.arange(max(1, int(lengths.max()))) < lengths[:, None],
        truncated=torch.tensor([j.row.finish_reason == "length" for j in judged]),
        length_limit=run.experiment.max_new_tokens,
        responses=tuple(j.text for j in judged),
        reward_history=tuple(run.history),
    )


def kept(run: Run, signal: Signal) -> Tensor:
    """[B] bool: the rows that the updates see."""
    return run.method.keep(signal, run.hyper) if run.method.keep else torch.ones_like(signal.truncated)
