"""Pairs of several rollouts at once, of which the method chooses those that the updates see (`Refresh`).

The reference policy draws all pairs, so those of later rollouts can be drawn early; each rollout's stay its own, and a
method that leaves nothing out learns from the batches that it would have had without a pool. What was chosen under weights that
are gone stands in the checkpoint; the pairs themselves are drawn again by (seed, rollout). The last pool ends with the run: one
that is given more `--steps` afterwards learns from the rest of that pool whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.disk import write_json
from lco.methods.objective import Candidates, Refresh
from lco.rollout.records import collate
from lco.training.collector import Collector
from lco.training.once_per_rollout import gather_statistics
from lco.training.state import Clock, Policies, Rollout, VerifiedRow


@dataclass
class PairPool:
    """Takes the collector's place in the loop, identical on every rank.

    Attributes:
        say: tells a person a sentence.
        chosen: rollout → the numbers of its pairs that the updates see; a rollout that is not in it keeps all.
        earlier: rollout → [pairs, 2] the gains of its pairs at the last refresh.
        drawn: rollouts that were drawn early.
    """

    refresh: Refresh
    collector: Collector
    policies: Policies
    say: Callable[[str], None]
    chosen: dict[int, list[int]] = field(default_factory=dict)
    earlier: dict[int, Tensor] = field(default_factory=dict)
    drawn: dict[int, Rollout] = field(default_factory=dict)

    def collect(self, step: int, clock: Clock) -> Rollout:
        """Rollout number `step`, with the pairs that were chosen of it."""
        found: dict[str, Any] = {}
        if step % self.refresh.every == 0:
            found = self.choose(step, clock)
        rollout = self.take(step, clock)
        self.drawn.pop(step, None)
        kept = self.chosen.get(step, range(len(rollout.compared) // 2))
        rows = [row for pair in kept for row in rollout.compared[2 * pair : 2 * pair + 2]]
        signal = self.collector.signal_of(rows) if rows else None
        self.collector.remember(rollout)
        metrics = {**rollout.metrics, "pairs_left_out": len(rollout.compared) // 2 - len(kept), **found}
        return replace(rollout, compared=rows, signal=signal, metrics=metrics)

    def take(self, step: int, clock: Clock) -> Rollout:
        if step not in self.drawn:
            self.drawn[step] = self.collector.draw(step, clock)
        return self.drawn[step]

    def choose(self, first: int, clock: Clock) -> dict[str, Any]:
        """Chooses among the pairs of the pool that begins with rollout `first`; what is logged of it."""
        total, every = self.collector.experiment.steps, self.refresh.every
        pool, following = (range(at, min(total, at + every)) for at in (first, first + every))
        found: dict[str, Any] = {}
        self.chosen.clear()
        if first:
            found = self.choose_among([self.take(step, clock) for step in pool], clock)
        self.earlier = {}
        if first and self.refresh.twice:
            self.earlier = {step: self.gains(self.take(step, clock), clock) for step in following}
        return found

    def choose_among(self, pool: Sequence[Rollout], clock: Clock) -> dict[str, Any]:
        counts = [len(rollout.compared) // 2 for rollout in pool]
        if not sum(counts):
            self.say(f"rollouts {pool[0].step + 1} to {pool[-1].step + 1} have no pair to choose from")
            return {"pool_pairs": 0}
        gain = torch.cat([self.gains(rollout, clock) for rollout in pool])
        known = [self.earlier[rollout.step] for rollout in pool if rollout.step in self.earlier]
        success = torch.tensor([share for rollout in pool for share in success_of_pairs(rollout)])
        choice = self.refresh.choose(Candidates(gain, torch.cat(known) if len(known) == len(pool) else None, success))
        for rollout, part in zip(pool, choice.chosen.split(counts), strict=True):
            self.chosen[rollout.step] = part.nonzero().flatten().tolist()
        for sentence in choice.notes:
            self.say(sentence)
        return {"pool_pairs": sum(counts), "pool_chosen": int(choice.chosen.sum()), **choice.metrics}

    def gains(self, rollout: Rollout, clock: Clock) -> Tensor:
        """[pairs, 2]: Σ_t (ℓ − ℓ_ref) of right and wrong answers, under the current policy; forward passes alone."""
        if not rollout.compared:
            return torch.zeros(0, 2)
        batch, engine = collate([row.row for row in rollout.compared]), self.policies.engine
        reference = self.policies.fixed["reference"]
        with clock.phase("pool"):
            now = gather_statistics(self.policies, batch, ["logprob"], engine.forward)["logprob"]
            then = gather_statistics(
                self.policies, batch, ["logprob"], lambda part, asked: reference(part.to(engine.device), asked)
            )["logprob"]
        return torch.where(batch.response_mask, now - then, 0.0).sum(1).view(-1, 2)

    def save(self, path: Path) -> None:
        write_json(
            path,
            {
                "chosen": {str(step): pairs for step, pairs in self.chosen.items()},
                "earlier": {str(step): gains.tolist() for step, gains in self.earlier.items()},
            },
        )

    def load(self, path: Path) -> None:
        found = json.loads(path.read_text(encoding="utf-8"))
        self.chosen = {int(step): pairs for step, pairs in found["chosen"].items()}
        self.earlier = {int(step): torch.tensor(gains).view(-1, 2) for step, gains in found["earlier"].items()}


def success_of_pairs(rollout: Rollout) -> list[float]:
    """Of every pair: the share of right ones among the verified answers to its problem."""
    verdicts: dict[str, list[bool]] = {}
    for row in rollout.rows:
        if row.reward == row.reward:  # not those about which nothing could be said
            verdicts.setdefault(row.row.group, []).append(row.verdict.correct)

    def share(row: VerifiedRow) -> float:
        return sum(verdicts[row.row.group]) / len(verdicts[row.row.group])

    return [share(row) for row in rollout.compared[0::2]]
