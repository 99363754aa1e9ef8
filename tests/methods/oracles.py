"""Losses and gradients of methods in float64, token by token over the whole vocabulary, without the suite's helpers.

Tests hold the methods to them, and tests/benchmarks/deviations.py says how far apart they are. The rollout is the one of
`lco.methods.invariants`: six rows in two groups, rewards 1, 0, 1 and 0, 1, 0, an identity head, one row without a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lco.methods import METHODS
from lco.methods.divergence import TOP, TV
from lco.methods.invariants import Setting

MEANS = {0: 2 / 3, 1: 1 / 3}
"""Of the two groups' rewards."""
SPREAD = math.sqrt(1 / 3)
"""Their standard deviation, alike."""


@dataclass(frozen=True)
class Exact:
    """
    Attributes:
        loss: of the whole minibatch.
        gradient: [B, T, V] with respect to the new logits.
        stopped: tokens without a gradient for a mask's, a clip's or a gate's sake.
    """

    loss: float
    gradient: Tensor
    stopped: int = 0


@dataclass(frozen=True)
class Token:
    """One sampled token a of the rollout with the distributions μ (old) and π (new) at it, [V] each."""

    row: int
    t: int
    a: int
    mu: Tensor
    pi: Tensor

    @property
    def ratio(self) -> float:
        return float(self.pi[self.a] / self.mu[self.a])

    @property
    def logprob(self) -> float:
        return math.log(float(self.pi[self.a]))

    @property
    def score(self) -> Tensor:
        """e_a − π, the gradient of log π(a)."""
        return torch.nn.functional.one_hot(torch.tensor(self.a), len(self.pi)) - self.pi


def tokens_of(at: Setting) -> Iterator[Token]:
    assert at.z_old is not None
    for row, t in at.signal.mask.nonzero().tolist():
        yield Token(row, t, int(at.tokens[row, t]), at.z_old[row, t].softmax(0), at.z_new[row, t].softmax(0))


def rows_of(at: Setting) -> int:
    """Rows that have a token."""
    return int(at.signal.mask.any(1).sum())


def centred(at: Setting, row: int) -> float:
    """R minus its group's mean."""
    return float(at.signal.rewards[row]) - MEANS[int(at.signal.groups[row])]


def divergence_of_cells(mu: Tensor, pi: Tensor, token: int, kind: str, k: int) -> float:
    """DPPO's and CPPO's divergences, with the cells written out as a partition of the vocabulary."""
    alone = {"binary": [int(token)], "top": sorted({*mu.topk(min(k, len(mu))).indices.tolist(), int(token)})}
    cells = [[v] for v in alone[kind.split("_")[0]]]
    cells.append([v for v in range(len(mu)) if [v] not in cells])
    p, q = (torch.stack([x[c].sum() if c else x.new_zeros(()) for c in cells]) for x in (mu, pi))
    if kind in TV:
        return float((p - q).abs().sum() / 2)
    return sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0)


def dppo(at: Setting, kind: str, k: int, delta: float, cap: float) -> Exact:
    """−min(r, c) M A log π(a), M = 0 for moves away from μ that are farther than δ."""
    loss, gradient, stopped = 0.0, torch.zeros_like(at.z_new), 0
    for token in tokens_of(at):
        advantage, r = centred(at, token.row), token.ratio
        far = divergence_of_cells(token.mu, token.pi, token.a, kind, k) > delta
        masked = far and ((advantage > 0 and r > 1) or (advantage < 0 and r < 1))
        stopped += masked
        weight = min(r, cap) * advantage * (not masked) / rows_of(at) / at.signal.length_limit
        loss -= weight * token.logprob
        gradient[token.row, token.t] = -weight * token.score
    return Exact(loss, gradient, stopped)


def cppo(
    at: Setting, kind: str, gate: str, budget: str, k: int, delta: float, least: float, least_weight: float
) -> Exact:
    """−g r A, token by token in order, as the paper's Algorithm 1 goes along a row."""
    loss, gradient, stopped = 0.0, torch.zeros_like(at.z_new), 0
    for row, length in enumerate(at.signal.mask.sum(1).tolist()):
        tokens = [token for token in tokens_of(at) if token.row == row]
        moved = [divergence_of_cells(token.mu, token.pi, token.a, kind, k) for token in tokens]
        allowance = least
        if budget == "p90" and length:
            allowance = min(max(float(torch.tensor(moved).double().quantile(0.9)), least), 2 * least)
        advantage = centred(at, row) / (SPREAD + 1e-6)
        used = weight_before = 0.0
        for t, token in enumerate(tokens):
            w = 1.0 if length == 1 else 1 - (1 - least_weight) * t / (length - 1)
            threshold, factor = delta + allowance * weight_before, 1.0
            if advantage * (token.ratio - 1) > 0 and (w * moved[t] > delta or used + w * moved[t] > threshold):
                factor = 0.0
                if gate == "soft":
                    factor = min(1.0, 1 / max(w * moved[t] / delta, (used + w * moved[t]) / threshold))
                stopped += 1
            used, weight_before = used + w * moved[t], weight_before + w
            weight = factor * token.ratio * advantage / rows_of(at) / at.signal.length_limit
            loss -= weight
            gradient[row, t] = -weight * token.score
    return Exact(loss, gradient, stopped)


def minpro(at: Setting, low: float, high: float) -> Exact:
    """−clip(ρ̲ r, 1 − low, 1 + high) A log π(a), ρ̲ the smallest ratio before the token; mean over tokens."""
    loss, gradient, stopped = 0.0, torch.zeros_like(at.z_new), 0
    before: dict[int, list[float]] = {}
    for token in tokens_of(at):
        ratios = before.setdefault(token.row, [])
        product = (min(ratios) if ratios else 1.0) * token.ratio
        ratios.append(token.ratio)
        bounded = min(max(product, 1 - low), 1 + high)
        stopped += bounded != product
        weight = bounded * centred(at, token.row) / (SPREAD + 1e-6) / int(at.signal.mask.sum())
        loss -= weight * token.logprob
        gradient[token.row, token.t] = -weight * token.score
    return Exact(loss, gradient, stopped)


def bapo_loop(r: Tensor, advantages: Tensor, mu: Tensor, hyper: Any) -> tuple[float, float, float, float, int]:
    """BAPO's Algorithm 1 as it is printed, and the released code's loop: the share counted anew at every step."""
    low, high, steps, found = hyper["low_start"], hyper["high_start"], 0, []

    def share() -> float:
        positive = negative = 0.0
        for x, a, w in zip(r.tolist(), advantages.tolist(), mu.tolist(), strict=True):
            w = w if hyper["mu_weight"] else 1.0
            counted = hyper["share_measure"] == "value"
            if a > 0 and (counted or x <= high):
                positive += w * min(x, high) * a
            if a < 0 and (counted or x >= low):
                negative -= w * max(x, low) * a
        whole = {"sum_abs": positive + negative, "abs_sum": abs(positive - negative), "pos_neg": negative}
        whole = whole[hyper["share_norm"]]
        empty = 0.0 if any(a < 0 for a in advantages.tolist()) else 1.0
        return positive / whole if whole > 0 else math.inf if positive > 0 else empty

    found.append(share())
    if hyper["search"] == "high_first":
        while share() < hyper["target"] - 1e-9 and low + hyper["low_step"] <= hyper["low_end"] + 1e-9:
            if high + hyper["high_step"] <= hyper["high_end"] + 1e-9:
                high += hyper["high_step"]
            else:
                low += hyper["low_step"]
            steps += 1
    else:
        while share() < hyper["target"] - 1e-9 and low < hyper["low_end"] - 1e-9:
            low, steps = min(low + hyper["low_step"], hyper["low_end"]), steps + 1
        while share() < hyper["target"] - 1e-9 and high < hyper["high_end"] - 1e-9:
            high, steps = min(high + hyper["high_step"], hyper["high_end"]), steps + 1
    return low, high, found[0], share(), steps


def bapo(at: Setting, **hyper: Any) -> Exact:
    """−min(r A, clip(r, c_low, c_high) A) with the bounds of the loop; mean over tokens."""
    tokens = list(tokens_of(at))
    r = torch.tensor([token.ratio for token in tokens], dtype=torch.float64)
    mu = torch.tensor([float(token.mu[token.a]) for token in tokens], dtype=torch.float64)
    a = torch.tensor([centred(at, token.row) / (SPREAD + 1e-6) for token in tokens], dtype=torch.float64)
    low, high, *_ = bapo_loop(r, a, mu, METHODS["bapo"].read_values(hyper)[0])
    loss, gradient, stopped = 0.0, torch.zeros_like(at.z_new), 0
    for token, ratio, advantage in zip(tokens, r.tolist(), a.tolist(), strict=True):
        loss -= min(ratio * advantage, min(max(ratio, low), high) * advantage) / len(tokens)
        clipped = (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low)
        stopped += clipped
        gradient[token.row, token.t] = -(not clipped) * ratio * advantage / len(tokens) * token.score
    return Exact(loss, gradient, stopped)


def capo(at: Setting, delta_fisher: float, delta_hessian: float, lr: float = 0.002) -> Exact:
    """GRPO on the tokens that stay, where a plain descent step of each token's own gradient on the head is small and flat.

    The head is the identity, so that the hidden state is z itself and the step moves it by δ = lr A ‖z‖² (e_a − π).
    """
    loss, gradient, stays = 0.0, torch.zeros_like(at.z_new), list[tuple[Token, float]]()
    for token in tokens_of(at):
        advantage = centred(at, token.row) / (SPREAD + 1e-4)
        delta = lr * advantage * at.z_new[token.row, token.t].square().sum() * token.score
        mean = token.pi @ delta
        slope, spread = float(delta[token.a] - mean), float(token.pi @ (delta - mean) ** 2)
        curved = advantage * (slope + (slope**2 - spread) / 2)
        if slope**2 / 2 < delta_fisher and abs(curved) < delta_hessian:
            stays.append((token, advantage))
    counts = {row: sum(token.row == row for token, _ in stays) for row in {token.row for token, _ in stays}}
    for token, advantage in stays:
        share, r = 1 / counts[token.row] / len(counts), token.ratio
        loss -= min(r * advantage, min(max(r, 0.8), 1.2) * advantage) * share
        clipped = (advantage > 0 and r > 1.2) or (advantage < 0 and r < 0.8)
        gradient[token.row, token.t] = -(not clipped) * r * advantage * share * token.score
    return Exact(loss, gradient, int(at.signal.mask.sum()) - len(stays))


def oblr_po(at: Setting) -> Exact:
    """−A log π(y), mean over rows, with the others' rewards weighed by the norms that the rollout names as the baseline."""
    signal = at.signal
    assert signal.row_norms is not None
    loss, gradient = 0.0, torch.zeros_like(at.z_new)
    for token in tokens_of(at):
        others = [j for j in range(6) if signal.groups[j] == signal.groups[token.row] and j != token.row]
        weights = [float(signal.row_norms[j]) for j in others]
        baseline = sum(n * float(signal.rewards[j]) for n, j in zip(weights, others, strict=True)) / sum(weights)
        weight = (float(signal.rewards[token.row]) - baseline) / rows_of(at)
        loss -= weight * token.logprob
        gradient[token.row, token.t] = -weight * token.score
    return Exact(loss, gradient)


def dpo(at: Setting, beta: float) -> Exact:
    """−log σ(β (gain of row 2i − gain of row 2i + 1)); an empty row leaves the count of rows, two of which are a pair."""
    gains, gradient, loss = [0.0] * 6, torch.zeros_like(at.z_new), 0.0
    assert at.signal.ref_logprob is not None
    for token in tokens_of(at):
        gains[token.row] += token.logprob - float(at.signal.ref_logprob[token.row, token.t])
    margins = [beta * (gains[i] - gains[i + 1]) for i in (0, 2, 4)]
    for margin in margins:
        loss += math.log1p(math.exp(-margin)) * 2 / rows_of(at)
    for token in tokens_of(at):
        sign = 1 if token.row % 2 == 0 else -1
        weight = sign * beta / (1 + math.exp(margins[token.row // 2])) * 2 / rows_of(at)
        gradient[token.row, token.t] = -weight * token.score
    return Exact(loss, gradient)


def losses_by_definition(name: str, space: str | None, z: Tensor, z_old: Tensor, tokens: Tensor, c: Tensor) -> Tensor:
    """LCO's losses [N] of positions [N, V] from the whole vocabulary, for a tilt [N] that is already bounded."""
    tilt = c[:, None] * torch.nn.functional.one_hot(tokens, z.shape[1])
    residual, old = z - z_old - tilt, z_old.softmax(1)
    centre = residual - residual.mean(1, keepdim=True)
    log_target, new = (z_old + tilt).log_softmax(1), z.log_softmax(1)

    def sampled(x: Tensor) -> Tensor:
        return x.gather(1, tokens[:, None]).squeeze(1)

    match name, space:
        case "lco_kld", _:
            return (log_target.exp() * (log_target - new)).sum(1)
        case "lco_mse", "centred":
            return centre.square().sum(1) / 2
        case "lco_mse", "weighted":
            return (old * (residual - (old * residual).sum(1, keepdim=True)).square()).sum(1) / 2
        case "lco_mse", "raw":
            return sampled(residual).square() / 2
        case "lco_mse", "logprob":
            return (new - log_target).square().sum(1) / 2
        case "lco_mse", "token_logprob":
            return sampled(new - log_target).square() / 2
        case "lco_lch", "centred":
            return centre.cosh().log().sum(1)
        case _:
            return sampled(residual).cosh().log()


def lco(at: Setting, name: str, space: str | None = None, beta: float = 2.0) -> Exact:
    """Mean over tokens, with A the reward minus the group's mean."""
    mask, new = at.signal.mask, at.z_new.clone().requires_grad_()
    assert at.z_old is not None
    c = torch.tensor([centred(at, token.row) / beta for token in tokens_of(at)], dtype=torch.float64)
    loss = losses_by_definition(name, space, new[mask], at.z_old[mask], at.tokens[mask], c).mean()
    return Exact(float(loss.detach()), torch.autograd.grad(loss, new)[0])


@dataclass(frozen=True)
class Case:
    """A method at some knobs, and what it has to give."""

    label: str
    method: str
    hyper: dict[str, Any]
    exact: Callable[[Setting], Exact]


def cases() -> list[Case]:
    """Every oracle at knobs at which it stops some tokens and not all, where it stops any."""
    found = []
    for kind in ("binary_tv", "binary_kl", "top_tv", "top_kl"):
        suffix, top = "" if kind in TV else "_kl", {"top": 2} if kind in TOP else {}
        hyper = {"divergence": kind, "cap": 1.05, f"delta{suffix}": 0.01, **top}
        found.append(Case(f"DPPO {kind}", "dppo", hyper, lambda at, kind=kind: dppo(at, kind, 2, 0.01, 1.05)))
        for gate, budget in (("hard", "fixed"), ("soft", "p90")):
            hyper = {"divergence": kind, f"delta{suffix}": 0.03, f"allowance{suffix}": 0.004, "least_weight": 0.7}
            found.append(
                Case(
                    f"CPPO {kind}, {gate} gate, {budget} budget",
                    "cppo",
                    {**hyper, "gate": gate, "budget": budget, **top},
                    lambda at, kind=kind, gate=gate, budget=budget: cppo(at, kind, gate, budget, 2, 0.03, 0.004, 0.7),
                )
            )
    tight = {"clip_low": 0.2, "clip_high": 0.28}
    masks = {"delta_fisher": 1e-4, "delta_hessian": 0.02, "top": 0}
    spaces = [("lco_kld", "LCO-KLD", None), *(("lco_mse", "LCO-MSE", s) for s in MSE), *LCH]
    return [
        *found,
        Case("MinPRO", "minpro", tight, lambda at: minpro(at, 0.2, 0.28)),
        Case("BAPO", "bapo", {}, bapo),
        Case("BAPO, value share of 0.6", "bapo", VALUE, lambda at: bapo(at, **VALUE)),
        Case("CAPO, plain descent", "capo", {"optimizer": "sgd", **masks}, lambda at: capo(at, 1e-4, 0.02)),
        Case("OBLR-PO", "oblr_po", {}, oblr_po),
        Case("DPO", "dpo", {}, lambda at: dpo(at, 0.1)),
        Case("SAGE, all pairs", "sage", {}, lambda at: dpo(at, 0.1)),
        *(
            Case(
                f"{title} {space or ''}".strip(),
                name,
                {} if space is None else {"target_space": space},
                lambda at, name=name, space=space: lco(at, name, space),
            )
            for name, title, space in spaces
        ),
    ]


MSE = ("centred", "weighted", "raw", "logprob", "token_logprob")
LCH = (("lco_lch", "LCO-LCH", "centred"), ("lco_lch", "LCO-LCH", "raw"))
VALUE = {"target": 0.6, "share_measure": "value"}
