"""Random rewards, the control of every claim that learning from right answers taught something.

Some base models get better under rewards that know nothing of the answer (arXiv 2506.10947), so a gain counts for what it exceeds
theirs by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lco.randomness import generator


def deal_at_random(rewards: Sequence[float], seed: int, step: int, purpose: str) -> list[float]:
    """The same rewards, dealt out anew among the responses of a part of a rollout by (seed, step, purpose).

    So their mean, and how many there are of each, are exactly the verifier's, and which response has one is chance. A response
    without a reward (not a number) keeps none.
    """
    places = [place for place, reward in enumerate(rewards) if math.isfinite(reward)]
    order = torch.randperm(len(places), generator=generator(seed, step, f"random reward/{purpose}")).tolist()
    dealt = list(rewards)
    for place, taken in zip(places, order, strict=True):
        dealt[place] = rewards[places[taken]]
    return dealt
