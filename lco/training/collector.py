"""Prompts → rows: sampled and verified, or worked solutions; and which of them can be learnt from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lco.config import Experiment
from lco.console import say
from lco.errors import UserError
from lco.methods.objective import Objective, Signal
from lco.models import checkpoint_weights
from lco.problems import Problem
from lco.problems.random_reward import deal_at_random
from lco.problems.rewards import Judged, Term, reward_all
from lco.randomness import derived_seed
from lco.rollout.records import Row, Sampler, Sampling, sampled_mask
from lco.training.engine import Engine
from lco.training.metrics import describe, group_numbers
from lco.training.plan import prompt_indices, refill_indices
from lco.training.state import Clock, Prompt, Rollout, VerifiedRow
from lco.verifier import Verdict, with_open_thought


@dataclass
class Collector:
    """Makes the rows of a rollout, identical on every rank.

    Attributes:
        ranks: the engine, asked only for its rank and to gather.
        prompts: training prompts, none too long.
        demonstrations: worked solutions as ids, ending with a token on which the sampler stops; one per prompt.
        sampling: the values that rows are drawn with.
        verify: (response text, reference answer) pairs → verdicts.
        decode: ids → text.
        rewards: what a response is rewarded for; none where it is the verdict.
        prompt_text: a prompt as text, which says whether the chat template opens a thought that the response goes on with.
        sampler: this rank's sampler, or None where another rank samples for it.
        history: mean reward of every rollout so far.
        said: terms of the reward of which it was said that they gave no number.
    """

    experiment: Experiment
    objective: Objective
    ranks: Engine
    prompts: Sequence[Prompt]
    demonstrations: Sequence[tuple[int, ...]]
    sampling: Sampling
    verify: Callable[[Sequence[tuple[str, str]]], Sequence[Verdict]]
    decode: Callable[[Sequence[int]], str]
    rewards: Sequence[Term] = ()
    prompt_text: str = ""
    sampler: Sampler | None = None
    history: list[float] = field(default_factory=list)
    said: set[str] = field(default_factory=set)

    def collect(self, step: int, clock: Clock) -> Rollout:
        """Rollout number `step`, from 0."""
        rollout = self.draw(step, clock)
        self.remember(rollout)
        return rollout

    def remember(self, rollout: Rollout) -> None:
        """Its mean reward joins the history, which later advantages may read."""
        if "accuracy" in rollout.metrics:
            self.history.append(rollout.metrics.get("reward", rollout.metrics["accuracy"]))

    def draw(self, step: int, clock: Clock) -> Rollout:
        """The same rollout, which the history does not know of yet."""
        drawn: dict[str, Any] = {}
        if self.objective.source == "demonstrations":
            rows = self.demonstrate(step)
        else:
            rows, drawn = self.sample(step, clock)
        if self.sampling.thought_tokens and rows:
            drawn["thoughts_closed"] = sum(row.row.put_in != (0, 0) for row in rows) / len(rows)
        if self.rewards and not any(math.isfinite(row.reward) for row in rows):
            names = ", ".join(term.name for term in self.rewards)
            raise UserError(
                f"rollout {step + 1}: no response has a reward ({names}); mend the function that gives no number"
            )
        compared = self.rows_to_compare(rows)
        signal = self.signal_of(compared) if compared else None
        return Rollout(step, rows, compared, signal, {**describe(rows), **drawn})

    def demonstrate(self, step: int) -> list[VerifiedRow]:
        """As many rows as a rollout has, one worked solution per problem."""
        chosen = prompt_indices(len(self.prompts), self.experiment.rows_per_step, step, self.experiment.seed)
        verdict = Verdict(True, None, "demonstration", 0.0)
        rows = []
        for i in chosen:
            prompt, response = self.prompts[i], self.demonstrations[i]
            row = Row(prompt.problem.id, prompt.ids, response, "stop", ())
            rows.append(VerifiedRow(row, prompt.problem, verdict, self.decode(response)))
        return rows

    def sample(self, step: int, clock: Clock) -> tuple[list[VerifiedRow], dict[str, Any]]:
        """Verified samples, and what their refill cost.

        Where the method leaves whole groups out and asks for others in their place, further prompts are drawn for them, for at
        most so many rounds; what they are depends on (seed, step, round) alone, so a resumed run draws them again.
        """
        experiment, rounds = self.experiment, self.objective.needs.refill_rounds
        chosen = prompt_indices(len(self.prompts), experiment.prompts_per_step, step, experiment.seed)
        rows = self.answer(chosen, f"rollout/{self.ranks.rank}", step, 0, clock)
        if not rounds:
            return rows, {}
        used, done = len(chosen), 0
        missing = experiment.prompts_per_step - self.count_groups_to_update_on(rows)
        while done < rounds and missing:
            done += 1
            more = refill_indices(len(self.prompts), missing, step, done, experiment.seed, set(chosen))
            if not more:
                break
            chosen += more
            rows += self.answer(more, f"refill/{done}/{self.ranks.rank}", step, used, clock)
            used += len(more)
            missing = experiment.prompts_per_step - self.count_groups_to_update_on(rows)
        return rows, {
            "refill_rounds": done,
            "prompts_drawn": used,
            "generation_multiplier": used / max(1, experiment.prompts_per_step - missing),
            "refill_exhausted": bool(missing),
        }

    def answer(self, prompts: Sequence[int], purpose: str, step: int, first: int, clock: Clock) -> list[VerifiedRow]:
        """`samples` verified responses to each prompt; the ranks that have a sampler share them.

        `first` numbers the prompts within the rollout: positions keep groups apart where a small set repeats a problem.
        """
        samples = self.sampling.samples
        chosen = [self.prompts[i] for i in prompts]
        samplers = [rank for rank, has in enumerate(self.ranks.gather(self.sampler is not None)) if has]
        mine: list[VerifiedRow] = []
        if self.sampler is not None:
            place, stride = samplers.index(self.ranks.rank), len(samplers)
            share = chosen[place::stride]
            seed = derived_seed(self.experiment.seed, step, purpose)
            named = [(f"{p.problem.id}#{first + place + i * stride}", p.ids) for i, p in enumerate(share)]
            problems = {group: p.problem for (group, _), p in zip(named, share, strict=True)}
            # One part's rows are verified while the next part is generated.
            with ThreadPoolExecutor(max_workers=1) as verifier:
                parts: list[Future[list[VerifiedRow]]] = []

                def verify(rows: Sequence[Row]) -> None:
                    parts.append(verifier.submit(self.verify_rows, rows, [problems[row.group] for row in rows]))

                with clock.phase("generation"):
                    self.sampler.sample(named, self.sampling, seed, verify)
                with clock.phase("reward"):
                    mine = [row for part in parts for row in part.result()]
        shares = self.ranks.gather(mine)
        rows = [
            row
            for i in range(len(chosen))
            for row in _group(shares[samplers[i % len(samplers)]], i // len(samplers), samples)
        ]
        return self.deal(rows, step, first) if "random" in self.experiment.reward else rows

    def deal(self, rows: Sequence[VerifiedRow], step: int, first: int) -> list[VerifiedRow]:
        """The rows with their rewards dealt out by chance, alike on every rank."""
        dealt = deal_at_random([row.earned for row in rows], self.experiment.seed, step, str(first))
        return [dataclasses.replace(row, dealt=reward) for row, reward in zip(rows, dealt, strict=True)]

    def verify_rows(self, rows: Sequence[Row], problems: Sequence[Problem], rewarded: bool = True) -> list[VerifiedRow]:
        """Each row with its verdict and, if `rewarded`, its reward; judged as text against its problem's answer;
        a thought that the prompt has opened is part of what is judged."""
        texts = [self.decode(row.response_ids) for row in rows]
        judged = [with_open_thought(self.prompt_text, text) for text in texts]
        verdicts = self.verify([(text, problem.answer) for text, problem in zip(judged, problems, strict=True)])
        verified = [VerifiedRow(*found) for found in zip(rows, problems, verdicts, texts, strict=True)]
        return self.reward_rows(verified, judged) if self.rewards and rewarded else verified

    def reward_rows(self, rows: Sequence[VerifiedRow], texts: Sequence[str]) -> list[VerifiedRow]:
        """The rows with the parts of their rewards; a term that gives no number is said at the first time."""
        judged = Judged(texts, [row.problem for row in rows], [row.verdict for row in rows])
        given = reward_all(self.rewards, judged)
        for term, fault in given.faults.items():
            if term not in self.said:
                self.said.add(term)
                say(f"reward {term}: {fault}; such responses are counted (rewards_not_finite) and not learnt from")
        return [dataclasses.replace(row, parts=parts) for row, parts in zip(rows, given.parts, strict=True)]

    def rows_to_compare(self, rows: Sequence[VerifiedRow]) -> list[VerifiedRow]:
        """The rows that advantages are computed from: those with a reward; or pairs, row 2i right and row 2i + 1 wrong."""
        rewarded = [row for row in rows if math.isfinite(row.reward)]
        return pair_rows(rewarded) if self.objective.source == "pairs" else rewarded

    def signal_of(self, rows: Sequence[VerifiedRow]) -> Signal:
        """What is known of the rows before any policy is asked."""
        return Signal(
            rewards=torch.tensor([row.reward for row in rows]),
            groups=group_numbers(rows),
            mask=sampled_mask([row.row for row in rows]),
            truncated=torch.tensor([row.row.finish_reason == "length" for row in rows]),
            length_limit=self.experiment.max_new_tokens,
            responses=tuple(row.text for row in rows),
            reward_history=tuple(self.history),
        )

    def count_groups_to_update_on(self, rows: Sequence[VerifiedRow]) -> int:
        """Groups of which the updates will see a row."""
        compared = self.rows_to_compare(rows)
        if not compared:
            return 0
        return len(group_numbers(compared)[self.objective.keep(self.signal_of(compared))].unique())

    def synchronise(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Gives the sampler the trainer's weights. Under ZeRO-3 every rank takes part in gathering them.

        The sampler of preference pairs is the reference policy's and keeps its weights.
        """
        if self.objective.source == "pairs":
            return
        if self.sampler is not None:
            self.sampler.sync(checkpoint_weights(self.ranks.policy.model, weights))
        for _ in weights:
            pass


def _group(rows: Sequence[VerifiedRow], index: int, samples: int) -> Sequence[VerifiedRow]:
    return rows[index * samples : (index + 1) * samples]


def pair_rows(rows: Sequence[VerifiedRow]) -> list[VerifiedRow]:
    """Right against wrong answers to one prompt, each used at most once; empty responses and lone sides are left out."""
    sides: dict[str, tuple[list[VerifiedRow], list[VerifiedRow]]] = {}
    for row in rows:
        if row.row.response_ids:
            sides.setdefault(row.row.group, ([], []))[not row.verdict.correct].append(row)
    return [row for right, wrong in sides.values() for pair in zip(right, wrong, strict=False) for row in pair]
