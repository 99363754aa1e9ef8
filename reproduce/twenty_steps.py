"""LCO-KLD and GRPO on a real model with equal budgets: 24 optimizer steps each, four on every rollout.

    python reproduce/twenty_steps.py smollm2 --model DIR
    python reproduce/twenty_steps.py qwen2.5 --model DIR --data-dir FOLDER      (GSM8K; wants a GPU)

The same model, prompts, samples, token limit, learning rate, seeds and number of updates for both; vLLM samples, weights are
synchronised after every rollout; lm-eval scores the first 32 test problems before and after. One record a method lands in
results/twenty_steps/, with the learning curves drawn from them. Two dozen steps of one seed show that the road works where
π_old is not π, and how the two methods' gradients, entropies and divergences behave there; they rank nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from lco.evidence import records  # noqa: E402
from reproduce.first_steps import COMMON, SETTINGS, evaluate, trained  # noqa: E402

COMPARED = ("lco_kld", "grpo")
CHANGED: dict[str, Any] = {"steps": 6, "minibatches": 4, "engine": "torch", "diagnose_every": 2, "warmup_updates": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SETTINGS)
    parser.add_argument("--model", required=True, help="folder or hub id of the pretrained model")
    parser.add_argument("--data-dir", default="", help="folder of JSON Lines in place of hub ids")
    parser.add_argument("--methods", nargs="+", default=list(COMPARED), metavar="METHOD")
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path("runs/twenty_steps"))
    parser.add_argument("--records", type=Path, default=HERE.parent / "results" / "twenty_steps")
    options = parser.parse_args()
    values, task = SETTINGS[options.kind]
    common = dataclasses.replace(
        COMMON, **{**values, **CHANGED}, model=options.model, data_dir=options.data_dir, device=options.device
    )
    before = evaluate(
        options.model, task, common.max_new_tokens, options.data_dir, options.out / f"{options.kind}-before"
    )
    for method in options.methods:
        run = dataclasses.replace(common, method=method, out=str(options.out / f"{options.kind}-{method}"))
        record, after = trained(run, task, options.data_dir, before)
        records.write(options.records / options.kind / f"{method}.json", record)
        print(
            f"{options.kind}, {method}: {before['scores']['pass@1']:.1%} → {after['scores']['pass@1']:.1%} "
            "greedy on 32 problems"
        )
    draw(options.records / options.kind)


def draw(folder: Path) -> None:
    """The learning curves of what is in the folder."""
    from lco.evidence.plots import learning_curves
    from lco.methods import METHODS

    found = records.read_all(folder)
    learning_curves(found, {name: m.title for name, m in METHODS.items()}, folder / "curves")


if __name__ == "__main__":
    main()
