"""Many optimizer steps on one frozen batch of a real model: the gradient's norm and direction at each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lco.config import Experiment
from lco.evidence.records import rounded
from lco.provenance import collect
from lco.rollout.records import select
from lco.training.engine import Engine, TorchEngine
from lco.training.load import load, start_sampler
from lco.training.resolve import resolve
from lco.training.state import Clock
from lco.verifier import Pool


def inner_steps(experiment: Experiment, steps: int) -> dict[str, Any]:
    """The record of `steps` optimizer steps on the experiment's first rollout, with the whole batch at every step."""
    plan = resolve(experiment)
    with Pool() as pool:
        loaded = load(plan, 1, pool)
        loaded.collector.sampler = start_sampler(plan, loaded, 1)
        rollout = loaded.collector.collect(0, Clock())
    learner, engine = loaded.learner, loaded.learner.policies.engine
    assert rollout.signal is not None
    updates = [plan.objective.keep(rollout.signal).nonzero().flatten().tolist()] * steps
    _, first, later = learner.prepare_rollout(rollout, updates)
    places, slopes, losses = [], [], []
    for number, rows in enumerate(updates):
        inputs = later if number else first
        scale = learner.scale_tokens(inputs, rows)
        loss = 0.0
        for part in learner.policies.share(rows, plan.objective.unit):
            answer = engine.forward(select(inputs.batch, part.rows), learner.loss_request(inputs, part, scale))
            engine.backward(answer.loss, last=True)
            loss += float(answer.loss.detach())
        places.append(parameters(engine))
        slopes.append(gradient(engine))
        losses.append(loss)
        engine.step()
    end, start = parameters(engine), places[0]
    return rounded(
        {
            "schema": "lco-frozen/1",
            "method": experiment.method,
            "model": loaded.manifest["model"],
            "steps": steps,
            "rows": len(updates[0]),
            "tokens": int(first.batch.response_mask[updates[0]].sum()),
            "lr": experiment.lr,
            "hyper": plan.objective.hyper,
            "loss": losses,
            "gradient_norm": [float(g.norm()) for g in slopes],
            "cosine_to_the_end": [cosine(-g, end - place) for g, place in zip(slopes, places, strict=True)],
            "cosine_to_the_whole_way": [cosine(-g, end - start) for g in slopes],
            "provenance": collect(),
        }
    )


def _policy(engine: Engine) -> list[tuple[Tensor, Tensor]]:
    """(parameter, its master) of the language model; a critic's value head is no part of the policy."""
    assert isinstance(engine, TorchEngine)
    own = {id(p) for p in engine.policy.model.parameters()}
    return [pair for pair in engine.pairs if id(pair[0]) in own]


def parameters(engine: Engine) -> Tensor:
    return torch.cat([master.detach().flatten() for _, master in _policy(engine)]).clone()


def gradient(engine: Engine) -> Tensor:
    """∂L/∂θ as one vector; parameters that the loss does not reach count as 0."""
    parts = [torch.zeros_like(m).flatten() if m.grad is None else m.grad.flatten() for _, m in _policy(engine)]
    return torch.cat(parts).clone()


def cosine(x: Tensor, y: Tensor) -> float:
    """0 where either is the zero vector."""
    size = x.double().norm() * y.double().norm()
    return float(x.double() @ y.double() / size) if size > 0 else 0.0
