"""Whether the model that a run ends with is one: weights and logits that are finite numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lco.errors import UserError
from lco.models.place import some
from lco.rollout.records import Batch, DivergedError, Row, collate
from lco.training.engine import Engine
from lco.training.state import Prompt

PROMPTS = 4
"""How many are asked."""


@contextmanager
def diverged_named(rollout: int, lr: float) -> Iterator[None]:
    """Says which rollout of a run, and at which learning rate, it was whose policy could not be sampled from."""
    try:
        yield
    except DivergedError as error:
        raise UserError(f"rollout {rollout} at lr {lr:g}: {error}") from None


def refuse_diverged(
    engine: Engine, logprob: Callable[[Batch], Tensor], prompts: Sequence[Prompt], loss: float, done: int, lr: float
) -> None:
    """To be called on every rank before a run's last model is written.

    Args:
        logprob: log p [B, T] of the trained policy; called once on every rank, with the same rows.
        prompts: some are read, the second half of each as a response.
        loss: of the last rollout that had an update.
        done: how many rollouts the run has behind it.

    Raises:
        UserError: the weights, the logits or the loss are none that a trained model has; names the rollout and the learning rate.
    """
    faults = [*weight_faults(engine), *logit_faults(logprob, prompts)]
    faults += [] if math.isfinite(loss) else ["the loss is no finite number"]
    if engine.any(bool(faults)):
        raise UserError(
            f"after rollout {done} {' and '.join(faults) or 'another rank has no finite numbers'}: at lr {lr:g} the run has "
            "diverged, so there is no trained model; make it again with --start-over and a lower --lr"
        )


@torch.no_grad()
def weight_faults(engine: Engine) -> list[str]:
    broken = [name for name, weight in engine.named_weights() if not bool(weight.isfinite().all())]
    return [f"the weights {some(broken)} hold values that are no finite numbers"] if broken else []


def logit_faults(logprob: Callable[[Batch], Tensor], prompts: Sequence[Prompt]) -> list[str]:
    """Where a hidden state overflows, a norm makes it 0: then every token is exactly as likely as any other, at every place."""
    halves = [(p, max(1, len(p.ids) // 2)) for p in prompts[:PROMPTS]]
    rows = [Row(p.problem.id, p.ids[:half], p.ids[half:], "length", (0.0,) * len(p.ids[half:])) for p, half in halves]
    batch = collate(rows)
    found = logprob(batch).cpu()[batch.response_mask]
    if not bool(found.isfinite().all()):
        return ["the logits are no finite numbers"]
    same = len(found) > 1 and float(found.max() - found.min()) < 1e-6
    return ["every token is as likely as any other"] if same else []
