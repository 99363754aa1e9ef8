"""What is logged of updates, from statistics that are given."""

import math

import pytest
import torch

from lco.methods.objective import Signal
from lco.training.engine import Step
from lco.training.metrics import sum_over_tokens, summarise
from lco.training.state import UpdateReport

WIDE = torch.arange(4) < torch.tensor([3, 1, 0])[:, None]
"""Three rows of a batch whose longest has four tokens; the micro-batches are cut to their own longest."""


def seen(rows, advantage, **statistics):
    """One optimizer step on one micro-batch of these rows."""
    width = max(1, int(WIDE[rows].sum(1).max()))
    given = {name: torch.tensor(value)[:, :width] for name, value in statistics.items()}
    given["hidden_gradient_sq"] = torch.ones(len(rows), width) * WIDE[rows][:, :width]
    step = Step(gradient_norm=1.0, lr=0.1, applied=True)
    return UpdateReport(step, 0.5, sum_over_tokens(given, advantage[rows], WIDE[rows]), {})


def log(*probabilities):
    """Log-probabilities; 0 stands for padding, where statistics are 0."""
    return [math.log(p) if p else 0.0 for p in probabilities]


def summary(steps, advantage, rows):
    signal = Signal(
        torch.tensor([1.0, 0, 0]), torch.zeros(3, dtype=torch.int64), WIDE, torch.zeros(3, dtype=torch.bool)
    )
    return summarise(steps, {"advantage": advantage}, signal, rows)


def test_a_targets_divergence_is_logged_per_token_and_per_response():
    """Two updates: 0.6 nats over a row of three tokens, then 0.2 over one of one and nothing over an empty one."""
    advantage = torch.tensor([[1.0], [-1.0], [1.0]]) * WIDE
    first = seen([0], advantage, logprob=[log(0.5, 0.2, 0.8)], target_kl=[[0.1, 0.2, 0.3]])
    second = seen([1, 2], advantage, logprob=[log(0.9), log(0)], target_kl=[[0.2], [0.0]])
    found = summary([first, second], advantage, [0, 1, 2])
    assert found["target_kl"] == pytest.approx(0.8 / 4)
    assert found["target_kl_per_sequence"] == pytest.approx(0.8 / 3)
    assert not {"tokens", "rows"} & set(found)  # those are the rollout's, counted elsewhere


def test_the_probability_of_sampled_tokens_leaves_padding_out():
    """A padded log-probability of 0 is not a certain token, and a token without advantage counts as any other."""
    advantage = torch.tensor([[1.0], [0.0], [0.0]]) * WIDE
    step = seen([0, 1, 2], advantage, logprob=[log(0.5, 0.2, 0.8), log(0.9, 0, 0), log(0, 0, 0)])
    found = summary([step], advantage, [0, 1, 2])
    assert found["sampled_probability"] == pytest.approx((0.5 + 0.2 + 0.8 + 0.9) / 4)
    assert found["logprob"] == pytest.approx(sum(map(math.log, (0.5, 0.2, 0.8, 0.9))) / 4)
    assert "target_kl_per_sequence" not in found  # a method without a target
