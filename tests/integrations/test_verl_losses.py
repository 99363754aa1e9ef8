"""What is put into verl's registry, called as verl calls it and reduced by verl's own aggregation, against the suite's head.
Needs verl 0.9, which is no part of the suite: `make peers`. verl trains on GPUs alone, so here only its losses run."""

import pytest
import torch

from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss
from lco.methods import METHODS

pytest.importorskip("verl", reason="verl is not installed; `make peers` makes an environment that has it")
pytestmark = pytest.mark.long

from verl.trainer.ppo.core_algos import get_policy_loss_fn  # noqa: E402
from verl.utils.import_utils import import_external_libs  # noqa: E402
from verl.workers.config import ActorConfig  # noqa: E402

import_external_libs("lco.integrations.verl")  # as `actor_rollout_ref.model.external_lib` does

BETA = 2.0
ROWS, LONGEST, WIDTH, VOCABULARY = 4, 7, 10, 31
LENGTHS = (7, 1, 4, 2)


class Position:
    """Responses of unequal lengths from a linear head; the policy has moved by `moved` since they were sampled."""

    def __init__(self, moved):
        g = torch.Generator().manual_seed(5)
        self.mask = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
        hidden, weight = torch.randn(ROWS, LONGEST, WIDTH, generator=g), torch.randn(VOCABULARY, WIDTH, generator=g)
        self.old_hidden, self.old_weight = hidden, weight
        self.hidden = (hidden + moved * torch.randn(hidden.shape, generator=g)).requires_grad_()
        self.weight = (weight + moved * torch.randn(weight.shape, generator=g)).requires_grad_()
        self.tokens = torch.randint(VOCABULARY, (ROWS, LONGEST), generator=g)
        self.advantages = torch.tensor([1.0, -0.5, -1.0, 0.5])[:, None].expand(ROWS, LONGEST).contiguous()

    def logprob(self, hidden, weight):
        return (hidden @ weight.T).log_softmax(-1).gather(-1, self.tokens[..., None]).squeeze(-1)

    def verls(self, name, parts=(slice(0, ROWS),), dp_size=1, rest=float("nan")):
        """Loss and gradients; padded positions hold `rest`. `parts` are micro-batches, of which `dp_size` run side by side."""
        total = 0.0
        for rows in parts:
            config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=4)
            config.global_batch_info.update(
                dp_size=dp_size, batch_num_tokens=int(self.mask.sum()), global_batch_size=ROWS, loss_scale_factor=None
            )
            new = torch.where(self.mask, self.logprob(self.hidden, self.weight), rest)[rows]
            old = torch.where(self.mask, self.logprob(self.old_hidden, self.old_weight), rest)[rows]
            loss, metrics = get_policy_loss_fn(name)(
                old_log_prob=old, log_prob=new, advantages=self.advantages[rows], response_mask=self.mask[rows],
                loss_agg_mode="token-mean", config=config, rollout_is_weights=None,
            )  # fmt: skip
            assert all(isinstance(value, float) for value in metrics.values())
            total = total + loss / dp_size  # data-parallel ranks are averaged
        return total, torch.autograd.grad(total, [self.hidden, self.weight])

    def suites(self, method, moved, **hyper):
        objective, mask = METHODS[method].bind({"beta": BETA, **hyper}), self.mask
        old = FixedHead(self.old_hidden[mask], LinearHead(self.old_weight)) if moved else None
        scale = torch.full((int(mask.sum()),), 1 / int(mask.sum()))
        request = HeadRequest(
            self.tokens[mask], objective.statistics, {"advantage": self.advantages[mask]}, scale, old, objective.target
        )
        loss, _ = token_loss(self.hidden[mask], LinearHead(self.weight), objective.loss, request)
        return loss, torch.autograd.grad(loss, [self.hidden, self.weight])


def assert_same(one, other):
    assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-5, abs=1e-7)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_on_policy_the_registered_kld_is_the_suites():
    position = Position(0.0)
    assert_same(position.verls("lco_kld"), position.suites("lco_kld", moved=False))


def test_off_policy_the_registered_kld_lacks_its_anchor_and_token_logprob_is_exact():
    position = Position(0.3)
    assert_same(
        position.verls("lco_token_logprob"), position.suites("lco_mse", moved=True, target_space="token_logprob")
    )
    ours, whole = position.verls("lco_kld"), position.suites("lco_kld", moved=True)
    assert float((ours[1][0] - whole[1][0]).norm() / whole[1][0].norm()) > 0.1


def test_micro_batches_and_ranks_add_up_to_the_whole():
    position = Position(0.3)
    whole = position.verls("lco_token_logprob")
    assert_same(position.verls("lco_token_logprob", (slice(0, 1), slice(1, 4))), whole)
    halves = (slice(0, 2), slice(2, 4))
    assert_same(position.verls("lco_token_logprob", halves, dp_size=2), whole)


def test_other_knobs_stand_beside_the_defaults_under_names_of_their_own():
    from lco.errors import UserError
    from lco.integrations.verl import register_losses

    register_losses("_small", beta=0.1)
    position = Position(0.0)
    small, usual = position.verls("lco_kld_small")[1][0], position.verls("lco_kld")[1][0]
    assert float(small.norm()) > 2 * float(usual.norm())
    with pytest.raises(UserError, match="above 0"):
        register_losses("_none", beta=0.0)
