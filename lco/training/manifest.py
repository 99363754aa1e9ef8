"""What a run is made of, as its folder keeps it: code, packages, machine, models and problems by hash, no path."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lco import models
from lco.methods import code_of
from lco.problems.prompts import prompt_facts, prompts_sha256
from lco.problems.rewards import code_of as code_of_rewards
from lco.problems.sets import content_sha256
from lco.provenance import collect
from lco.training.resolve import Plan
from lco.training.state import Prompt


def describe_models(
    plan: Plan, model: nn.Module, fixed: Mapping[str, tuple[str, nn.Module]], critic: nn.Module | None
) -> dict[str, Any]:
    """The trained model and those beside it, each by class, name and hash.

    Args:
        fixed: {name: (where it was loaded from, the model)}.
        critic: a critic that is a model of its own.
    """
    experiment = plan.experiment
    others = {name: identity(where, network) for name, (where, network) in fixed.items()}
    return {
        "model": identity(experiment.model, model),
        **({"fixed_models": others} if others else {}),
        **({"critic_model": identity(experiment.critic_model or experiment.model, critic)} if critic else {}),
    }


def describe_run(
    plan: Plan, world: int, prompts: Sequence[Prompt], dropped: tuple[int, int], tokenizer: Any, ends: Sequence[int]
) -> dict[str, Any]:
    """Everything but the models.

    Args:
        world: processes.
        dropped: problems and validation problems that were left out as too long.
        ends: ids that end a response.
    """
    code = {**code_of(plan.experiment.method), **code_of_rewards(plan.rewards)}
    return {
        "run": uuid.uuid4().hex,
        **collect(),
        "problems_sha256": content_sha256([p.problem for p in prompts]),
        "prompts_sha256": prompts_sha256(p.ids for p in prompts),
        "problems_used": len(prompts),
        "problems_dropped": dropped[0],
        "validation_dropped": dropped[1],
        "end_token_ids": list(ends),
        "prompt": prompt_facts(tokenizer),
        "world_size": world,
        "method": {key: getattr(plan.objective, key) for key in ("name", "title", "family", "source")},
        "reduction": plan.objective.reduction,
        **({"code": code} if code else {}),
    }


def identity(where: str, model: nn.Module) -> dict[str, str]:
    """How a record names a model: never by its path."""
    return {"class": type(model).__name__, "name": models.public_name(where), "sha256": models.weights_sha256(model)}
