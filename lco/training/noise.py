"""How noisy a gradient is, from the norms of its micro-batches' parts; the square of a norm is meant wherever a size is.

An update's gradient is a sum Σ_k g_k over K micro-batches, all ranks together. For g_k of equal expectation

    signal = max(0, K (‖Σ g_k‖² − Σ ‖g_k‖²) / (K − 1))        noise = (K Σ ‖g_k‖² − ‖Σ g_k‖²) / (K − 1)

estimate the square of the expected gradient and the variance of the sum without bias (but for the bound at 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lco.training.engine import exact_norm


class GradientMeter:
    """Reads the size of the gradient of one backward pass, by hooks that see each parameter's before it is added to those of
    other micro-batches: no gradient is kept for it.

    A parameter's norm is taken once per backward pass, which costs one reading of its gradient.
    """

    def __init__(self, policy: nn.Module) -> None:
        self._squares: list[Tensor] = []
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._measure)

    def _measure(self, gradient: Tensor) -> None:
        self._squares.append(exact_norm(gradient).double().square())

    def take(self) -> float:
        """‖g‖² since it was last asked."""
        found = sum(float(square) for square in self._squares)
        self._squares.clear()
        return found


def estimate_noise(squares: Sequence[float], whole: float) -> tuple[float, float]:
    """(signal, noise) from ‖g_k‖² of at least two micro-batches and ‖Σ g_k‖²."""
    count, total = len(squares), sum(squares)
    return max(0.0, count * (whole - total) / (count - 1)), max(0.0, (count * total - whole) / (count - 1))


@dataclass
class GradientNoise:
    """Moving averages of signal and noise over the updates of a run; None before the first estimate."""

    signal: float | None = None
    noise: float | None = None

    def add(self, signal: float, noise: float, decay: float) -> None:
        """The first estimate is the average's beginning."""
        if self.signal is None or self.noise is None:
            self.signal, self.noise = signal, noise
            return
        self.signal = decay * self.signal + (1 - decay) * signal
        self.noise = decay * self.noise + (1 - decay) * noise

    def describe(self) -> dict[str, float]:
        """What is logged, and what `restore` goes on from."""
        if self.signal is None or self.noise is None:
            return {}
        ratio = self.signal / self.noise if self.noise else float("inf")
        return {"gradient_signal": self.signal, "gradient_noise": self.noise, "gradient_snr": ratio}

    def restore(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """From the metrics of the rollouts that a resumed run keeps, oldest first."""
        for line in lines:
            if "gradient_signal" in line:
                self.signal, self.noise = line["gradient_signal"], line["gradient_noise"]
