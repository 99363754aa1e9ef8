"""Rollouts that wait between sampling and their updates: bounded staleness, as trainers have it that sample while they learn.

With `--staleness N` rollout t, from which the policy learns that has t rollouts behind it, was sampled by the one that had
max(0, t − N):

    rollout 0 … N      sampled before the first update, by the start model
    rollout N + s      sampled after the updates on rollouts 0 … s − 1, just before those on rollout s

So the first one is on-policy, each of the next N is one rollout older than the one before, and then all have age N. Prompts,
seeds and minibatches are those of the rollout's own number, so that runs of different staleness differ in who sampled alone.

What belongs to the policy that sampled is measured while it is the current one, by `Learner.measure`: π_old (the statistics that
the loss reads of it, or the whole of it as hidden states and a copy of its head), its log-probabilities for terms inside the
reward, norms of rows; and the values of the critic of that moment, so that GAE, the returns and the clipped value loss compare
with one V_old, as without staleness. What the sampler recorded waits in the rows. Reference, verifier and DPO models never
change, so they are asked when the rollout is learnt from, and nothing of them waits. What a method prepares a minibatch with is
the current policy's at any age.

Kept are measurements, not the weights that would give them again: that holds for samplers that cannot repeat a rollout (vLLM) and
for rewards that change, and takes N rollouts of memory in place of N models. A loss that reads the whole of π_old keeps `d`
numbers a token and a head for each; others a few numbers a token. They lie in main memory and in every checkpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lco.training.collector import Collector
from lco.training.learner import Learner
from lco.training.saved_rollouts import load_rollouts, save_rollouts
from lco.training.state import Behaviour, Clock, Rollout


@dataclass
class WaitingRollouts:
    """Takes the collector's place in the loop.

    Attributes:
        waiting: rollouts that were sampled and not yet learnt from, oldest first.
    """

    collector: Collector
    learner: Learner
    waiting: deque[Rollout] = field(default_factory=deque)

    def collect(self, step: int, clock: Clock) -> Rollout:
        """Rollout number `step`, after those that the current policy has to sample; none beyond the run's last one."""
        experiment = self.collector.experiment
        following = self.waiting[-1].step + 1 if self.waiting else step
        for number in range(following, min(step + experiment.staleness, experiment.steps - 1) + 1):
            self.waiting.append(self.sample(number, step, clock))
        rollout = self.waiting.popleft()
        if rollout.behaviour is None:
            return rollout
        return replace(rollout, behaviour=move(rollout.behaviour, self.learner.policies.engine.device))

    def sample(self, number: int, version: int, clock: Clock) -> Rollout:
        """Rollout number `number` by the current policy, which has `version` rollouts behind it."""
        rollout = self.collector.collect(number, clock)
        age = number - version
        rollout = replace(rollout, metrics={**rollout.metrics, "policy_version": version, "policy_age": age})
        if not age:
            return rollout
        with clock.phase("logprobs"):
            measured = self.learner.measure(rollout)
        if measured.behaviour is None:
            return measured
        return replace(measured, behaviour=move(measured.behaviour, torch.device("cpu")))

    @property
    def metrics(self) -> Sequence[dict[str, object]]:
        """What is known of the waiting rollouts, whose rewards the history has already."""
        return [rollout.metrics for rollout in self.waiting]

    def save(self, folder: Path) -> None:
        save_rollouts(folder, self.waiting, self.collector)

    def load(self, folder: Path) -> None:
        self.waiting = deque(load_rollouts(folder, self.collector))


def move(behaviour: Behaviour, device: torch.device) -> Behaviour:
    """With π_old's snapshots on a device; its one head is moved once."""
    found = behaviour.snapshots
    heads = {id(one.head): one.head for one in found.values()}
    moved = {key: head.to(device) for key, head in heads.items()}
    snapshots = {
        row: replace(one, hidden=one.hidden.to(device), head=moved[id(one.head)]) for row, one in found.items()
    }
    return replace(behaviour, snapshots=snapshots)
