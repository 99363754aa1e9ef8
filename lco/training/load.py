"""From a plan to a collector and a learner: the model's configuration first, then the problems, the tokenizer, and the weights
last, so that mistakes cost seconds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lco import models
from lco.addresses import read_addresses
from lco.config import Experiment
from lco.console import say
from lco.errors import UserError
from lco.models.end_tokens import end_token_ids
from lco.models.export import export
from lco.models.lora import add_adapters
from lco.policy import PolicyModel, refuse_softcap
from lco.problems import Problem
from lco.problems.prompts import (
    PromptStyle,
    encode_all,
    render,
    style_named,
    with_thinking,
)
from lco.problems.responses import find_stops, response_decoder
from lco.problems.sets import is_held_out, load_problems
from lco.randomness import derived_seed
from lco.rollout.memory import weight_bytes
from lco.rollout.records import Sampler, Sampling
from lco.rollout.stop import StopSampler
from lco.rollout.thought import closing_ids, with_thought_budget
from lco.rollout.transformers import TransformersSampler
from lco.scratch import scratch_folder
from lco.training.collector import Collector
from lco.training.deepspeed import DeepSpeedEngine
from lco.training.engine import Engine, TorchEngine
from lco.training.learner import Learner
from lco.training.manifest import describe_models, describe_run
from lco.training.pool import PairPool
from lco.training.resolve import Plan
from lco.training.state import Clock, Policies, Prompt, Rollout
from lco.training.waiting import WaitingRollouts
from lco.verifier import Pool, Rules


@dataclass(frozen=True)
class Questions:
    """What a run asks: its prompts, worked solutions and validation prompts as ids, and how many were left out."""

    prompts: Sequence[Prompt]
    demonstrations: Sequence[tuple[int, ...]]
    validation: Sequence[Prompt]
    dropped: int
    validation_dropped: int


@dataclass(frozen=True)
class Loaded:
    """Everything that a run needs but its sampler, which starts from the weights that a resume brings."""

    collector: Collector
    learner: Learner
    pairs: PairPool | None
    waiting: WaitingRollouts | None
    validation: Sequence[Prompt]
    manifest: dict[str, Any]
    tokenizer: Any

    def collect(self, step: int, clock: Clock) -> Rollout:
        """Rollout number `step` for the learner: chosen from, or having waited, where the run asks for it."""
        return (self.pairs or self.waiting or self.collector).collect(step, clock)


def load(plan: Plan, world: int, pool: Pool) -> Loaded:
    """
    Raises:
        UserError: problems, prompts, tokenizers or models that do not fit the plan.
    """
    experiment, objective = plan.experiment, plan.objective
    device = models.resolve_device(experiment.device)
    config = models.load_config(experiment.model)
    context = fitting_context(experiment, config)
    check_top(plan, config)
    sets = load_problem_sets(experiment)
    tokenizer = with_thinking(models.load_tokenizer(experiment.model), experiment.thinking)
    refuse_softcap(config, experiment.model)
    for where in {*plan.fixed_models.values(), experiment.critic_model} - {"", experiment.model}:
        refuse_softcap(models.load_config(where), where)
    stop_ids, stop = find_stops(tokenizer, experiment.stop)
    ends = tuple(sorted({*end_token_ids(tokenizer, experiment.model), *stop_ids}))
    if experiment.thought_tokens:
        closing_ids(tokenizer, experiment.thought_tokens)  # refused before a model is loaded
    asked = prepare_questions(plan, *sets, tokenizer, context, ends)
    model = models.load_model(experiment.model, experiment.dtype, device)
    if experiment.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    fixed = load_fixed(plan, tokenizer, model, device)
    critic = load_critic(experiment, tokenizer, device)
    manifest = {
        **describe_run(plan, world, asked.prompts, (asked.dropped, asked.validation_dropped), tokenizer, ends),
        **describe_models(plan, model, fixed, critic.model if critic else None),
    }
    torch.manual_seed(derived_seed(experiment.seed, 0, "new heads") % 2**32)
    if experiment.lora_rank:
        add_adapters(model, experiment.lora_rank, experiment.lora_alpha or 2 * experiment.lora_rank)
    policy = PolicyModel(model, experiment.temperature, critic=critic is None and objective.critic).to(device)
    engine = build_engine(policy, experiment)
    policies = Policies(
        engine=engine,
        critic=build_engine(critic, dataclasses.replace(experiment, lr=experiment.critic_lr)) if critic else None,
        fixed={name: PolicyModel(network, experiment.temperature) for name, (_, network) in fixed.items()},
        micro_batch=experiment.micro_batch,
    )
    rules = Rules(extraction=experiment.extraction)
    collector = Collector(
        experiment=experiment,
        objective=objective,
        ranks=engine,
        prompts=asked.prompts,
        demonstrations=asked.demonstrations,
        sampling=Sampling(
            experiment.temperature,
            1.0,
            0,
            experiment.max_new_tokens,
            experiment.samples,
            ends,
            objective.needs.sampler_top,
            stop,
            experiment.thought_tokens,
        ),
        verify=lambda pairs: pool.verify_many(pairs, rules),
        decode=response_decoder(tokenizer, stop),
        rewards=plan.rewards,
        prompt_text=render(tokenizer, style_named(experiment.prompt).messages("?")),
    )
    refresh = objective.refresh
    pairs = PairPool(refresh, collector, policies, say if engine.rank == 0 else lambda _: None) if refresh else None
    learner = Learner(experiment, objective, policies)
    waiting = WaitingRollouts(collector, learner) if experiment.staleness else None
    return Loaded(collector, learner, pairs, waiting, asked.validation, manifest, tokenizer)


def load_problem_sets(experiment: Experiment) -> tuple[list[Problem], list[Problem]]:
    """(training problems, validation problems)."""
    named = {"columns": experiment.columns} if experiment.columns else {}
    training = load_problems(experiment.problems, experiment.split, experiment.data_dir, experiment.limit, **named)
    if experiment.eval_share:
        return split_off(training, experiment)
    if not experiment.eval_every:
        return training, []
    held_out = load_problems(experiment.problems, experiment.eval_split, experiment.data_dir, experiment.eval_problems)
    return training, held_out


def split_off(problems: Sequence[Problem], experiment: Experiment) -> tuple[list[Problem], list[Problem]]:
    """(training problems, validation problems) of one split, apart by hash.

    Raises:
        UserError: one of the two would be empty.
    """
    held_out = [problem for problem in problems if is_held_out(problem, experiment.eval_share)]
    training = [problem for problem in problems if not is_held_out(problem, experiment.eval_share)]
    if not held_out or not training:
        raise UserError(
            f"eval_share is {experiment.eval_share}, which leaves {len(held_out)} of {len(problems)} problems for validation and "
            f"{len(training)} for training; give another share"
        )
    return training, held_out[: experiment.eval_problems] if experiment.eval_every else []


def prepare_questions(
    plan: Plan,
    training: Sequence[Problem],
    held_out: Sequence[Problem],
    tokenizer: Any,
    context: int | None,
    ends: Sequence[int],
) -> Questions:
    """Problems → prompts (and worked solutions) as ids, those that are too long left out and counted.

    Raises:
        UserError: none is left, or a worked solution is missing.
    """
    style, limit = style_named(plan.experiment.prompt), plan.experiment.max_prompt_tokens
    kept = short(encode_prompts(tokenizer, training, style), limit, "prompt")
    validation = short(encode_prompts(tokenizer, held_out, style), limit, "validation prompt")
    targets: Sequence[tuple[int, ...]] = ()
    if plan.objective.source == "demonstrations":
        kept, targets = readable(kept, demonstrations(kept, tokenizer, ends), context)
    per_step = plan.experiment.prompts_per_step
    if per_step > len(kept):
        say(f"prompts_per_step is {per_step}, but there are {len(kept)} problems: a rollout asks each several times")
    return Questions(kept, targets, validation, len(training) - len(kept), len(held_out) - len(validation))


def encode_prompts(tokenizer: Any, problems: Sequence[Problem], style: PromptStyle) -> list[Prompt]:
    return [Prompt(*pair) for pair in zip(problems, encode_all(tokenizer, problems, style), strict=True)]


def fitting_context(experiment: Experiment, config: Any) -> int | None:
    """Tokens that the model reads; None where its configuration does not say.

    Raises:
        UserError: prompt and response are longer.
    """
    context = models.context_length(config)
    room = experiment.max_prompt_tokens + experiment.max_new_tokens
    if context is not None and room > context:
        raise UserError(
            f"max_prompt_tokens + max_new_tokens is {room}, but {experiment.model} reads at most {context} tokens; "
            "lower one of them"
        )
    return context


def check_top(plan: Plan, config: Any) -> None:
    """
    Raises:
        UserError: the method reads more of the likeliest tokens than the model has, or than servers send.
    """
    top, size = plan.objective.needs.sampler_top, config.get_text_config(decoder=True).vocab_size
    if top and plan.experiment.rollouts == "vllm-server":
        reads = f"{plan.objective.name} reads the sampler's {top} likeliest tokens of every position"
        raise UserError(f"{reads}, which servers do not send; use --rollouts vllm or transformers")
    if top > size:
        raise UserError(
            f"{plan.objective.name} reads the {top} likeliest tokens of every position, but {plan.experiment.model} has a "
            f"vocabulary of {size}; give fewer (--hyper top={size})"
        )


def short(prompts: Sequence[Prompt], limit: int, what: str) -> list[Prompt]:
    """The prompts that fit the limit; how many do not is said.

    Raises:
        UserError: none fits.
    """
    kept = [p for p in prompts if len(p.ids) <= limit]
    if len(kept) < len(prompts):
        say(f"{len(prompts) - len(kept)} of {len(prompts)} {what}s are longer than {limit} tokens: dropped")
    if prompts and not kept:
        raise UserError(f"every {what} is longer than max_prompt_tokens = {limit}; raise it")
    return kept


def readable(
    prompts: Sequence[Prompt], targets: Sequence[tuple[int, ...]], context: int | None
) -> tuple[list[Prompt], list[tuple[int, ...]]]:
    """Prompts and their worked solutions that the model reads together; how many are too long for it is said.

    Raises:
        UserError: none fits.
    """
    pairs = list(zip(prompts, targets, strict=True))
    kept = [(p, ids) for p, ids in pairs if context is None or len(p.ids) + len(ids) <= context]
    if not kept:
        raise UserError(
            f"every prompt with its solution is longer than the {context} tokens that the model reads; "
            "give another model or other problems"
        )
    if len(kept) < len(pairs):
        dropped = len(pairs) - len(kept)
        say(f"{dropped} of {len(pairs)} prompts with their solutions are longer than {context} tokens: dropped")
    return [p for p, _ in kept], [ids for _, ids in kept]


def load_critic(experiment: Experiment, tokenizer: Any, device: str) -> PolicyModel | None:
    """The critic where it is a model of its own: a body with a value head; its language-model head is not trained.

    Raises:
        UserError: it has another vocabulary, so that it would read other words than the policy's.
    """
    if experiment.critic != "separate":
        return None
    where = experiment.critic_model or experiment.model
    if models.load_tokenizer(where).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{where} has another vocabulary than {experiment.model}; --critic-model needs the same tokenizer"
        )
    network: Any = models.load_model(where, experiment.dtype, device)
    head, embedding = network.get_output_embeddings().weight, network.get_input_embeddings().weight
    if head is not embedding:
        head.requires_grad_(False)
    return PolicyModel(network, experiment.temperature, critic=True).to(device)


def load_fixed(plan: Plan, tokenizer: Any, model: nn.Module, device: str) -> dict[str, tuple[str, nn.Module]]:
    """{reference, verifier, dpo: (its name, its network)} of those that the run reads, none of them trainable.

    Raises:
        UserError: a model has another vocabulary, so that its tokens are not the policy's.
    """
    found, experiment = {}, plan.experiment
    for name, where in plan.fixed_models.items():
        if models.load_tokenizer(where).get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"{where} has another vocabulary than {experiment.model}; --{name}-model needs the same tokenizer"
            )
        network = models.load_model(where, experiment.dtype, device).requires_grad_(False)
        rows, expected = (m.get_output_embeddings().weight.shape[0] for m in (network, model))  # type: ignore[operator]
        if rows != expected:
            raise UserError(
                f"{where} has a head of {rows} rows, {experiment.model} one of {expected}; give a {name} model alike"
            )
        found[name] = (where, network)
    return found


def demonstrations(prompts: Sequence[Prompt], tokenizer: Any, ends: Sequence[int]) -> list[tuple[int, ...]]:
    """Worked solutions as ids, each ending with the tokenizer's end token, on which the sampler stops."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0]
    missing = next((p.problem.id for p in prompts if not p.problem.solution), None)
    if missing is not None:
        raise UserError(
            f"problem {missing!r} has no worked solution to imitate; use a set with solutions or another method"
        )
    return [(*tokenizer.encode(p.problem.solution, add_special_tokens=False), end) for p in prompts]


def build_engine(policy: PolicyModel, experiment: Experiment) -> Engine:
    if experiment.engine == "torch":
        return TorchEngine(policy, experiment)
    return DeepSpeedEngine(policy, experiment)


def start_sampler(plan: Plan, loaded: Loaded, world: int) -> Sampler | None:
    """The sampler of this rank, which keeps stop strings and the budget of a thought."""
    sampler = start_engine_sampler(plan, loaded, world)
    if sampler is None:
        return None
    if plan.experiment.stop:
        sampler = StopSampler(sampler, response_decoder(loaded.tokenizer))
    return with_thought_budget(sampler, loaded.tokenizer, plan.experiment.thought_tokens)


def start_engine_sampler(plan: Plan, loaded: Loaded, world: int) -> Sampler | None:
    """The sampler of this rank, of preference pairs the reference policy's. vLLM beside several ranks is one process of
    its own, owned by rank 0."""
    experiment, paired, engine = plan.experiment, plan.objective.source == "pairs", loaded.learner.policies.engine
    if plan.objective.source == "demonstrations" and not experiment.eval_every:
        return None
    if experiment.rollouts == "transformers":
        # ZeRO-3 gathers weights inside every forward, so its ranks must sample in step.
        in_step = experiment.engine == "deepspeed" and experiment.zero_stage == 3
        decode = response_decoder(loaded.tokenizer)
        if paired:
            return TransformersSampler(loaded.learner.policies.fixed["reference"].model, decode=decode)
        return TransformersSampler(engine.policy.model, any_rank=engine.any if in_step else None, decode=decode)
    if engine.rank != 0:
        return None
    policy = loaded.learner.policies.fixed["reference"] if paired else engine.policy
    if experiment.rollouts == "vllm-server":
        return start_server_sampler(experiment, loaded.collector.prompts[0].ids, policy if paired else None)
    from lco.rollout.vllm import VLLMSampler  # vLLM, which only a run that samples with it has to have

    with folder_for_vllm(plan.fixed_models["reference"] if paired else experiment.model, policy) as where:
        return VLLMSampler(
            where,
            dtype=experiment.dtype,
            cache_gib=experiment.vllm_cache_gib,
            max_model_len=experiment.max_prompt_tokens + experiment.max_new_tokens,
            separate_process=world > 1,
            top=plan.objective.needs.sampler_top,
        )


def start_server_sampler(experiment: Experiment, probe: Sequence[int], paired: PolicyModel | None) -> Sampler:
    """The sampler that asks servers.

    Args:
        paired: the reference policy that preference pairs are drawn from. No later synchronisation brings its weights.
    """
    from lco.rollout.vllm_server import VLLMServerSampler  # its HTTP client, which only such a run has to have

    size = weight_bytes(experiment.model, experiment.dtype)
    sampler = VLLMServerSampler(read_addresses(os.environ), experiment.dtype, probe, size)
    if paired is not None:
        sampler.sync(models.checkpoint_weights(paired.model, paired.named_weights()))
    return sampler


@contextmanager
def folder_for_vllm(where: str, policy: PolicyModel) -> Iterator[str]:
    """What vLLM reads: a folder or hub id as it was given; a GGUF file, which it cannot read, as an ordinary folder with
    the de-quantised weights, for as long as the engine starts."""
    if not where.endswith(".gguf"):
        yield where
        return
    with scratch_folder() as folder:
        export(policy.model, models.load_tokenizer(where), folder, dict(policy.named_weights()))
        yield str(folder)
