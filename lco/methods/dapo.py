"""DAPO: a large-scale recipe around GRPO (arXiv 2503.14476).

    L = −min(r A, clip(r, 1 − ε_low, 1 + ε_high) A)   per token, mean over all tokens,   A = (R' − mean)/(std + ε_std)

- clip higher: ε_high > ε_low leaves unlikely tokens room to grow, against the collapse of entropy.
- dynamic sampling: only groups with 0 < right answers < G are kept, and further prompts are drawn in their place for at most
  `refill_rounds` rounds; after that the update goes on with fewer. What was drawn and not used is logged.
- overlong shaping: R' = R + 0 up to L_max − L_c tokens, then falling linearly to −1 at L_max, and −1 beyond. The earlier
  alternative leaves rows out that the limit cut (`overlong=filter`). Groups are judged by R, before shaping.
- no KL term; every token weighs the same, whatever the length of its row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.advantages import degenerate, standardised
from lco.heads import TokenFunction
from lco.losses import clip_shares, clipped_surrogate, ratio
from lco.methods.grpo import GRPO
from lco.methods.method import Hyper, Hyperparameter, Method, Preset, When
from lco.methods.objective import Needs, Signal


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """[B] in [−1, 0]: 0 up to `limit − buffer` tokens, then linear, −1 from `limit` on; 0 everywhere without a buffer."""
    if not buffer:
        return torch.zeros_like(lengths, dtype=torch.float32)
    return ((limit - buffer - lengths) / buffer).clamp(-1, 0)


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rewards = signal.rewards
    if hyper["overlong"] == "shape":
        rewards = rewards + overlong_penalty(signal.mask.sum(1), signal.length_limit, hyper["overlong_buffer"])
    rows = standardised(rewards, signal.groups, hyper["ddof"], hyper["epsilon_std"])
    return {"advantage": rows[:, None] * signal.mask}


def keep(signal: Signal, hyper: Hyper) -> Tensor:
    kept = torch.ones_like(signal.truncated)
    if hyper["dynamic_sampling"]:
        kept = kept & ~degenerate(signal.rewards, signal.groups)
    return kept & ~signal.truncated if hyper["overlong"] == "filter" else kept


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        return clipped_surrogate(r, x["advantage"], hyper["clip_low"], hyper["clip_high"])

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    r = ratio(s["logprob"], s["old_logprob"])
    return clip_shares(r, x["advantage"], mask, hyper["clip_low"], hyper["clip_high"])


DAPO = Method(
    name="dapo",
    page=__doc__,
    title="DAPO",
    paper="DAPO: An Open-Source LLM Reinforcement Learning System at Scale (arXiv 2503.14476)",
    summary="GRPO with a higher upper clip, token mean, and only groups that carry signal.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    hyperparameters={
        "clip_low": Hyperparameter(0.2, "ε_low: the ratio is clipped to at least 1 − ε_low", "paper", least=0, most=1),
        "clip_high": Hyperparameter(0.28, "ε_high: the ratio is clipped to at most 1 + ε_high", "paper", least=0),
        "dynamic_sampling": Hyperparameter(True, "leave out groups that are all right or all wrong", "paper"),
        "refill_rounds": Hyperparameter(
            0,
            "rounds of further prompts in their place; 0 keeps the budget of samples equal to other methods', 10 as verl",
            when=(When("dynamic_sampling", (True,)),),
            least=0,
        ),
        "overlong": Hyperparameter(
            "none",
            "long answers: shape the reward, or filter rows that the limit cut",
            "paper: shape",
            ("none", "shape", "filter"),
        ),
        "overlong_buffer": Hyperparameter(
            0,
            "L_c: tokens before the limit in which the penalty grows",
            "paper: 4096",
            when=(When("overlong", ("shape",)),),
            least=0,
        ),
        "ddof": GRPO.hyperparameters["ddof"],
        "epsilon_std": GRPO.hyperparameters["epsilon_std"],
    },
    paper_preset=Preset(
        hyper={"refill_rounds": 10, "overlong": "shape", "overlong_buffer": 4096},
        settings={
            "lr": 1e-6,
            "warmup_updates": 20,
            "samples": 16,
            "prompts_per_step": 512,
            "minibatches": 16,
            "max_new_tokens": 20480,
            "temperature": 1.0,
        },
        source="TRL's paper index; refill rounds as in verl's recipe",
    ),
    needs=lambda hyper: Needs(
        group=True,
        refill_rounds=hyper["refill_rounds"] if hyper["dynamic_sampling"] else 0,
        length_limit=hyper["overlong_buffer"] + 1 if hyper["overlong"] == "shape" else 0,
    ),
    keep=keep,
    conflict=lambda hyper: (
        "overlong=shape needs overlong_buffer, the tokens before the limit in which the penalty grows; give one above 0"
        if hyper["overlong"] == "shape" and hyper["overlong_buffer"] <= 0
        else None
    ),
    metrics=metrics,
    certainty="certain",
)

DAPO_REFILL = DAPO.variant(
    "dapo_refill",
    "DAPO with refill",
    "DAPO that draws further prompts until its rollout is full of groups with signal; it samples more than others do.",
    {"refill_rounds": 10},
    paper_preset=DAPO.paper_preset,
)
