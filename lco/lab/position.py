"""One position: the logit gradient of any registered method, from the head that trains models.

The head is the identity, so hidden states are the logits z themselves, in float64. `Objective.advantage` is left out: a loss
is given the advantage A and the tilt c = A/β of its sampled token directly. This is the only file of the laboratory that
knows how a loss is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, HeadStep, LinearHead, row_loss, token_loss, token_statistics
from lco.methods import METHODS
from lco.methods.method import Method
from lco.methods.objective import Objective, Signal

BETA = 2.0
"""The laboratory's β (the released code's default): A = ±1 is a tilt of ±½."""


Kind = Literal["target", "other target", "clipped", "regression", "open"]


class Positions(NamedTuple):
    """N sampled tokens with what is known of them.

    Attributes:
        z_old: [N, V] logits of π_old; None where π_old is the current policy (the first update after a rollout).
        tokens: [N] the sampled token a.
        advantages: [N] A.
        tilts: [N] c = A/β: the optimal logits are z_old + c e_a.
    """

    z_old: Tensor | None
    tokens: Tensor
    advantages: Tensor
    tilts: Tensor


class Slope(NamedTuple):
    """loss [N] and gradient ∂loss/∂z [N, V]."""

    loss: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Subject:
    """An objective: one row of a table, one line of a figure.

    Attributes:
        objective: a registered method with its knobs bound.
        label: the printed name.
        kind: "target" if the loss rests at the optimal policy π*; "other target" if its method declares a target and it
            does not rest there; "clipped" if its gradient is exactly 0 over whole regions; "regression" if it declares no
            target and yet pulls a token back that has become unlikely enough; "open" otherwise. Found by asking the loss,
            not by its name.
    """

    objective: Objective
    label: str
    kind: Kind

    @property
    def signs(self) -> tuple[int, ...]:
        """The signs of A that the method can meet: demonstrations are never negative, nor are rows that it keeps if it
        leaves out wrong answers."""
        if self.objective.source == "demonstrations" or leaves_out_wrong(self.objective):
            return (1,)
        return (1, -1)


def leaves_out_wrong(objective: Objective) -> bool:
    """Whether of a right and a wrong answer to one prompt the updates see the right one alone."""
    mask, cut = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    pair = Signal(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.int64), mask, cut, 1, ("1", "0"))
    return objective.keep(pair).tolist() == [True, False]


def logit_gradient(objective: Objective, z: Tensor, at: Positions) -> Slope:
    """The objective's loss and logit gradient at N independent positions, z [N, V] in float64.

    A loss of scope "row" sees N rows of length 1; one of scope "pair" sees N pairs of such rows from the same state, where
    the other token is the old policy's likeliest one, rejected if A > 0 and chosen if A < 0.
    """
    head = LinearHead(torch.eye(z.shape[1], dtype=torch.float64))
    z = z.detach().clone().requires_grad_()
    if objective.source == "demonstrations":  # whose rows are right by definition
        at = at._replace(advantages=torch.ones_like(at.advantages))
    states = z
    if objective.scope == "pair":
        at, states = paired(z.detach(), at), z.repeat_interleave(2, 0)
    losses: list[Tensor] = []

    def kept(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        loss = objective.loss(s, x)
        losses.append(loss.detach())
        return loss

    request = HeadRequest(
        tokens=at.tokens,
        statistics=objective.statistics,
        inputs=inputs_of(objective, states.detach(), at),
        scale=torch.ones_like(at.advantages),
        old=None if at.z_old is None else FixedHead(at.z_old, head),
        target=objective.target,
    )
    if objective.prepare_statistics:
        request = with_prepared(objective, states.detach(), head, request)
    if objective.scope == "token":
        total, _ = token_loss(states, head, kept, request)
    else:
        total, _ = row_loss(states, head, torch.ones(len(states), 1, dtype=torch.bool), kept, request)
    return Slope(torch.cat(losses).reshape(len(z), -1).sum(1), torch.autograd.grad(total, z)[0])


def inputs_of(objective: Objective, z: Tensor, at: Positions) -> dict[str, Tensor]:
    """What a loss may read besides statistics, [N] each: π_old is the reference policy here."""
    judged = z if at.z_old is None else at.z_old
    inputs = {
        "advantage": at.advantages,
        "mask": torch.ones_like(at.advantages),
        "divisor": torch.ones_like(at.advantages),
        "ref_logprob": judged.log_softmax(1).gather(1, at.tokens[:, None]).squeeze(1),
    }
    if (
        "estimator" in objective.hyper
    ):  # its target is that of a tilt A/β, here always given; others make their own of A
        scale = torch.where(at.advantages < 0, objective.hyper.get("beta_negative_scale", 1.0), 1.0)
        inputs["tilt"] = at.tilts / scale
    return inputs


def with_prepared(objective: Objective, states: Tensor, head: LinearHead, request: HeadRequest) -> HeadRequest:
    """The request with what the method makes of its whole minibatch: here all N positions, rows of length 1. Nothing is
    trained here, so a step that it predicts has learning rate 0."""
    still = HeadStep(lr=0.0) if objective.needs.head_step else None
    asked = replace(request, statistics=objective.prepare_statistics, step=still)
    found = {name: value[:, None] for name, value in token_statistics(states, head, asked).items()}
    given = {name: value[:, None] for name, value in request.inputs.items()}
    mask = torch.ones(len(states), 1, dtype=torch.bool)
    further = objective.prepare_inputs(found, given, mask).inputs
    return replace(request, inputs={**request.inputs, **{name: value[:, 0] for name, value in further.items()}})


def paired(z: Tensor, at: Positions) -> Positions:
    """[2N] rows, chosen then rejected, from N positions."""
    judged = z if at.z_old is None else at.z_old
    other = judged.scatter(1, at.tokens[:, None], -torch.inf).argmax(1)
    good = at.advantages > 0
    tokens = torch.stack([torch.where(good, at.tokens, other), torch.where(good, other, at.tokens)], 1)
    z_old = None if at.z_old is None else at.z_old.repeat_interleave(2, 0)
    advantages, tilts = (torch.stack([x.abs(), -x.abs()], 1).flatten() for x in (at.advantages, at.tilts))
    return Positions(z_old, tokens.flatten(), advantages, tilts)


def slope(subject: Subject, z: Tensor, at: Positions) -> Slope:
    return logit_gradient(subject.objective, z, at)


def subjects(methods: Iterable[Method] = METHODS.values()) -> list[Subject]:
    """Every method, and once more for every choice of a knob that makes it a different loss."""
    found = []
    for method in methods:
        default = method.bind()
        standard = probe(default)
        variants, marked = [], ""
        knobs = {} if method.variant_of else method.hyperparameters
        for name, knob in knobs.items():
            for choice in knob.choices:
                try:
                    objective = method.bind({name: choice})
                except UserError:  # it goes with another knob only
                    continue
                if choice != knob.default and not torch.equal(probe(objective), standard):
                    variants.append((objective, f"{method.title} {choice}"))
                    marked = f" {knob.default}"
        for objective, label in [(default, method.title + marked), *variants]:
            found.append(Subject(objective, label, kind_of(objective)))
    return found


def kind_of(objective: Objective) -> Kind:
    if objective.target is not None:
        rests = bool((probe(objective, distance=0.0, towards=1.0).abs() < 1e-6).all())
        return "target" if rests else "other target"
    if bool((probe(objective, distance=2.0) == 0).all(1).any()):
        return "clipped"
    return "regression" if objective.source == "rollouts" and pulls_back(objective) else "open"


FAR = 300.0
"""Nats: beyond where any regression of the log-ratio rests at A = −1 (A/τ = −100 for τ = 0.01)."""


def pulls_back(objective: Objective) -> bool:
    """Whether descent makes a token likelier again whose advantage is negative and whose probability is e^−300."""
    z_old = torch.zeros(1, 5, dtype=torch.float64)
    token, advantage = torch.zeros(1, dtype=torch.int64), -torch.ones(1, dtype=torch.float64)
    z = z_old.clone()
    z[0, 0] = -FAR
    return float(logit_gradient(objective, z, Positions(z_old, token, advantage, advantage / BETA)).gradient[0, 0]) < 0


def probe(objective: Objective, distance: float = 0.05, towards: float = 0.0) -> Tensor:
    """[16, 5] gradients at fixed positions: `distance` from the old logits at random, and so far `towards` the optimal
    ones. Tells losses apart."""
    g = torch.Generator().manual_seed(0)
    z_old, move = torch.randn(2, 16, 5, generator=g, dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0] * 8, dtype=torch.float64)
    at = Positions(z_old, torch.arange(16) % 5, advantages, advantages / BETA)
    optimal = at.tilts[:, None] * torch.nn.functional.one_hot(at.tokens, 5)
    return logit_gradient(objective, z_old + distance * move + towards * optimal, at).gradient
