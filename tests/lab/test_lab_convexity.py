"""The laboratory's Hessians against the closed forms, and the verdicts that must come out of them."""

import dataclasses

import pytest
import torch

from lco.lab.convexity import AGREES, curvature, forms, hessians, random_positions, surrogate_shape
from lco.lab.position import Positions, logit_gradient, slope, subjects
from lco.methods import METHODS

SUBJECTS = {s.label: s for s in subjects()}
EXPECTED = {  # Hessian of each loss for either sign of A, derived by hand from its equation
    "LCO-KLD full": {"F"}, "LCO-MSE centred": {"P"}, "LCO-MSE weighted": {"diag u − uuᵀ"}, "LCO-MSE raw": {"e eᵀ"},
    "LCO-MSE token_logprob": {"ggᵀ − ρ F"}, "LCO-MSE logprob": {"JᵀJ − Σx F"},
    "LCO-LCH centred": {"P diag sech² P"}, "LCO-LCH raw": {"sech² e eᵀ"},
    "PPO": {"−A r M", "0"}, "GRPO": {"−A r M", "0"}, "REINFORCE": {"A F"}, "RFT": {"A F"}, "SFT": {"F"},
}  # fmt: skip


@pytest.mark.parametrize("label", EXPECTED)
def test_every_hessian_is_its_closed_form(label):
    subject = SUBJECTS[label]
    for sign in subject.signs:
        z, at = random_positions(5, 40, sign, seed=3)
        found, known = hessians(subject, z, at), forms(z, at)
        nearest = torch.stack([(known[name] - found).abs().amax((1, 2)) for name in EXPECTED[label]]).min(0).values
        assert float(nearest.max()) < AGREES


@pytest.mark.parametrize(
    ("label", "sign", "convex"),
    [
        ("SFT", 1, True), ("RFT", 1, True), ("REINFORCE", 1, True), ("REINFORCE", -1, False), ("PPO", 1, False),
        ("PPO", -1, False), ("LCO-KLD full", 1, True), ("LCO-KLD full", -1, True), ("LCO-MSE centred", -1, True),
        ("LCO-LCH centred", -1, True), ("LCO-MSE token_logprob", 1, False), ("LCO-MSE logprob", 1, False),
        ("GSPO", -1, False), ("DAPO", 1, False),
        ("PMD-mean", -1, False), ("CISPO", 1, False),
    ],
)  # fmt: skip
def test_verdicts(label, sign, convex):
    found = curvature(SUBJECTS[label], sign, count=20)
    assert found.convex is convex
    assert "another" not in found.forms
    assert (found.violations > 0) is not convex


def test_regressions_of_the_log_ratio_have_their_closed_form():
    """τ ggᵀ + (A − τx) F with each method's own τ: indefinite, and concave where A < 0 and the pull is weak."""
    for label in ("Kimi OPMD", "Kimi, token level", "PMD-mean"):
        found = curvature(SUBJECTS[label], -1, count=20)
        assert found.forms["τ ggᵀ + (A − τx) F"] > 0.9 * found.cases  # others coincide with it where F is almost 0
        assert "another" not in found.forms
        assert not found.convex


def test_reinforce_on_negatives_is_concave_and_not_merely_not_convex():
    found = curvature(SUBJECTS["REINFORCE"], -1, count=20)
    assert found.shapes == {"concave": found.cases}
    assert found.violations == found.segments


def test_the_sign_rule_of_the_surrogate():
    """M = ggᵀ − F at π(a) = 0.2 has the eigenvalue +0.66, at 0.55 none that is positive."""
    for probability, positive in ((0.2, True), (0.55, False)):
        rest = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64) * (1 - probability)
        probs = torch.cat([torch.tensor([probability], dtype=torch.float64), rest])[None]
        at = Positions(probs.log(), torch.tensor([0]), -torch.ones(1).double(), -torch.ones(1).double())
        top = torch.linalg.eigvalsh(forms(probs.log(), at)["−A r M"])[0, -1]
        assert (float(top) > 1e-9) is positive
    assert curvature(SUBJECTS["PPO"], 1, count=40).sign_rule == 1.0
    assert surrogate_shape(1.0, 0.6) == "convex"
    assert surrogate_shape(-1.0, 0.6) == "concave"


def test_one_position_of_the_golden_values():
    """z_old = (1, 0, −1, 2), z = (1.2, .3, −.8, 1.5), a = 1, β = 2: computed once by an independent script."""
    z_old, z = (torch.tensor([x], dtype=torch.float64) for x in ([1.0, 0, -1, 2], [1.2, 0.3, -0.8, 1.5]))
    for sign, loss, gradient in (
        (1.0, 0.047702, (0.121602, 0.004607, 0.016457, -0.142666)),
        (-1.0, 0.090472, (0.100516, 0.085863, 0.013603, -0.199983)),
    ):
        advantage = torch.tensor([sign], dtype=torch.float64)
        found = slope(SUBJECTS["LCO-KLD full"], z, Positions(z_old, torch.tensor([1]), advantage, advantage / 2))
        assert float(found.loss) == pytest.approx(loss, abs=1e-6)
        assert found.gradient[0].tolist() == pytest.approx(gradient, abs=1e-6)


def test_losses_of_other_scopes_are_called_as_they_ask():
    """A row of length 1 is its token; a pair is −log σ of the difference of two log-ratios of one state."""
    z, at = random_positions(5, 7, 1, seed=0)
    row = dataclasses.replace(METHODS["grpo"], scope="row")
    expected = logit_gradient(METHODS["grpo"].bind(), z, at)
    for got, wanted in zip(logit_gradient(row.bind(), z, at), expected, strict=True):
        torch.testing.assert_close(got, wanted)

    def pair_loss(hyper):
        def loss(s, x):
            margins = (s["logprob"] - s["old_logprob"]).view(-1, 2)
            assert x["advantage"].view(-1, 2).sign().eq(torch.tensor([1.0, -1.0])).all()
            return -torch.nn.functional.logsigmoid(margins[:, 0] - margins[:, 1])

        return loss

    pair = dataclasses.replace(METHODS["grpo"], scope="pair", loss=pair_loss)
    for sign in (1, -1):
        z, at = random_positions(5, 7, sign, seed=0)
        found = logit_gradient(pair.bind(), z, at)
        assert found.loss.shape == (7,)
        toward = -sign * found.gradient.gather(1, at.tokens[:, None])
        assert bool((toward > 0).all())
        torch.testing.assert_close(found.gradient.sum(1), torch.zeros(7, dtype=torch.float64), atol=1e-12, rtol=0)
