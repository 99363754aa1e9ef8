"""What an update reports of its gradient by sign of advantage, against autograd on the plain model in float64."""

from types import SimpleNamespace

import pytest
import torch

from lco.config import Experiment
from lco.heads import FixedHead
from lco.methods import METHODS
from lco.methods.objective import Signal
from lco.policy import PolicyModel, Snapshot
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine
from lco.training.learner import Learner
from lco.training.metrics import summarise
from lco.training.state import Policies, UpdateInputs
from tests.conftest import tiny_model

ROWS = [
    Row("a", (3, 4), (5, 6, 7), "stop", ()),
    Row("a", (3, 4), (9, 11), "stop", ()),
    Row("b", (8,), (12, 13, 14, 15), "stop", ()),
    Row("b", (8,), (16,), "stop", ()),
]
ADVANTAGES = (0.7, -0.4, -1.0, 0.9)
BETA = 0.5


class Update:
    """A minibatch of four rows, off-policy, with every method's loss written out on whole logits."""

    def __init__(self, name, advantages=ADVANTAGES, micro_batch=2):
        self.model = tiny_model("llama").double()
        policy = PolicyModel(self.model)
        experiment = Experiment(model="tiny", micro_batch=micro_batch, diagnose_every=2, lr=1e-3)
        self.objective = METHODS[name].bind({"beta": BETA} if "beta" in METHODS[name].hyperparameters else {})
        self.batch, self.rows = collate(ROWS), range(len(ROWS))
        snapshot = policy(self.batch, Snapshot())
        self.old = [self.logits(row).detach() for row in self.rows]
        g = torch.Generator().manual_seed(1)
        with torch.no_grad():  # the policy has moved on since the rollout
            for p in self.model.parameters():
                p += 0.05 * torch.randn(p.shape, generator=g, dtype=p.dtype)
        self.advantages = torch.tensor(advantages).double()
        inputs = {"advantage": self.advantages[:, None] * self.batch.response_mask}
        if self.objective.target is None:
            inputs["old_logprob"] = torch.zeros_like(inputs["advantage"])
        snapshots = {row: FixedHead(snapshot.hidden[row], snapshot.head) for row in self.rows}
        old = snapshots if self.objective.old.whole else {}
        self.inputs = UpdateInputs(self.batch, inputs, old, {})
        policies = Policies(TorchEngine(policy, experiment), None, {}, micro_batch)
        self.learner = Learner(experiment, self.objective, policies)

    def logits(self, row, hidden=None):
        """[L, V] logits that predict a row's response, without padding; `hidden` collects the states below the head."""
        ids = torch.tensor([[*ROWS[row].prompt_ids, *ROWS[row].response_ids]])
        states = self.model.model(ids).last_hidden_state[0, len(ROWS[row].prompt_ids) - 1 : -1]
        if hidden is not None:
            hidden.append(states)
        return self.model.lm_head(states)

    def loss(self, rows, hidden=None):
        """Σ over the tokens of `rows`, divided by the tokens of the whole minibatch (REINFORCE: by its rows)."""
        total = 0.0
        for row in rows:
            z, z_old = self.logits(row, hidden), self.old[row]
            tokens = torch.tensor(ROWS[row].response_ids)
            a = self.advantages[row]
            tilt = (a / BETA) * torch.nn.functional.one_hot(tokens, z.shape[1])
            residual = z - z_old - tilt
            residual = residual - residual.mean(1, keepdim=True)
            if self.objective.name == "lco_kld":
                log_target = (z_old + tilt).log_softmax(1)
                total = total + (log_target.exp() * (log_target - z.log_softmax(1))).sum()
            elif self.objective.name == "lco_mse":
                total = total + residual.square().sum() / 2
            elif self.objective.name == "lco_lch":
                total = total + residual.cosh().log().sum()
            else:
                total = total - a * z.log_softmax(1).gather(1, tokens[:, None]).sum()
        return total / (len(ROWS) if self.objective.name == "reinforce" else int(self.batch.response_mask.sum()))

    def of_sign(self, sign, rows):
        return [row for row in rows if sign * float(self.advantages[row]) > 0]

    def gradient(self, rows):
        """[parameters], one vector."""
        parts = torch.autograd.grad(self.loss(rows), list(self.model.parameters()))
        return torch.cat([part.flatten() for part in parts])


METHODS_HERE = ["lco_kld", "lco_mse", "lco_lch", "reinforce"]


@pytest.mark.parametrize("name", METHODS_HERE)
def test_gradient_norms_by_sign_are_those_of_the_rows_of_one_sign(name):
    """Of the first micro-batch with the whole minibatch's divisor; the other sign's rows weigh nothing."""
    update = Update(name)
    first = [0, 2]  # every other row: two micro-batches of two
    found = update.learner.gradient_norms_by_sign(update.inputs, update.rows, step=1)
    positive, negative = (update.gradient(update.of_sign(sign, first)) for sign in (1, -1))
    assert found["gradient_norm_positive"] == pytest.approx(float(positive.norm()), rel=1e-5)
    assert found["gradient_norm_negative"] == pytest.approx(float(negative.norm()), rel=1e-5)
    assert positive.norm() > 0
    assert negative.norm() > 0
    assert all(p.grad is None for p in update.model.parameters())
    assert update.learner.gradient_norms_by_sign(update.inputs, update.rows, step=2) == {}


@pytest.mark.parametrize("name", METHODS_HERE)
def test_the_two_signs_gradients_add_up_to_the_whole(name):
    """The vectors that the two norms are of, taken from the requests themselves, sum to the gradient that is applied."""
    update = Update(name, micro_batch=4)
    engine, seen = update.learner.policies.engine, []
    parameters = list(update.model.parameters())

    def vector(batch, request):
        parts = torch.autograd.grad(engine.forward(batch, request).loss, parameters)
        seen.append(torch.cat([part.flatten() for part in parts]))
        return SimpleNamespace(whole=float(seen[-1].norm()), projections=0.0)

    engine.probe = vector
    found = update.learner.gradient_norms_by_sign(update.inputs, update.rows, step=1)
    positive, negative, whole = seen
    torch.testing.assert_close(positive + negative, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole, update.gradient(update.rows), rtol=1e-5, atol=1e-6)
    assert found["gradient_norm_positive"] == float(positive.norm())
    step = update.learner.update_policy(update.inputs, update.rows).step
    assert step.gradient_norm == pytest.approx(float(whole.norm()), rel=1e-5)


def summary(update, *seen):
    mask = update.batch.response_mask
    signal = Signal(torch.zeros(4), torch.zeros(4, dtype=torch.int64), mask, torch.zeros(4).bool(), 8, ("",) * 4)
    return summarise(seen, update.inputs.constants, signal, update.rows)


@pytest.mark.parametrize("advantages", [ADVANTAGES, (0.7, -0.4, 0.0, 0.9)])
@pytest.mark.parametrize("name", METHODS_HERE)
def test_squares_of_the_hidden_gradients_by_sign_add_up_to_the_whole(name, advantages):
    """‖∂L/∂h‖² over the states below the head; tokens without an advantage, which an anchor may move, are in neither."""
    update = Update(name, advantages)
    hidden, expected = [], {}
    loss = update.loss(update.rows, hidden)
    squares = [float(g.square().sum()) for g in torch.autograd.grad(loss, hidden)]
    for sign in (1, -1, 0):
        expected[sign] = sum(x for x, a in zip(squares, advantages, strict=True) if (a > 0) - (a < 0) == sign)
    found = summary(update, update.learner.update_policy(update.inputs, update.rows))
    positive, negative = found["hidden_gradient_positive"] ** 2, found["hidden_gradient_negative"] ** 2
    assert positive == pytest.approx(expected[1], rel=1e-5)
    assert negative == pytest.approx(expected[-1], rel=1e-5)
    assert positive + negative == pytest.approx(sum(squares) - expected[0], rel=1e-5)
    assert (expected[0] > 0) == (0.0 in advantages and name != "reinforce")


def test_an_update_reports_the_share_of_tokens_whose_tilt_was_clamped():
    """|A/β| is 90, 19.9, 90 and 0 on rows of 3, 2, 4 and 1 tokens: 7 of 10."""
    update = Update("lco_kld", (45.0, -9.95, -45.0, 0.0))
    found = summary(update, update.learner.update_policy(update.inputs, update.rows))
    assert found["tilt_clamped"] == pytest.approx(0.7)
    assert found["updates_skipped"] == 0
    assert 0 < found["target_tv"] <= 1
