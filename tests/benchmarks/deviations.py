"""How far each method's loss and gradient are from a float64 brute force over the full vocabulary, beside a table.

    python tests/benchmarks/deviations.py                                        half a minute on one core
    python tests/benchmarks/deviations.py --out results/benchmarks/deviations.json

The oracles are those that the tests hold the methods to (tests/methods/oracles.py): token by token, whole softmaxes, no helper
of the suite; the rollout is `lco.methods.invariants.setting()`, off-policy, with an identity head. Loss: |difference|, relative
to the loss where that is above 1. Gradient: the largest difference of an entry, relative to the largest entry. `float64` and
`float32` are the head's; advantages are float32 in both, as in training, which is what float64 shows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from lco.disk import write_json
from lco.methods import METHODS
from lco.methods.invariants import gradient_of, loss_of, setting
from lco.provenance import collect
from tests.methods.oracles import Case, cases


def measure(case: Case) -> dict[str, Any]:
    at, method = setting(), METHODS[case.method]
    exact = case.exact(at)
    largest = float(exact.gradient.abs().max())
    row: dict[str, Any] = {
        "case": case.label,
        "method": case.method,
        "hyper": case.hyper,
        "tokens_stopped": exact.stopped,
    }
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        loss = float(loss_of(method, case.hyper, at, dtype=dtype))
        gradient = gradient_of(method, case.hyper, at, dtype=dtype)
        row[f"loss_{name}"] = abs(loss - exact.loss) / max(1.0, abs(exact.loss))
        row[f"gradient_{name}"] = float((gradient - exact.gradient).abs().max()) / largest
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="store the record there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case) for case in cases()]
    print("| method | loss, float64 | gradient, float64 | loss, float32 | gradient, float32 |\n|---|---|---|---|---|")
    for row in rows:
        numbers = (row[f"{what}_{kind}"] for kind in ("float64", "float32") for what in ("loss", "gradient"))
        print(f"| {row['case']} | {' | '.join(f'{number:.1e}' for number in numbers)} |")
    if options.out:
        write_json(options.out, {"schema": "lco-benchmark/1", "rows": rows, "provenance": collect()})


if __name__ == "__main__":
    main()
