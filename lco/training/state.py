"""What flows through a training step: prompts, verified rows, a rollout, what an update is given and what it saw."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lco.heads import FixedHead
from lco.methods.objective import Signal
from lco.policy import PolicyModel
from lco.problems import Problem
from lco.rollout.records import Batch, Row
from lco.training.engine import Engine, Step
from lco.training.plan import MicroBatch, micro_batches
from lco.verifier import Verdict

SnapshotsByRow = Mapping[int, FixedHead]
"""row of a batch → hidden states [L, d] of its response tokens and the head of a policy that does not learn"""


@dataclass(frozen=True)
class Prompt:
    """A problem and the ids that it is asked with."""

    problem: Problem
    ids: tuple[int, ...]


@dataclass(frozen=True)
class VerifiedRow:
    """A row with its verdict and its text.

    Attributes:
        parts: what the terms of its reward gave, by name; none where it is the verdict.
        dealt: the reward that it learns from in place of its own, where rewards are random.
    """

    row: Row
    problem: Problem
    verdict: Verdict
    text: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)
    dealt: float | None = None

    @property
    def earned(self) -> float:
        """The sum of its parts; without any 1 for right, 0 for wrong. Not a number where nothing could be said."""
        return math.fsum(self.parts.values()) if self.parts else self.verdict.reward

    @property
    def reward(self) -> float:
        """What it learns from: what it earned, or was dealt; where that is not a number, nothing is learnt from the row."""
        return self.earned if self.dealt is None else self.dealt


@dataclass(frozen=True)
class Behaviour:
    """What was measured of the policy that sampled a rollout, and of its critic, while they were the current ones.

    Attributes:
        statistics: [B, T, …] each: `old_…` that the loss or the advantages read of π_old, `value` that the critic gave.
        snapshots: the whole of π_old by row; empty where nothing has to be kept.
        row_norms: [B] as `Signal.row_norms`; None where none is asked for.
        logprob: [B, T] of the sampled tokens; None where the rollout's first update, under the same policy, gives them.
    """

    statistics: Mapping[str, Tensor]
    snapshots: SnapshotsByRow
    row_norms: Tensor | None = None
    logprob: Tensor | None = None


@dataclass(frozen=True)
class Rollout:
    """One rollout, identical on every rank.

    Attributes:
        step: its number, from 0.
        rows: all rows that were drawn.
        compared: those that advantages are computed from: with a reward; for pairs, row 2i right and row 2i + 1 wrong.
        signal: what is known of `compared` before any policy is asked; None where there is none.
        metrics: what it looks like, and what its refill cost.
        behaviour: what was measured of the policy that sampled it, where that is no longer the current one.
    """

    step: int
    rows: list[VerifiedRow]
    compared: list[VerifiedRow]
    signal: Signal | None
    metrics: dict[str, Any]
    behaviour: Behaviour | None = None


@dataclass(frozen=True)
class Policies:
    """The models of a run, and how many rows they take at once.

    Attributes:
        engine: of the policy that is trained.
        critic: the engine of a critic that is a model of its own; None where a value head stands on the policy's body.
        fixed: the policies that do not learn, by name: reference, verifier, dpo.
        micro_batch: rows of one forward pass.
    """

    engine: Engine
    critic: Engine | None
    fixed: Mapping[str, PolicyModel]
    micro_batch: int

    def share(self, rows: Sequence[int], unit: int = 1) -> list[MicroBatch]:
        """This rank's micro-batches of some rows; `unit` neighbours stay together."""
        return list(micro_batches(rows, self.micro_batch, self.engine.rank, self.engine.world, unit))


@dataclass(frozen=True)
class UpdateInputs:
    """What stays as it is while a rollout's updates run.

    Attributes:
        batch: all rows.
        constants: the loss's inputs, [B, T, …] each.
        old: π_old by row; empty where it is the current policy or nothing has to be kept.
        fixed: the policies that the target reads, by name and row.
    """

    batch: Batch
    constants: Mapping[str, Tensor]
    old: SnapshotsByRow
    fixed: Mapping[str, SnapshotsByRow]


@dataclass(frozen=True)
class UpdateReport:
    """What one optimizer step saw of the tokens of its minibatch, all ranks together.

    Attributes:
        step: what the optimizer did.
        loss: the minibatch's loss.
        totals: sums over tokens of every reported statistic, ‖∂L/∂h‖² by sign of advantage, and how many `tokens` and `rows`.
        logprobs: row → log-probabilities of its sampled tokens.
        kept: row → the statistics [L, …] that the method's metrics read besides.
    """

    step: Step
    loss: float
    totals: dict[str, float]
    logprobs: dict[int, Tensor]
    kept: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
