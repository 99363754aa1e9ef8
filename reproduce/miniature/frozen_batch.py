"""Many optimizer steps on one frozen batch of a real model: the gradient's norm and direction at each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lco.config import Experiment
from lco.evidence.records import rounded
from lco.provenance import collect
from lco.rollout.records import collate, select
from lco.training.collect import comparable, demonstrated, kept, sampled, signal_of
from lco.training.engine import TorchEngine
from lco.training.known import micro_batches_of
from lco.training.loop import Clock, Run, freeze
from lco.training.prepare import build_sampler, prepare
from lco.training.update import loss_request, minibatch_scale
from lco.verifier import Pool


def inner_steps(experiment: Experiment, steps: int) -> dict[str, Any]:
    """The record of `steps` optimizer steps on the experiment's first rollout, with the whole batch at every step."""
    with Pool() as pool:
        run, _, manifest = prepare(experiment, 1, pool)
        run.sampler = build_sampler(run, experiment, 1)
        rolled = demonstrated(run, 0) if run.method.source == "demonstrations" else sampled(run, 0, Clock())[0]
    judged = comparable(run, rolled)
    batch, signal = collate([j.row for j in judged]), signal_of(run, judged)
    plan = [kept(run, signal).nonzero().flatten().tolist()] * steps
    _, first, later = freeze(run, batch, signal, plan)
    places, slopes, losses = [], [], []
    for number, rows in enumerate(plan):
        frozen = later if number else first
        scale = minibatch_scale(run, frozen, rows)
        loss = 0.0
        for part in micro_batches_of(run, rows):
            answer = run.engine.forward(select(batch, part.rows), loss_request(run, frozen, part, scale))
            assert answer.loss is not None
            run.engine.backward(answer.loss, last=True)
            loss += float(answer.loss.detach())
        places.append(parameters(run))
        slopes.append(gradient(run))
        losses.append(loss)
        run.engine.step()
    end, start = parameters(run), places[0]
    return rounded(
        {
            "schema": "lco-frozen/1",
            "method": experiment.method,
            "model": manifest["model"],
            "steps": steps,
            "rows": len(plan[0]),
            "tokens": int(batch.response_mask[plan[0]].sum()),
            "lr": experiment.lr,
            "hyper": run.hyper,
            "loss": losses,
            "gradient_norm": [float(g.norm()) for g in slopes],
            "cosine_to_the_end": [cosine(-g, end - place) for g, place in zip(slopes, places, strict=True)],
            "cosine_to_the_whole_way": [cosine(-g, end - start) for g in slopes],
            "provenance": collect(),
        }
    )


def _policy(run: Run) -> list[tuple[Tensor, Tensor]]:
    """(parameter, its master) of the language model; a critic's value head is no part of the policy."""
    assert isinstance(run.engine, TorchEngine)
    own = {id(p) for p in run.engine.policy.model.parameters()}
    return [pair for pair in run.engine.pairs if id(pair[0]) in own]


def parameters(run: Run) -> Tensor:
    return torch.cat([master.detach().flatten() for _, master in _policy(run)]).clone()


def gradient(run: Run) -> Tensor:
    """∂L/∂θ as one vector; parameters that the loss does not reach count as 0."""
    parts = [torch.zeros_like(m).flatten() if m.grad is None else m.grad.flatten() for _, m in _policy(run)]
    return torch.cat(parts).clone()


def cosine(x: Tensor, y: Tensor) -> float:
    """0 where either is the zero vector."""
    size = x.double().norm() * y.double().norm()
    return float(x.double() @ y.double() / size) if size > 0 else 0.0
