"""Where do the miniature's two start models come from? Generated text in, two small model folders out.

    python -m reproduce.miniature.pretrain                 both classes, side by side, about three minutes on two cores
    python -m reproduce.miniature.pretrain --out runs/start --seed 1 --steps 1200

Reinforcement learning needs a start that is worth improving: a model that solves some problems by chance and could
solve most. A public model of the Qwen2 or Llama class has seen much text, good and bad; these two see text of mixed
quality made by `lco.problems.arithmetic`. 45 % of the responses write every step down and are nearly always right;
the others jump to an answer that is right only half the time. The models learn to imitate the mixture, so that sampled
responses are right in about one case out of three, while the careful way that is nearly always right is there to be
found.

Training problems alone are used; at the end pass@1 is measured on validation problems, never on the test problems. Each
folder holds what `AutoModelForCausalLM` and `AutoTokenizer` load, and `start.json` with what was trained and measured. The
same machine rebuilds the same weights; the committed ones are in reproduce/miniature/start/, which is where these go.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lco.errors import UserError
from reproduce.common.entry import command_parser, run_command
from reproduce.common.processes import Failure, Message, Progress, Result, Task, Tick, share_out
from reproduce.miniature.budget import CLASSES, START
from reproduce.miniature.recipe import Recipe

MODULE = "reproduce.miniature.pretrain"


def build_starts(out: Path, recipe: Recipe, classes: Sequence[str] = tuple(CLASSES)) -> dict[str, dict[str, Any]]:
    """Every class at once, one process and one thread each (two threads for one model of this size gain nothing).

    Raises:
        UserError: a class failed.
    """
    records: dict[str, dict[str, Any]] = {}
    tasks = [Task(name, Path(os.devnull), (name, out, recipe)) for name in classes]
    with tqdm(desc="pretraining", total=len(classes) * recipe.steps, unit="step") as bar:

        def hear(task: Task, message: Message) -> None:
            match message:
                case Progress(steps, text):
                    bar.update(steps)
                    bar.set_postfix_str(text)
                case Result(record):
                    records[task.name] = record
                case Failure(text):
                    raise UserError(f"the start model {task.name} failed: {text}")

        # Word-level tokenizers gain nothing from threads, and warn of them in a worker.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        share_out(build, tasks, len(classes), hear)
    return {name: records[name] for name in classes}


def build(task: tuple[str, Path, Recipe], tick: Tick) -> dict[str, Any]:
    from reproduce.miniature.start_model import build_start  # torch and transformers, which workers need alone

    return build_start(*task, tick)


def options() -> argparse.Namespace:
    parser = command_parser(MODULE, __doc__)
    parser.add_argument(
        "--out", type=Path, default=START, help="folder of the model folders (default: the committed ones)"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimizer steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="of weights, text and samples (%(default)s)")
    parser.add_argument("--classes", nargs="+", choices=list(CLASSES), default=list(CLASSES), help="which to build")
    parser.add_argument(
        "--validation-problems", type=int, default=Recipe.validation_problems, help="for the measurement (%(default)s)"
    )
    chosen = parser.parse_args()
    if chosen.steps < 1 or chosen.validation_problems < 1:
        parser.error("--steps and --validation-problems must be at least 1")
    return chosen


def run(chosen: argparse.Namespace) -> None:
    recipe = Recipe(steps=chosen.steps, seed=chosen.seed, validation_problems=chosen.validation_problems)
    for name, record in build_starts(chosen.out, recipe, tuple(dict.fromkeys(chosen.classes))).items():
        score = record["validation_pass_at_1"]
        print(
            f"{record['class']}: {record['parameters']:,} parameters, {chosen.steps} steps → {chosen.out / name}\n"
            f"    pass@1 on validation: {score['temperature_1']:.1%} at temperature 1, {score['greedy']:.1%} greedy"
        )


def main() -> None:
    chosen = options()
    run_command(lambda: run(chosen), MODULE, "a start model that was not finished is not written")


if __name__ == "__main__":
    main()
