"""From a configuration to a plan: every name looked up, every rule checked, before anything is loaded, and once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lco.config import Experiment
from lco.errors import UserError
from lco.methods import check_method, method_named
from lco.methods.knobs import check_known
from lco.problems.rewards import Term, terms_of
from lco.training import rules

if TYPE_CHECKING:  # torch, which a refusal does without
    from lco.methods.objective import Objective


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        experiment: the configuration, checked.
        objective: its method with its knobs bound.
        fixed_models: {reference, verifier, dpo: folder or hub id} of the policies beside the trained one that it reads.
        warnings: a sentence for each value that has no effect.
        rewards: what a response is rewarded for; none where it is the verdict alone.
    """

    experiment: Experiment
    objective: Objective
    fixed_models: Mapping[str, str]
    warnings: tuple[str, ...]
    rewards: tuple[Term, ...] = ()


def resolve(experiment: Experiment) -> Plan:
    """The plan of an experiment; only here are the registry, the problem sets and the rules asked.

    Raises:
        UserError: whatever would fail later, in one sentence with the key, the value and the remedy.
    """
    check_method(experiment.method)
    rules.check_values(experiment)
    rules.check_problems(experiment)
    rules.check_installed(experiment)
    rules.check_lora(experiment)
    rules.check_servers(experiment, os.environ)
    rules.check_machine(experiment)
    check_known(experiment.method, experiment.hyper)
    method = method_named(experiment.method).with_reduction(experiment.reduction)  # which imports torch
    objective = method.bind(experiment.hyper)
    given = {
        "reference": experiment.reference_model or experiment.model,
        "verifier": experiment.verifier_model,
        "dpo": experiment.dpo_model,
    }
    fixed_models = {name: given[name] for name in objective.fixed}
    rules.check_fixed_models(experiment, fixed_models)
    rules.check_objective(experiment, objective)
    rewards = terms_of(experiment.reward)
    if not experiment.model:
        raise UserError("no model given; name a folder or a hub id with --model")
    return Plan(experiment, objective, fixed_models, tuple(rules.describe_unread(experiment, objective)), rewards)
