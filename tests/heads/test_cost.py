"""What the head does with the vocabulary, counted: unlike seconds, calls are the same on every machine."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lco.heads import FixedHead, HeadRequest, LinearHead, row_loss, token_loss
from lco.methods import METHODS

N, V, D, CHUNK = 12, 300, 16, 4
PRODUCTS = {"mm", "addmm_"}
NO_PASS = {"gather", "scatter_", "scatter_add_", "new_zeros"}  # they touch one entry a row, or none
VIEWS = {"slice", "t", "transpose", "unsqueeze", "view", "alias", "detach", "select", "expand"}


class Calls(TorchDispatchMode):
    """Counts the operations that read or write a chunk's worth of logits or more."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        name = function.overloadpacket.__name__
        if any(V in x.shape and CHUNK in x.shape for x in tensors) and name not in VIEWS | NO_PASS:
            self.count[name] += 1
        return result


def calls(name, on_policy, rows=False, report=()):
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, D, generator=g), torch.randn(V, D, generator=g)
    method = METHODS[name]
    objective = method.bind()
    targets, tilt = torch.randint(V, (N,), generator=g), torch.randn(N, generator=g)
    head = LinearHead(weight.clone().requires_grad_())
    old = None if on_policy else FixedHead(hidden * 1.01, LinearHead(weight))
    inputs = {"tilt": tilt, "advantage": tilt}
    asked = HeadRequest(targets, objective.statistics, inputs, torch.ones(N), old=old, report=report)
    x = hidden.clone().requires_grad_()
    with Calls() as seen:
        if rows:
            mask = torch.ones(2, N // 2, dtype=torch.bool)
            row_loss(x, head, mask, objective.loss, asked, CHUNK)
        else:
            token_loss(x, head, objective.loss, asked, CHUNK)
    return seen.count


def products(count):
    return sum(count[name] for name in PRODUCTS)


def test_on_policy_lco_costs_what_cross_entropy_costs():
    """Call for call: the same passes over the vocabulary, and not one more (the sampled token's entries apart)."""
    assert calls("lco_kld", on_policy=True) == calls("sft", on_policy=True)


def test_what_every_update_logs_adds_one_product_of_two_rows_a_token():
    plain = calls("lco_kld", on_policy=True)
    logged = calls(
        "lco_kld", on_policy=True, report=("logprob", "entropy", "target_tv", "target_kl", "kl_old", "kl_target")
    )
    assert logged - plain == Counter({"bmm": N // CHUNK})


@pytest.mark.parametrize(
    ("on_policy", "rows", "expected"),
    [(True, False, 3 * 3), (False, False, 3 * 4), (True, True, 3 * 4 - 1), (False, True, 3 * 6 - 2)],
)
def test_products(on_policy, rows, expected):
    """Of three chunks: logits, the old policy's, two for the gradient. A row loss needs the logits twice, but the last
    chunk's are still there when the second pass begins with it."""
    assert products(calls("lco_kld", on_policy, rows)) == expected
