"""What is seen of a run while it runs: validations, samples one can read, warnings, the progress line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lco import disk
from lco.config import Experiment
from lco.errors import UserError
from lco.randomness import derived_seed
from lco.rollout.agreement import GAP_LIMIT
from lco.training.collect import judge
from lco.training.loop import Prompt, Run
from lco.training.metrics import Judged


def validate(run: Run, prompts: Sequence[Prompt], step: int) -> dict[str, float]:
    """pass@1 at T = 1 (four samples a problem) and greedy, by the training sampler, on validation problems."""
    scores: dict[str, float] = {}
    if run.sampler is not None:
        named = [(p.problem.id, p.ids) for p in prompts]
        for name, temperature, samples in (("pass@1", 1.0, 4), ("greedy", 0.0, 1)):
            sampling = dataclasses.replace(run.sampling, temperature=temperature, samples=samples)
            rows = run.sampler.sample(named, sampling, derived_seed(run.experiment.seed, step, "validation"))
            judged = judge(run, rows, [p.problem for p in prompts for _ in range(samples)])
            scores[name] = sum(j.verdict.correct for j in judged) / len(judged)
            if name == "pass@1":
                scores["response_length"] = sum(len(j.row.response_ids) for j in judged) / len(judged)
    return next(found for found in run.engine.gather(scores) if found)


def write_samples(run: Run, folder: Path, step: int, judged: Sequence[Judged], count: int = 4) -> None:
    for j in judged[:: max(1, len(judged) // count)][:count]:
        line = {
            "step": step,
            "problem": j.problem.id,
            "question": j.problem.problem,
            "response": run.decode(j.row.response_ids),
            "answer": j.problem.answer,
            "correct": j.verdict.correct,
            "reason": j.verdict.reason,
            "finish": j.row.finish_reason,
            "tokens": len(j.row.response_ids),
        }
        disk.append_line(folder / "samples.jsonl", line)


def watch(metrics: dict[str, Any], step: int, experiment: Experiment) -> None:
    """Says early what would make a flat curve, and stops where sampler and trainer are not the same policy.

    Raises:
        UserError: the sampler's log-probabilities are far from the trainer's: the synchronisation is broken.
    """
    gap, limit = metrics.get("sampler_gap_mean"), GAP_LIMIT[experiment.dtype]
    if gap is not None and gap > limit:
        raise UserError(
            f"rollout {step}: sampler and trainer differ by {gap:.3g} per token (limit {limit}): "
            "the sampler has other weights or another temperature"
        )
    if step > 3:
        return
    if metrics.get("rewards_not_finite"):
        say(f"rollout {step}: {metrics['rewards_not_finite']} rows got no reward and are left out")
    if metrics.get("truncated", 0) > 0.9:
        say(f"rollout {step}: {metrics['truncated']:.0%} of the responses are cut at max_new_tokens; raise it")
    if metrics.get("no_answer", 0) > 0.95:
        say(f"rollout {step}: the verifier finds an answer in almost no response; check --prompt and --extraction")
    if metrics.get("degenerate_all_right", 0) + metrics.get("degenerate_all_wrong", 0) >= 1:
        say(f"rollout {step}: every group is all right or all wrong: group-relative methods have nothing to learn from")


def progress(metrics: dict[str, Any]) -> str:
    rate = metrics["tokens"] / max(1e-9, metrics["seconds"]["total"])
    return f"right {metrics['accuracy']:.0%}, entropy {metrics.get('entropy', float('nan')):.2f}, {rate:.0f} tokens/s"


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
