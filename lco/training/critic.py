"""The critic's own updates: as a model of its own, or while it alone is trained.

In the usual case, a value head on the policy's body, its loss is part of the policy's and nothing of this is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lco.policy import ValueLoss
from lco.rollout.records import select
from lco.training.engine import Engine, Step
from lco.training.known import micro_batches_of
from lco.training.update import Frozen, micro_batch_inputs, minibatch_scale

if TYPE_CHECKING:
    from lco.training.loop import Run


def critic_update(
    run: Run, engine: Engine, frozen: Frozen, rows: Sequence[int], body: bool = True
) -> tuple[Step, float]:
    """One optimizer step on the value loss of a minibatch; (what it did, the loss over all ranks).

    `body`: whether the gradient goes on into the body below the value head.
    """
    assert run.method.value_loss is not None
    function = run.method.value_loss(run.hyper)
    assert function is not None
    scale, parts, loss = minibatch_scale(run, frozen, rows), micro_batches_of(run, rows), 0.0
    for number, part in enumerate(parts):
        inputs, weights = micro_batch_inputs(run, frozen, part, scale)
        answer = engine.forward(select(frozen.batch, part.rows), ValueLoss(function, inputs, weights, body))
        assert answer.loss is not None
        engine.backward(answer.loss, last=number == len(parts) - 1)
        loss += float(answer.loss.detach())
    return engine.step(), sum(engine.gather(loss))


def train_critic_alone(run: Run, frozen: Frozen, plan: Sequence[Sequence[int]]) -> dict[str, Any]:
    """All updates of a rollout on the value loss; a body that the policy shares stays as it is."""
    separate = run.critic is not None
    found = [critic_update(run, run.critic or run.engine, frozen, rows, body=separate) for rows in plan]
    norms = [step.gradient_norm for step, _ in found]
    return {
        "updates": 0,
        "critic_updates": len(found),
        "value_loss": sum(loss for _, loss in found) / len(found),
        "critic_gradient_norm": sum(norms) / len(norms),
    }
