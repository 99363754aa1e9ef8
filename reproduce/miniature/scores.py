"""The records of the miniature: of a finished run, and of a start model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lco import models
from lco.disk import write_json
from lco.evaluation.language_model import SamplerLM
from lco.evaluation.run import evaluate
from lco.evidence import records
from lco.models.end_tokens import end_token_ids
from lco.provenance import collect
from lco.rollout.transformers import TransformersSampler

TEST, VALIDATION = "lco_miniature", "lco_miniature_validation"
SAMPLES = 8
COOLED = (0.2, 0.4, 0.6, 0.8)
"""Temperatures from which the start model's best one is chosen on validation problems."""
EVALUATION_SEED = 0


def score_model(model: Path, task: str, temperature: float) -> dict[str, Any]:
    """lm-eval's scores of a model folder at one temperature."""
    tokenizer = models.load_tokenizer(str(model))
    sampler = TransformersSampler(models.load_model(str(model), "float32", "cpu"), rows_at_once=1024)
    lm = SamplerLM(sampler, tokenizer, end_token_ids(tokenizer, str(model)), EVALUATION_SEED, temperature)
    return evaluate(lm, [task], samples=SAMPLES if temperature else 1)[task]


def record_start(model: Path) -> dict[str, Any]:
    """The record of a start model's scores: T = 1, greedy, and the temperature that is best on validation problems."""
    on_validation = {t: score_model(model, VALIDATION, t)["scores"]["pass@1"] for t in COOLED}
    best = max(on_validation, key=lambda t: on_validation[t])
    found = [score_model(model, TEST, t) for t in (1.0, 0.0, best)]
    network = models.load_model(str(model), "float32", "cpu")
    facts = {
        "model": {"class": type(network).__name__, "name": model.name, "sha256": models.weights_sha256(network)},
        "provenance": collect(),
    }
    cooled = {"cooled_on_validation": {str(t): score for t, score in on_validation.items()}}
    return records.distil_start([{**evaluation, **facts} for evaluation in found], experiment=cooled)


def record_run(run: Path) -> dict[str, Any]:
    """The record of a finished run, whose last checkpoint lm-eval scores on the test problems."""
    found = [score_model(run / "checkpoints" / "final", TEST, temperature) for temperature in (1.0, 0.0)]
    for evaluation in found:
        temperature = evaluation["sampling"]["temperature"]
        write_json(run / "evals" / f"{TEST}-T{temperature:g}.json", evaluation)
    return records.distil(run, found)
