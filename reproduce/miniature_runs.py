"""One run of the miniature, from training to its record; and the record of the start model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from lco import models
from lco.disk import write_json
from lco.evaluation.language_model import SamplerLM
from lco.evaluation.run import evaluate
from lco.evidence import records
from lco.problems.prompts import end_token_ids
from lco.problems.sets import content_sha256, load_problems
from lco.provenance import collect
from lco.rollout.transformers import TransformersSampler
from lco.training.resolve import resolve
from lco.training.run import train
from reproduce import setting

TEST, VALIDATION = "lco_miniature", "lco_miniature_validation"
SAMPLES = 8
COOLED = (0.2, 0.4, 0.6, 0.8)
"""Temperatures from which the start model's best one is chosen on validation problems."""
EVALUATION_SEED = 0


@contextmanager
def asked(model: Path, temperature: float) -> Iterator[SamplerLM]:
    """A model folder as lm-eval's language model at one temperature."""
    tokenizer = models.load_tokenizer(str(model))
    sampler = TransformersSampler(models.load_model(str(model), "float32", "cpu"), rows_at_once=1024)
    yield SamplerLM(sampler, tokenizer, end_token_ids(tokenizer, str(model)), EVALUATION_SEED, temperature)


def scored(model: Path, task: str, temperature: float) -> dict[str, Any]:
    with asked(model, temperature) as lm:
        return evaluate(lm, [task], samples=SAMPLES if temperature else 1)[task]


def start_record(family: str, folder: Path) -> None:
    """The start model's scores: T = 1, greedy, and the temperature that is best on validation problems."""
    path = folder / family / "start.json"
    if path.exists():
        return
    model = setting.START / family
    on_validation = {t: scored(model, VALIDATION, t)["scores"]["pass@1"] for t in COOLED}
    best = max(on_validation, key=lambda t: on_validation[t])
    found = [scored(model, TEST, t) for t in (1.0, 0.0, best)]
    network = models.load_model(str(model), "float32", "cpu")
    record = {
        "schema": records.SCHEMA,
        "experiment": {"cooled_on_validation": {str(t): score for t, score in on_validation.items()}},
        "method": "start",
        "seed": None,
        "model": {"class": type(network).__name__, "name": family, "sha256": models.weights_sha256(network)},
        "budget": {"rollouts": 0, "rows": 0, "updates": 0, "response_tokens": 0},
        "curves": {},
        "evaluations": [records.distil_evaluation(e) for e in found],
        "seconds": {},
        "provenance": collect(),
        "problems_sha256": content_sha256(load_problems("arithmetic", "test")),
        "source_sha256": {},
    }
    records.write(path, records.rounded(record))


def train_and_score(
    family: str,
    method: str,
    knobs: dict[str, Any],
    seed: int,
    out: Path,
    folder: Path,
    progress: Queue[Any],
    evaluation_units: int,
) -> None:
    """Trains one method, has lm-eval score its last checkpoint on the test problems, writes the record."""
    path, run = folder / family / method / f"seed-{seed}.json", out / family / method / f"seed-{seed}"
    name = f"{family} {method} seed {seed}"
    if path.exists():
        progress.put(("units", setting.COMMON["steps"] + evaluation_units, name))
        return
    experiment = setting.experiment(family, method, seed, knobs, run)
    final = run / "checkpoints" / "final"
    if final.exists():
        progress.put(("units", setting.COMMON["steps"], name))
    else:
        done = finished_rollouts(run)
        progress.put(("units", done, name))
        train(resolve(experiment), resume=done > 0 or (run / "config.json").exists(), on_step=lambda m: progress.put(
            ("units", 1, f"{name}: {m['accuracy']:.0%} right")))  # fmt: skip
        if not final.exists():
            raise KeyboardInterrupt
    found = [scored(final, TEST, temperature) for temperature in (1.0, 0.0)]
    for evaluation in found:
        temperature = evaluation["sampling"]["temperature"]
        (run / "evals").mkdir(exist_ok=True)
        write_json(run / "evals" / f"{TEST}-T{temperature:g}.json", evaluation)
    records.write(path, records.distil(run, found))
    progress.put(("units", evaluation_units, name))


def finished_rollouts(run: Path) -> int:
    """Rollouts that a resumed run will not repeat: those of its newest checkpoint."""
    steps = [int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*")]
    if not steps or not (run / "metrics.jsonl").exists():
        return 0
    return max(steps)
