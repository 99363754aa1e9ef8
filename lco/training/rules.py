"""What is refused before anything is loaded: values and combinations of a configuration that cannot be meant.

`lco/config.py` says what the keys are; here is what they may be, one sentence with the remedy for each mistake, and what has
no effect in a run. `resolve` in resolve.py asks for all of it, once.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lco import models
from lco.addresses import URLS, read_addresses
from lco.config import Experiment, fields
from lco.errors import UserError, nearest
from lco.problems.local import is_file_name
from lco.problems.prompts import style_named
from lco.problems.rewards import ALONE
from lco.problems.sets import SETS, is_hub_id, set_named
from lco.verifier.rules import EXTRACTIONS

if TYPE_CHECKING:  # torch, which a refusal does without
    from lco.methods.objective import Objective


SMALLEST, LARGEST = 1e-30, 1e30
"""Where float32 ends (1.2e-38 and 3.4e38), with room for a product."""


def check_values(experiment: Experiment) -> None:
    """
    Raises:
        UserError: a value outside its choices or its range; names the key, the value, and the remedy.
    """
    for name, spec in fields().items():
        value = getattr(experiment, name)
        choices, least, below = (spec.metadata[key] for key in ("choices", "least", "below"))
        if choices and value not in choices:
            raise UserError(f"{name} is {value!r}{nearest(value, choices)}")
        check_finite(name, value)
        if least is not None and value < least:
            raise UserError(f"{name} is {value}; the least allowed value is {least}")
        if below is not None and value >= below:
            raise UserError(f"{name} is {value}; give a value below {below}")
    if experiment.lr * experiment.weight_decay >= 1:
        raise UserError(
            f"weight_decay is {experiment.weight_decay} at lr {experiment.lr}: an update takes the share lr · weight_decay of "
            "every weight away, which is all of it or more; give less"
        )


def check_objective(experiment: Experiment, objective: Objective) -> None:
    """
    Raises:
        UserError: the run does not give what its objective needs.
    """
    if objective.source == "pairs" and experiment.eval_every:
        raise UserError(
            f"eval_every is {experiment.eval_every}, but {objective.name} samples from the reference policy and has no "
            "sampler of its own weights to validate with; give 0 and score the checkpoint with `lco evaluate`"
        )
    if experiment.diagnose_every and experiment.engine == "deepspeed" and experiment.zero_stage == 3:
        raise UserError("diagnose_every needs whole gradients, which ZeRO-3 never has; use --zero-stage 2 or give 0")
    if experiment.engine == "deepspeed":
        refuse_what_ranks_share(objective)
    check_staleness(experiment, objective)
    for name, value in objective.hyper.items():
        check_finite(name, value)
    check_critic(experiment, objective.critic)
    if objective.source != "rollouts" and experiment.reward != ALONE:
        raise UserError(
            f"reward is {experiment.reward}, but {objective.name} learns from {objective.source} and reads none; leave it out"
        )
    needs = objective.needs
    if needs.critic_warmup >= experiment.steps:
        raise UserError(
            f"critic_warmup is {needs.critic_warmup} of {experiment.steps} rollouts: the policy would never be trained; "
            "lower it or raise --steps"
        )
    if needs.length_limit > experiment.max_new_tokens:
        raise UserError(
            f"max_new_tokens is {experiment.max_new_tokens}, but {objective.name} with these hyper-parameters needs at least "
            f"{needs.length_limit}; raise it, or shorten the part of a response that they speak of"
        )
    if experiment.thought_tokens >= experiment.max_new_tokens:
        raise UserError(
            f"thought_tokens is {experiment.thought_tokens}, which leaves nothing of {experiment.max_new_tokens} tokens for an "
            "answer; lower it, or raise --max-new-tokens"
        )
    if needs.group and experiment.samples < 2:
        raise UserError(
            f"samples is {experiment.samples}: {objective.name} compares samples of one prompt, give at least 2"
        )
    if objective.source == "rollouts" and experiment.rows_per_step < experiment.minibatches:
        raise UserError(
            f"minibatches is {experiment.minibatches} but a rollout has only {experiment.rows_per_step} rows; lower it"
        )


def check_staleness(experiment: Experiment, objective: Objective) -> None:
    """
    Raises:
        UserError: rollouts shall wait that no earlier policy could have sampled, or whose π_old would lie on several ranks.
    """
    if not experiment.staleness:
        return
    if objective.source != "rollouts":
        raise UserError(
            f"staleness is {experiment.staleness}, but {objective.name} learns from {objective.source}, which are the same "
            "whatever the policy is; give 0"
        )
    if experiment.engine == "deepspeed":
        raise UserError(
            f"staleness is {experiment.staleness}, but with --engine deepspeed what is kept of π_old lies on the ranks, which no "
            "checkpoint gathers; give --engine torch, or 0"
        )


def refuse_what_ranks_share(objective: Objective) -> None:
    """
    Raises:
        UserError: the objective reads what DeepSpeed spreads over its ranks; names it, and the knobs that do without.
    """
    needs = objective.needs
    step = needs.head_step
    read = {
        "reads the head's moments or gradient before a step": step is not None and (step.moments or step.gradient),
        "needs the gradient of each row by itself": needs.row_norms == "exact",
        "needs the gradient of each micro-batch by itself": objective.rate is not None,
    }
    for what, wanted in read.items():
        if wanted:
            raise UserError(
                f"{objective.name} with these hyper-parameters {what}, which DeepSpeed spreads over its ranks; give --engine "
                f"torch{f', or --hyper {needs.on_ranks}' if needs.on_ranks else ''}"
            )


def check_finite(name: str, value: Any) -> None:
    """
    Raises:
        UserError: nan, which no comparison refuses, or a number that float32, in which everything is computed, takes for
            infinite or for zero.
    """
    if not isinstance(value, float):
        return
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}; give a finite number")
    if value and not SMALLEST <= abs(value) <= LARGEST:
        taken = "infinite" if abs(value) > 1 else "zero"
        raise UserError(
            f"{name} is {value}, which float32 takes for {taken}; give a number from {SMALLEST:g} to {LARGEST:g}"
        )


def check_problems(experiment: Experiment) -> None:
    """
    Raises:
        UserError: no such problem set, split, prompt style or extraction rule, or no split that a validation may read.
    """
    style_named(experiment.prompt)
    check_data_dir(experiment)
    if experiment.extraction not in EXTRACTIONS:
        raise UserError(f"extraction is {experiment.extraction!r}{nearest(experiment.extraction, EXTRACTIONS)}")
    if experiment.columns and experiment.problems in SETS:
        raise UserError(f"--columns is given, but the columns of {experiment.problems} are known; leave it out")
    if experiment.eval_share:
        if not (is_file_name(experiment.problems) or is_hub_id(experiment.problems)):
            set_named(experiment.problems, experiment.split)
        return
    without = (
        "give eval_every 0 and score the checkpoint with `lco evaluate`, or split a share off with --eval-share 0.05"
    )
    if experiment.eval_split == "test":
        raise UserError(f"eval_split is 'test', which training never reads; give another split, or {without}")
    if is_hub_id(experiment.problems):
        if experiment.eval_every and experiment.eval_split == experiment.split:
            raise UserError(
                f"eval_split is {experiment.eval_split!r}, as split, so that validation would read the training problems; give "
                f"another split of {experiment.problems}, or {without}"
            )
        return
    if is_file_name(experiment.problems):
        if experiment.eval_every:
            raise UserError(
                f"eval_every is {experiment.eval_every}, but {experiment.problems} is one file without splits, so that "
                f"validation would read the training problems; {without}, or train on a set with a validation split "
                "(see `lco problems`)"
            )
        return
    splits = set_named(experiment.problems, experiment.split).splits
    if experiment.eval_every and experiment.eval_split not in splits:
        others = [split for split in splits if split not in ("test", experiment.split)]
        hint = f"{nearest(experiment.eval_split, others)}, or" if others else ";"
        raise UserError(f"{experiment.problems} has no split {experiment.eval_split!r} to validate on{hint} {without}")


def check_data_dir(experiment: Experiment) -> None:
    """
    Raises:
        UserError: a folder of problems is given, but the problems are made here, or are a file that is named apart.
    """
    folder, problems = experiment.data_dir, experiment.problems
    if not folder:
        return
    if is_file_name(problems) or is_hub_id(problems):
        hint = f" (--problems {Path(folder) / problems})" if (Path(folder) / problems).is_file() else ""
        raise UserError(
            f"--data-dir is the folder of the named sets, and problems is {problems}; give the file's whole path{hint} "
            "and leave --data-dir out"
        )
    if set_named(problems, experiment.split).generate is not None:
        raise UserError(
            f"--data-dir is {folder}, but the problems of {problems} are made and not read; name a set with --problems "
            "(`lco problems` lists them), or leave --data-dir out"
        )


def check_lora(experiment: Experiment) -> None:
    """
    Raises:
        UserError: adapters are wanted where they have not been tried.
    """
    if not experiment.lora_rank:
        return
    if experiment.engine == "deepspeed":
        raise UserError(
            f"lora_rank is {experiment.lora_rank}, and adapters are trained in one process alone here; give --engine torch, or "
            "lora_rank 0"
        )
    if importlib.util.find_spec("peft") is None:
        raise UserError(
            f"lora_rank is {experiment.lora_rank}, but peft is not installed; install it as docs/install.md says"
        )


def check_servers(experiment: Experiment, variables: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: servers are to sample and none is named, or the other way round.
    """
    if experiment.rollouts == "vllm-server":
        read_addresses(variables)
    elif variables.get(URLS):
        raise UserError(
            f"vLLM servers are named (--vllm-url, or {URLS} in the environment), but rollouts is {experiment.rollouts!r}; give "
            "--rollouts vllm-server, or leave the addresses out"
        )


def check_machine(experiment: Experiment) -> None:
    """
    Raises:
        UserError: the device is not there, or a model's folder is not whole, as far as that is known before torch is imported.
    """
    models.check_device(experiment.device)
    for name in ("model", "reference_model", "verifier_model", "dpo_model", "critic_model"):
        models.check_local(getattr(experiment, name))


def check_installed(experiment: Experiment) -> None:
    """
    Raises:
        UserError: the sampling or training engine, or the tracker, is a package that is not there.
    """
    if experiment.track != "none" and importlib.util.find_spec(experiment.track) is None:
        raise UserError(
            f"track is {experiment.track!r}, but {experiment.track} is not installed; install it into the same environment (the "
            f"extra `{experiment.track}` of this package), or leave --track out"
        )
    for name, package in (("rollouts", "vllm"), ("engine", "deepspeed")):
        if getattr(experiment, name) == package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"{name} is {package!r}, but {package} is not installed; install it as docs/install.md says, or give "
                f"--{name} {fields()[name].default}"
            )


def describe_unread(experiment: Experiment, objective: Objective) -> list[str]:
    """A sentence for each value that is not its default and that nothing in this run reads, of a configuration that has
    passed the checks."""
    named = SETS.get(experiment.problems)
    deepspeed = (experiment.engine == "deepspeed", "with --engine deepspeed")
    validation = (experiment.eval_every > 0, "with --eval-every")
    sampled = (objective.source != "demonstrations" or validation[0], "where responses are sampled")
    readers = {
        "split": (named is not None or is_hub_id(experiment.problems), "for named problem sets"),
        "vllm_cache_gib": (experiment.rollouts == "vllm", "with --rollouts vllm"),
        "lora_alpha": (experiment.lora_rank > 0, "with --lora-rank"),
        "processes": deepspeed,
        "zero_stage": deepspeed,
        "critic_lr": (objective.critic, "by a method with a critic"),
        "eval_split": (validation[0] and not experiment.eval_share, "with --eval-every and without --eval-share"),
        "eval_problems": validation,
        "stop": sampled,
        "thought_tokens": sampled,
    }
    known = fields()
    return [
        f"{name} is {getattr(experiment, name)!r} and has no effect: it is read only {where}"
        for name, (read_here, where) in readers.items()
        if not read_here and getattr(experiment, name) != default_of(known[name])
    ]


def default_of(spec: dataclasses.Field[Any]) -> Any:
    return spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()


def check_fixed_models(experiment: Experiment, used: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: a model that the method reads is not given, or one is given that it does not read.
    """
    for name in ("reference", "verifier", "dpo"):
        flag = f"--{name}-model"
        if name in used and not used[name]:
            raise UserError(f"{experiment.method} reads a {name} model here; name its folder or hub id with {flag}")
        if name not in used and getattr(experiment, f"{name}_model"):
            raise UserError(
                f"{flag} is given, but {experiment.method} with these hyper-parameters reads none; leave it out"
            )


def check_critic(experiment: Experiment, wanted: bool) -> None:
    """
    Raises:
        UserError: a critic is asked for that the method does not have, or a model for one that is not separate.
    """
    if experiment.critic == "separate" and not wanted:
        raise UserError(
            f"critic is 'separate', but {experiment.method} with these hyper-parameters has none; leave it out"
        )
    if experiment.critic_model and experiment.critic != "separate":
        raise UserError(f"critic_model is {experiment.critic_model!r}, which is read with --critic separate alone")
