"""LCO inside TRL 1.16: a GRPOTrainer whose loss is the suite's LCO-KLD, LCO-MSE or LCO-LCH.

TRL samples, rewards, computes the advantage A and steps the optimizer; the suite computes the loss and its gradient, with the
same head, target and method as in its own runs. docs/trl.md has a whole script, and what is refused.

**π_old, whole.** Where TRL makes several optimizer steps on a rollout it asks for the old log-probabilities in a pass without
gradient before the first of them. That pass is answered here, and keeps what the loss reads of π_old: hidden states of the
completions [B, T, d] with one copy of the head, or scalars of the sampled token. They travel with the rollout's rows, so
TRL's shuffling and splitting keep them together. As long as the weights have not moved since, π_old is the policy itself and
nothing kept is read.

**The head inside the forward.** `model(lco_batch=…, lco_request=…)` is answered by the suite's `PolicyModel` inside the
forward of the model that accelerate has wrapped, as TRL's own fused head is, so that gradients are reduced and gathered
weights are there.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, LinearHead, spread, token_statistics
from lco.heads.linear import HIDDEN_GRADIENT
from lco.integrations.peers import bind_sparse_loss, require_release
from lco.policy import FixedPolicy, LossAnswer, PolicyModel, Request, Snapshot, Statistics, TokenLoss
from lco.rollout.records import Batch

require_release("trl", "1.16.", "1.16.0")

from trl import GRPOConfig, GRPOTrainer  # noqa: E402  (after the release is known to be the right one)

OTHER_LOSSES = (
    *("beta", "use_bias_correction_kl", "epsilon", "epsilon_high", "delta", "loss_type", "importance_sampling_level"),
    *("off_policy_mask_threshold", "top_entropy_quantile", "entropy_coef", "use_adaptive_entropy"),
    *("sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
)  # fmt: skip
"""Settings that only TRL's own losses read."""

TRUNCATIONS = {"top_p": 1.0, "top_k": 0, "min_p": None}
"""Settings that cut the distribution that is sampled from, and the values that do not."""

LOGIT_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""What model configurations call a factor on the logits."""

OLD = "lco_"
"""Begins the names under which π_old travels with a rollout's rows."""

OLD_HIDDEN = f"{OLD}old_hidden"


class LCOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with one of LCO's losses in place of its own.

    Args:
        model, reward_funcs, args, others: as for GRPOTrainer. `args.scale_rewards` decides which advantage the loss is given:
            "none" is the suite's default, the reward minus the group's mean.
        method: lco_kld, lco_mse or lco_lch.
        hyper: the method's knobs, as `lco methods NAME` lists them, but for `advantage`.

    Raises:
        UserError: a method or knob that does not fit; a setting of `args` that only TRL's own losses read; a truncated sampling
            distribution; a model with images, experts, a scaled or capped head, or a head that is not a plain linear layer; FSDP.
        ValueError: what TRL refuses itself, such as an adapter on the head.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        *,
        method: str = "lco_kld",
        hyper: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.objective = bind_sparse_loss(method, hyper)
        if args is not None:
            refuse_settings(args)
        super().__init__(model, reward_funcs, args, **others)
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        refuse_model(self, base)
        answer_requests(base, PolicyModel(base, self.temperature))
        self._old_head: LinearHead | None = None
        self._old_parts: list[dict[str, Tensor]] | None = None  # a list while the old policy is being asked
        self._step_of_rollout = -1

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's rollout, and with it what the loss will read of π_old."""
        if not self.model.training:
            return dict(super()._generate_and_score_completions(inputs))
        old = self.objective.old
        steps = self.args.steps_per_generation * self.num_iterations
        moves = self.args.gradient_accumulation_steps % steps != 0  # TRL's own condition: then it asks the old policy
        self._old_parts = [] if moves and (old.whole or old.statistics) else None
        self._step_of_rollout = self.state.global_step
        try:
            output = dict(super()._generate_and_score_completions(inputs))
            kept = self._old_parts or []
        finally:
            self._old_parts = None
        names = kept[0] if kept else {}
        return output | {name: torch.cat([part[name] for part in kept]) for name in names}

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **rest: Any,
    ) -> Any:
        """TRL's old log-probabilities; while a rollout is scored, from the pass that keeps π_old."""
        if self._old_parts is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **rest
            )
        size = batch_size or len(input_ids)
        found = []
        for start in range(0, len(input_ids), size):
            batch = batch_of(input_ids[start : start + size], attention_mask[start : start + size], logits_to_keep)
            logprob, kept = self._ask_old_policy(model, batch)
            found.append(logprob)
            self._old_parts.append(kept)
        return torch.cat(found), None, None

    def _ask_old_policy(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(log-probabilities [B, T], what is kept of π_old, [B, T, …] each)."""
        old, mask = self.objective.old, batch.response_mask
        if not old.whole:
            names = dict.fromkeys(["logprob", *old.statistics])
            found: Mapping[str, Tensor] = model(lco_batch=batch, lco_request=Statistics(list(names)))
            return found["logprob"], {OLD + name: found[name] for name in old.statistics}
        snapshot: FixedPolicy = model(lco_batch=batch, lco_request=Snapshot())
        hidden, self._old_head = torch.cat(snapshot.hidden), snapshot.head
        logprob = token_statistics(hidden, snapshot.head, HeadRequest(batch.response_ids[mask], ["logprob"]))["logprob"]
        return spread(logprob, mask), {OLD_HIDDEN: spread(hidden, mask)}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The objective's loss on one micro-batch. Its divisor is the tokens of the whole optimizer step over all ranks, and
        ranks are averaged afterwards, so they count as many times as there are."""
        mode = "train" if self.model.training else "eval"
        batch = batch_of_inputs(inputs)
        mask = batch.response_mask
        scale = mask.float() * self.accelerator.num_processes / self._step_tokens(inputs, mode).clamp(min=1)
        if "importance_sampling_ratio" in inputs:  # TRL's correction of vLLM's sampling distribution
            scale = scale * inputs["importance_sampling_ratio"]
        advantages = inputs["advantages"]
        advantages = (advantages[:, None] if advantages.dim() == 1 else advantages).expand(mask.shape)
        moved = mode == "train" and self.state.global_step != self._step_of_rollout
        constants = {"advantage": advantages[mask].float()}
        if moved:
            constants |= {name: inputs[OLD + name][mask] for name in self.objective.old.statistics}
        request = HeadRequest(
            tokens=batch.response_ids[mask],
            statistics=self.objective.statistics,
            inputs=constants,
            scale=scale[mask],
            old=self._kept_policy(inputs, mask) if moved and self.objective.old.whole else None,
            target=self.objective.target,
            report=[name for name in self.objective.reported if name != HIDDEN_GRADIENT],
        )
        answer: LossAnswer = model(lco_batch=batch, lco_request=TokenLoss(self.objective.loss, request))
        self._log_statistics(mode, answer.statistics, mask)
        return answer.loss

    def _kept_policy(self, inputs: Mapping[str, Tensor], mask: Tensor) -> FixedHead:
        assert self._old_head is not None, "weights moved during a rollout that was taken for on-policy"
        return FixedHead(inputs[OLD_HIDDEN][mask], self._old_head)

    def _step_tokens(self, inputs: Mapping[str, Any], mode: str) -> Tensor:
        """Tokens of the optimizer step that this micro-batch belongs to, all ranks together.

        Where a step does not divide a rollout into equal parts, TRL's own estimate: the rollout's tokens times the share.
        """
        per_rollout, per_step = self.args.steps_per_generation, self.args.gradient_accumulation_steps
        whole: Tensor = inputs["num_items_in_batch"]
        if mode == "eval" or per_rollout == per_step:
            return whole
        if per_rollout % per_step or self._buffered_inputs is None:
            return whole * per_step / per_rollout
        first = self._step % per_rollout // per_step * per_step
        mine = sum(loss_mask(part).sum() for part in self._buffered_inputs[first : first + per_step])
        total: Tensor = self.accelerator.reduce(mine, reduction="sum")
        return total

    def _log_statistics(self, mode: str, statistics: Mapping[str, Tensor], mask: Tensor) -> None:
        """The means over tokens, all ranks together, of what the suite's own runs log of an update."""
        sums = torch.stack([*(value.float().sum() for value in statistics.values()), mask.sum().float()])
        *totals, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        for name, total in zip(statistics, totals, strict=True):
            self._metrics[mode][name if name == "entropy" else f"lco/{name}"].append(total / max(1.0, count))


def loss_mask(inputs: Mapping[str, Tensor]) -> Tensor:
    """[B, T]: 1 where the policy sampled the token; what a tool wrote does not count."""
    mask = inputs["completion_mask"]
    return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask


def batch_of(input_ids: Tensor, attention_mask: Tensor, completion: int) -> Batch:
    """TRL's rows as the suite's: prompts are padded on the left, so that every completion begins at one column and each
    prompt counts as long as the widest."""
    mask = attention_mask[:, -completion:].bool()
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask.long(),
        prompt_lengths=torch.full_like(input_ids[:, 0], input_ids.shape[1] - completion),
        response_lengths=mask.sum(1),
        response_ids=input_ids[:, -completion:],
        response_mask=mask,
    )


def batch_of_inputs(inputs: Mapping[str, Tensor]) -> Batch:
    """A micro-batch's rows; tokens that a tool wrote are read and not learnt from."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    mask = loss_mask(inputs).bool()
    batch = batch_of(ids, attention, mask.shape[1])
    return dataclasses.replace(batch, response_mask=mask, response_lengths=mask.sum(1))


def answer_requests(model: Any, policy: PolicyModel) -> None:
    """Patches `model.forward`, as TRL does for its fused head: with `lco_request` it is the suite's answer to that request on
    `lco_batch`, without it the forward of before."""
    original = model.forward

    @functools.wraps(type(model).forward)  # `generate` reads the signature
    def forward(
        self: nn.Module, *args: Any, lco_batch: Any = None, lco_request: Request[Any] | None = None, **kwargs: Any
    ) -> Any:
        if lco_request is None:
            return original(*args, **kwargs)
        training = self.training
        try:
            return policy(lco_batch, lco_request)
        finally:
            self.train(training)  # TRL reads from it whether it trains or evaluates

    model.forward = types.MethodType(forward, model)


def refuse_settings(args: GRPOConfig) -> None:
    """
    Raises:
        UserError: a setting that the loss would not read, or a truncated sampling distribution.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    for name in OTHER_LOSSES:
        if getattr(args, name) != defaults[name]:
            hint = "; LCO's own β stands in hyper" if name == "beta" else ""
            raise UserError(
                f"{name} is {getattr(args, name)!r}, which only TRL's own losses read; leave it at {defaults[name]!r}{hint}"
            )
    for name, whole in TRUNCATIONS.items():
        if getattr(args, name) not in (whole, None):
            raise UserError(
                f"{name} is {getattr(args, name)!r}, so completions would be sampled from another distribution than the loss "
                f"is about; leave it at {whole!r}"
            )


def refuse_model(trainer: Any, model: Any) -> None:
    """
    Raises:
        UserError: a model whose logits are not a plain linear head's, or one that is split in a way that was never tried.
    """
    text = model.config.get_text_config()
    name, head = type(model).__name__, model.get_output_embeddings()
    scale = next((key for key in LOGIT_SCALES if getattr(text, key, None) not in (None, 1, 1.0)), None)
    reasons = {
        "reads images": trainer._is_vlm,
        "adds a loss over its experts": trainer.aux_loss_enabled,
        f"scales its logits ({scale})": scale is not None,
        f"has a {type(head).__name__} as head (an adapter on it, or a quantised one)": type(head) is not nn.Linear,
        "is spread by FSDP": trainer.is_fsdp_enabled,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(
                f"{name} {reason}, which LCOTrainer does not compute; train it with TRL's own losses or without that"
            )
