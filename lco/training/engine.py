"""One optimizer step over several micro-batches: in one process with plain torch; DeepSpeed stands in deepspeed.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lco.config import Experiment
from lco.heads import HeadStep
from lco.policy import A, LossAnswer, PolicyModel, Request
from lco.rollout.records import Batch
from lco.training.checkpoint import TORCH_STATE, load_torch_state, save_torch_state


@dataclass(frozen=True)
class Step:
    """What one optimizer step did: global gradient norm before clipping, learning rate, whether it was applied."""

    gradient_norm: float
    lr: float
    applied: bool


@dataclass(frozen=True)
class Norms:
    """L2 norms of a gradient: of all parameters together, and the mean over the query, key and value projections'
    weights of each one's norm (what the released code of arXiv 2603.00963 plots)."""

    whole: float
    projections: float


def gradient_norms(policy: PolicyModel, batch: Batch, request: Request[LossAnswer]) -> Norms:
    """The norms for a policy whose parameters are whole tensors; `.grad` stays as it is."""
    named = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    loss = policy(batch, request).loss
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    norms = {n: float(exact_norm(g)) for (n, _), g in zip(named, gradients, strict=True) if g is not None}
    attention = [x for name, x in norms.items() if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))]
    return Norms(math.sqrt(sum(x * x for x in norms.values())), sum(attention) / max(1, len(attention)))


SMALL, BLOCK = 2**18, 2**14
"""Elements of a tensor whose norm PyTorch gets right to 1e-5, and of the blocks in which larger ones are added."""


def exact_norm(x: Tensor) -> Tensor:
    """The L2 norm of a tensor of any size, float32. PyTorch's own adds squares in float32 on the CPU, and for the head of a
    Qwen2.5-0.5B (136 million elements) comes out 1.6 % too small; here blocks are added in float64."""
    flat = x.detach().float().flatten()
    if len(flat) <= SMALL:
        return torch.linalg.vector_norm(flat)
    whole = len(flat) - len(flat) % BLOCK
    blocks = torch.linalg.vector_norm(flat[:whole].view(-1, BLOCK), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:])
    return torch.linalg.vector_norm(torch.cat([blocks, rest[None]]), dtype=torch.float64).float()


class Engine(Protocol):
    """Two implementations: TorchEngine here, DeepSpeedEngine in deepspeed.py.

    Losses arrive already divided by the divisor of the whole minibatch over all ranks, so gradients are *summed* over
    micro-batches and ranks, and nothing divides again.
    """

    policy: PolicyModel
    rank: int
    world: int
    device: torch.device

    def forward(self, batch: Batch, request: Request[A]) -> A:
        """Every rank must call this equally often (ZeRO-3 gathers weights inside)."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """`last`: this micro-batch is the last one of the optimizer step."""
        ...

    def step(self, factor: float = 1.0) -> Step:
        """Clips, applies with `factor` times the schedule's learning rate, clears. A gradient that is not finite is not applied;
        the result says so."""
        ...

    def head_step(self, moments: bool) -> HeadStep:
        """The step to come, as far as it is the head's: its learning rate, and Adam's moments where they are asked for and
        there are any yet. Every rank must call it equally often."""
        ...

    def probe(self, batch: Batch, request: Request[LossAnswer]) -> Norms:
        """Norms of the gradient of one micro-batch's loss, rank 0's; no gradient is kept."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, in rank order, on every rank."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; every rank must call it equally often."""
        ...

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights by checkpoint name, `lm_head.weight` included; every rank must iterate to the end."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """Of those that `save` writes, the ones without which `load` cannot do."""
        ...

    def save(self, folder: Path) -> None:
        """Everything a resume needs but the loop's own state: model, optimizer, schedule."""
        ...

    def load(self, folder: Path) -> None: ...


def learning_rate_factor(update: int, experiment: Experiment) -> float:
    """Linear warm-up, then what `lr_schedule` says; `update` counts from 0. A run whose rollouts all teach ends one update
    before the decay reaches 0; one that skips some ends higher."""
    warmup, done = experiment.warmup_updates, update - experiment.warmup_updates
    if done < 0:
        return (update + 1) / (warmup + 1)
    progress = min(1.0, done / max(1, experiment.planned_updates - warmup))
    match experiment.lr_schedule:
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case _:
            return 1.0


def parameter_groups(policy: PolicyModel, experiment: Experiment) -> list[dict[str, Any]]:
    """The language model at `lr`, the value head (if any) at `critic_lr`."""
    groups = [{"params": [p for p in policy.model.parameters() if p.requires_grad], "lr": experiment.lr}]
    if policy.value_head is not None:
        groups.append({"params": list(policy.value_head.parameters()), "lr": experiment.critic_lr})
    return groups


class TorchEngine:
    """One process, AdamW on float32 masters.

    In bfloat16 an update of lr 1e-6 is below the rounding of most parameters, so they would never move; the optimizer
    therefore holds a float32 copy of every parameter that is not float32, and the model gets its rounded values.
    """

    rank = 0
    world = 1

    def __init__(self, policy: PolicyModel, experiment: Experiment) -> None:
        self.policy, self.experiment = policy, experiment
        self.device = next(policy.parameters()).device
        groups = parameter_groups(policy, experiment)
        self.pairs = [(p, master(p)) for group in groups for p in group["params"]]
        of = {id(p): copy for p, copy in self.pairs}
        self.optimizer = torch.optim.AdamW(
            [{**group, "params": [of[id(p)] for p in group["params"]]} for group in groups],
            betas=(experiment.beta1, experiment.beta2),
            weight_decay=experiment.weight_decay,
        )
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.updates = 0

    def forward(self, batch: Batch, request: Request[A]) -> A:
        return self.policy(batch.to(self.device), request)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()
        # Gradients are summed over micro-batches in float32 too.
        for p, copy in self.pairs:
            if copy is not p and p.grad is not None:
                copy.grad = p.grad.float() if copy.grad is None else copy.grad.add_(p.grad)
                p.grad = None

    def step(self, factor: float = 1.0) -> Step:
        factor *= learning_rate_factor(self.updates, self.experiment)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor
        learning = [copy for _, copy in self.pairs if copy.grad is not None]
        norms = [exact_norm(copy.grad) for copy in learning if copy.grad is not None]
        total = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        limit = self.experiment.clip_norm or float("inf")
        torch.nn.utils.clip_grads_with_norm_(learning, limit, total)
        norm = float(total)
        applied = math.isfinite(norm)
        if applied:
            self.optimizer.step()
            self._round()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return Step(norm, self.experiment.lr * factor, applied)

    @torch.no_grad()
    def _round(self) -> None:
        for p, copy in self.pairs:
            if copy is not p:
                p.copy_(copy)

    def head_step(self, moments: bool) -> HeadStep:
        experiment, weight = self.experiment, self.policy.head().weight
        lr = experiment.lr * learning_rate_factor(self.updates, experiment)
        held = next((copy for p, copy in self.pairs if p is weight), None)
        state = self.optimizer.state.get(held, {}) if moments and held is not None else {}
        if not state:
            return HeadStep(lr)
        betas, epsilon = (experiment.beta1, experiment.beta2), self.optimizer.defaults["eps"]
        return HeadStep(lr, state["exp_avg"], state["exp_avg_sq"], int(state["step"]), betas, epsilon)

    def probe(self, batch: Batch, request: Request[LossAnswer]) -> Norms:
        return gradient_norms(self.policy, batch.to(self.device), request)

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def any(self, flag: bool) -> bool:
        return flag

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.policy.named_weights()

    @property
    def files(self) -> Sequence[str]:
        return TORCH_STATE

    def save(self, folder: Path) -> None:
        save_torch_state(folder, self.masters(), self.optimizer, self.updates)

    def load(self, folder: Path) -> None:
        self.updates = load_torch_state(folder, self.masters(), self.optimizer)
        self._round()

    def masters(self) -> dict[str, Tensor]:
        """What the optimizer holds, by parameter name."""
        names = {id(p): name for name, p in self.policy.named_parameters()}
        return {names[id(p)]: copy for p, copy in self.pairs}


def master(p: Tensor) -> Tensor:
    """The parameter itself where it is float32 (or wider), else a float32 copy of it."""
    return p if p.dtype in (torch.float32, torch.float64) else p.detach().float().requires_grad_()
