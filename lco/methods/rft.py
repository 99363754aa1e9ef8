"""RFT: rejection-sampling fine-tuning, SFT on the policy's own verified answers (arXiv 2308.01825).

    L = −ℓ   per token of the rows with reward > 0

As a policy gradient its weight is 1[R > 0]: REINFORCE with A ∈ {0, 1}. Prompts without a right sample disappear (their
share is logged as coverage); a rollout without any right sample is skipped. `distinct` leaves out answers that repeat
another one of their prompt, white space aside; `cap` keeps so many a prompt, the first ones sampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return {"advantage": (signal.rewards > 0).float()[:, None] * signal.mask}


def keep(signal: Signal, hyper: Hyper) -> Tensor:
    kept = signal.rewards > 0
    taken: Counter[int] = Counter()
    seen: set[tuple[int, str]] = set()
    for row in kept.nonzero().flatten().tolist():
        group = int(signal.groups[row])
        text = " ".join(signal.responses[row].split()) if hyper["distinct"] else ""
        if (hyper["distinct"] and (group, text) in seen) or (hyper["cap"] and taken[group] >= hyper["cap"]):
            kept[row] = False
            continue
        seen.add((group, text))
        taken[group] += 1
    return kept


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return -x["advantage"] * s["logprob"]

    return per_token


RFT = Method(
    name="rft",
    page=__doc__,
    title="RFT",
    family="imitation",
    paper="Scaling relationship on learning mathematical reasoning (arXiv 2308.01825)",
    summary="SFT on the policy's own verified answers: the positive-only control.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="token_mean",
    hyperparameters={
        "distinct": Hyperparameter(False, "leave out answers that repeat another one of their prompt", "paper: on"),
        "cap": Hyperparameter(0, "right answers of one prompt that are learnt from, at most (0: all)", least=0),
    },
    paper_preset=Preset(
        hyper={"distinct": True},
        settings={"samples": 100, "temperature": 0.7},
        source="known in the field, not re-read; the paper compares lists of equations, this compares texts",
    ),
    keep=keep,
    certainty="certain; details of the selection from memory of the field",
)
