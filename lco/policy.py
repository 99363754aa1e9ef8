"""The policy: a transformers body and its head behind one forward, asked by requests.

The head runs *inside* `PolicyModel.forward`, so the same code works under plain torch and DeepSpeed ZeRO-2 and ZeRO-3,
where a head used outside its module's forward is an empty tensor.

| request     | what comes back                                                                     |
|-------------|-------------------------------------------------------------------------------------|
| TokenLoss   | scalar loss whose gradient is formed chunk by chunk; reported statistics [B, T]      |
| RowLoss     | the same for losses that couple the tokens of a row (or the rows of a pair)          |
| ValueLoss   | scalar loss of the critic alone                                                      |
| Statistics  | statistics [B, T] without gradient (`value` asks the critic)                         |
| HeadNorms   | [R] squared norm of the head's gradient of each row's log-probability                |
| Snapshot    | hidden states of the response tokens and a copy of the head: what π_old is kept as   |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lco.errors import UserError
from lco.heads import HeadRequest, HeadStep, LinearHead, TokenFunction, row_loss, spread, token_loss, token_statistics
from lco.heads.norms import row_score_norms
from lco.models.lora import merged_weights
from lco.rollout.records import Batch

ValueFunction = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""(values [N], inputs [N] each) → value loss of each token [N]"""

A = TypeVar("A")


class Request(Generic[A]):
    """What a policy can be asked; `A` is what comes back."""


class LossAnswer(NamedTuple):
    """A scalar loss with gradient, and the reported statistics [B, T] without.

    A tuple, because ZeRO-3 finds the tensors of an output only in tuples, lists and dicts; where it does not see the loss
    it does not gather the head for the backward pass, and untied heads crash.
    """

    loss: Tensor
    statistics: Mapping[str, Tensor]


@dataclass(frozen=True)
class FixedPolicy:
    """A policy that does not learn (π_old, a verifier, a reference) at the response tokens of a batch: one [L_i, d] tensor
    of hidden states per row, and the head that belongs to them."""

    hidden: tuple[Tensor, ...]
    head: LinearHead


@dataclass(frozen=True)
class TokenLoss(Request[LossAnswer]):
    """A loss that is a sum over tokens: `function` sees the statistics [C] of a chunk.

    Attributes:
        function: ({statistic: [C]}, {input: [C]}) → [C].
        head: what the head is asked at the batch's N response tokens, rows one after another.
        value_function: the critic's loss per token, added with the same scale; None without a critic.
    """

    function: TokenFunction
    head: HeadRequest
    value_function: ValueFunction | None = None


@dataclass(frozen=True)
class RowLoss(Request[LossAnswer]):
    """A loss whose tokens depend on each other: `function` sees [B, T] statistics, 0 where padded. Fields as TokenLoss."""

    function: TokenFunction
    head: HeadRequest
    value_function: ValueFunction | None = None


@dataclass(frozen=True)
class ValueLoss(Request[LossAnswer]):
    """The critic's loss alone.

    Attributes:
        function: (values [N], inputs [N] each) → [N].
        inputs: [N] constants.
        scale: [N], mask / divisor of the whole minibatch over all ranks.
        body: whether the gradient goes on into the body below the value head.
    """

    function: ValueFunction
    inputs: Mapping[str, Tensor]
    scale: Tensor
    body: bool = True


@dataclass(frozen=True)
class Statistics(Request[Mapping[str, Tensor]]):
    """Statistics [B, T, …] without gradient; `value` asks the critic.

    Attributes:
        names: those that are asked for.
        inputs: [N, …] constants that they may read, or that stand for one that was measured before.
        step: the optimizer's coming step on the head, for the statistics that predict it.
    """

    names: Sequence[str]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    step: HeadStep | None = None


@dataclass(frozen=True)
class HeadNorms(Request[Tensor]):
    """[R] squared norms of the head's gradient of each row's log-probability, without gradient."""


@dataclass(frozen=True)
class Snapshot(Request[FixedPolicy]):
    """What π_old is kept as."""


LOSSES = (TokenLoss, RowLoss, ValueLoss)


def refuse_softcap(config: Any, name: str) -> None:
    """
    Raises:
        UserError: the model caps its final logits (Gemma-2), which would make every statistic of the linear head wrong.
    """
    cap = getattr(config.get_text_config(decoder=True), "final_logit_softcapping", None)
    if cap is not None:
        raise UserError(
            f"{name} caps its final logits at {cap} (final_logit_softcapping), which the linear head does not compute; use a "
            "model without a soft-cap"
        )


class PolicyModel(nn.Module):
    """Body + head (+ value head) of a causal language model.

    Args:
        model: a transformers `...ForCausalLM`; its parameters are the policy's.
        temperature: the sampling temperature, part of the policy at training time too.
        critic: whether a value head [d → 1] stands on the shared body, initialised to 0.

    Raises:
        UserError: the model caps its final logits.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0, critic: bool = False) -> None:
        super().__init__()
        refuse_softcap(model.config, type(model).__name__)
        self.model = model
        self.temperature = temperature
        self.value_head: nn.Linear | None = None
        if critic:
            weight = model.get_output_embeddings().weight  # type: ignore[operator]
            self.value_head = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=torch.float32)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        switch_off_dropout(self)

    def head(self) -> LinearHead:
        layer: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        return LinearHead(layer.weight, layer.bias, self.temperature)

    def forward(self, batch: Batch, request: Request[A]) -> A:
        # transformers recomputes activations in training mode only; dropout is 0 in either mode.
        self.model.train(bool(getattr(self.model, "is_gradient_checkpointing", False)) and torch.is_grad_enabled())
        answer: Any
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(request, LOSSES)):
            hidden = self._hidden(batch)
            match request:
                case TokenLoss():
                    loss, reported = token_loss(hidden, self.head(), request.function, request.head)
                    answer = self._add_value_loss(loss, reported, batch, hidden, request)
                case RowLoss():
                    mask = batch.response_mask
                    loss, reported = row_loss(hidden, self.head(), mask, request.function, request.head)
                    answer = self._add_value_loss(loss, reported, batch, hidden, request)
                case ValueLoss():
                    answer = LossAnswer(self._value_loss(hidden if request.body else hidden.detach(), request), {})
                case Statistics():
                    answer = self._statistics(batch, hidden, request)
                case HeadNorms():
                    sampled = batch.response_ids[batch.response_mask]
                    answer = row_score_norms(hidden, self.head(), sampled, batch.sampled_lengths)
                case Snapshot():
                    answer = FixedPolicy(hidden.split(batch.sampled_lengths), self.head().copied())
        return answer

    def _hidden(self, batch: Batch) -> Tensor:
        """[N, d]: hidden states that predict the response tokens, rows one after another. Padding never gets here."""
        body: Any = self.model.base_model
        positions = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        states = body(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        rows = torch.arange(len(states), device=states.device)[:, None].expand_as(batch.response_mask)
        where = batch.response_mask
        return states[rows[where], batch.predicting_positions[where]]

    def _values(self, hidden: Tensor) -> Tensor:
        assert self.value_head is not None, "this method declared no critic"
        weight, bias = self.value_head.weight.float(), self.value_head.bias.float()  # DeepSpeed casts both to bf16
        return nn.functional.linear(hidden.float(), weight, bias).squeeze(-1)

    def _add_value_loss(
        self, loss: Tensor, reported: Mapping[str, Tensor], batch: Batch, hidden: Tensor, request: TokenLoss | RowLoss
    ) -> LossAnswer:
        if request.value_function is not None:
            assert request.head.scale is not None
            loss = loss + self._value_loss(
                hidden, ValueLoss(request.value_function, request.head.inputs, request.head.scale)
            )
        return LossAnswer(loss, {name: spread(value, batch.response_mask) for name, value in reported.items()})

    def _value_loss(self, hidden: Tensor, request: ValueLoss) -> Tensor:
        return (request.function(self._values(hidden), request.inputs) * request.scale).sum()

    def _statistics(self, batch: Batch, hidden: Tensor, request: Statistics) -> dict[str, Tensor]:
        mask = batch.response_mask
        names = [name for name in request.names if name != "value"]
        asked = HeadRequest(batch.response_ids[mask], names, request.inputs, step=request.step)
        found = token_statistics(hidden, self.head(), asked)
        if "value" in request.names:
            found["value"] = self._values(hidden)
        return {name: spread(value, mask) for name, value in found.items()}

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the language model by its checkpoint name, `lm_head.weight` included when it is tied.

        `named_parameters()` and saved folders leave a tied head out, and vLLM's reload then keeps the old one silently. LoRA's
        adapters are merged into the weights that they belong to.
        """
        yield from merged_weights(self.model)


def switch_off_dropout(module: nn.Module) -> None:
    """Sets every dropout probability to 0, in modules and in configurations that attention reads directly.

    The ratio of a first update must be exactly 1, so sampling, the pass before and the update's forward must agree.
    """
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.0  # type: ignore[assignment]
