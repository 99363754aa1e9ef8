"""What is seen of a run while it runs: validations, samples one can read, warnings, the progress line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco import disk
from lco.config import Experiment
from lco.console import say
from lco.errors import UserError
from lco.randomness import derived_seed
from lco.rollout.agreement import GAP_LIMIT
from lco.rollout.records import DivergedError
from lco.training.collector import Collector
from lco.training.state import Prompt, VerifiedRow


def validate(collector: Collector, prompts: Sequence[Prompt], step: int) -> dict[str, float]:
    """pass@1 at T = 1 (four samples a problem) and greedy, by the training sampler, on validation problems.

    Raises:
        DivergedError: what was sampled has no finite log-probabilities.
    """
    scores: dict[str, float] = {}
    if collector.sampler is not None:
        named = [(p.problem.id, p.ids) for p in prompts]
        seed = derived_seed(collector.experiment.seed, step, "validation")
        for name, temperature, samples in (("pass@1", 1.0, 4), ("greedy", 0.0, 1)):
            sampling = dataclasses.replace(collector.sampling, temperature=temperature, samples=samples, top=0)
            drawn = collector.sampler.sample(named, sampling, seed)
            if not all(math.isfinite(value) for row in drawn for value in row.logprobs):
                raise DivergedError
            rows = collector.verify_rows(drawn, [p.problem for p in prompts for _ in range(samples)], rewarded=False)
            judged = [row.verdict.correct for row in rows if row.verdict.judged]
            scores[name] = sum(judged) / max(1, len(judged))
            if name == "pass@1":
                scores["response_length"] = sum(len(row.row.response_ids) for row in rows) / len(rows)
    return next(found for found in collector.ranks.gather(scores) if found)


def write_samples(folder: Path, step: int, rows: Sequence[VerifiedRow], count: int = 4) -> None:
    """Some of a rollout's rows, evenly chosen, as text."""
    for row in rows[:: max(1, len(rows) // count)][:count]:
        line = {
            "step": step,
            "problem": row.problem.id,
            "question": row.problem.problem,
            "response": row.text,
            "answer": row.problem.answer,
            "correct": row.verdict.correct,
            "reason": row.verdict.reason,
            **({"reward": dict(row.parts)} if row.parts else {}),
            "finish": row.row.finish_reason,
            "tokens": len(row.row.response_ids),
        }
        disk.append_line(folder / "samples.jsonl", line)


@dataclass(frozen=True)
class Barren:
    """Rollouts in a row that taught nothing that could be seen: every optimizer step was skipped, because no gradient was a
    finite number, or the loss was none."""

    count: int = 0

    def after(self, metrics: dict[str, Any]) -> Barren:
        """Says it at the first.

        Raises:
            UserError: there were so many that nothing will come of it.
        """
        updates, skipped = metrics.get("updates", 0), metrics.get("updates_skipped", 0)
        if not updates:
            return self
        if skipped == updates:
            fault = f"the gradient of every one of its {updates} updates was no finite number, so none was applied"
        elif not math.isfinite(metrics.get("loss", 0.0)):
            fault = "its loss is no finite number, though gradients are: a knob is too small or too large for float32"
        else:
            return Barren()
        found = Barren(self.count + 1)
        if found.count == BARREN_LIMIT:
            raise UserError(
                f"rollout {metrics['step']}: {fault}; so it was in the {BARREN_LIMIT - 1} rollouts before: lower --lr, or take "
                "--dtype float32, and look at the method's knobs"
            )
        if found.count == 1:
            say(f"rollout {metrics['step']}: {fault}")
        return found


def refuse_barren(barren: Barren, rollouts: int, done: int, lr: float) -> None:
    """
    Args:
        rollouts: of this part of the run.
        done: of the whole run.

    Raises:
        UserError: a run ends in rollouts in which no update was applied whose loss was a number: its last model, under which they
            were, is no result.
    """
    if rollouts and barren.count == rollouts:
        raise UserError(
            f"none of {rollouts} rollouts had an update that could be applied and a loss that is a number, so there is no "
            "trained model; look at the method's knobs and --lr"
        )
    if barren.count:
        raise UserError(
            f"from rollout {done - barren.count + 1} to the last no update could be applied, or no loss was a number: at lr "
            f"{lr:g} the run has diverged, so there is no trained model; make it again with --start-over and a lower --lr"
        )


BARREN_LIMIT = 4
"""So many rollouts end a run."""


def watch(metrics: dict[str, Any], step: int, experiment: Experiment, compares_groups: bool = True) -> None:
    """Says early what would make a flat curve, and stops where sampler and trainer are not the same policy.

    Raises:
        UserError: the sampler's log-probabilities are far from the trainer's, so the synchronisation is broken; or most rows got
            no verdict.
        DivergedError: log-probabilities are no finite numbers.
    """
    gap, limit = metrics.get("sampler_gap_mean"), GAP_LIMIT[experiment.dtype]
    if gap is not None and not math.isfinite(gap):
        raise DivergedError
    if gap is not None and gap > limit:
        raise UserError(
            f"rollout {step}: sampler and trainer differ by {gap:.3g} per token (limit {limit}): "
            "the sampler has other weights or another temperature"
        )
    lost, drawn = metrics.get("rewards_not_finite", 0), metrics.get("rows", 0)
    if drawn and 2 * lost > drawn:
        raise UserError(
            f"rollout {step}: {lost} of {drawn} rows got no verdict, so the rest no longer stands for the rollout; the machine "
            "may be out of memory (docs/verifier.md), continue with --resume when it is not"
        )
    if step > 3:
        return
    if lost:
        say(f"rollout {step}: {lost} rows got no reward and are left out")
    if metrics.get("truncated", 0) > 0.9:
        say(f"rollout {step}: {metrics['truncated']:.0%} of the responses are cut at max_new_tokens; raise it")
    if metrics.get("no_answer", 0) > 0.95:
        say(f"rollout {step}: the verifier finds an answer in almost no response; check --prompt and --extraction")
    if compares_groups and metrics.get("degenerate_all_right", 0) + metrics.get("degenerate_all_wrong", 0) >= 1:
        say(f"rollout {step}: every group is all right or all wrong: group-relative methods have nothing to learn from")


def progress(metrics: dict[str, Any]) -> str:
    rate = metrics["tokens"] / max(1e-9, metrics["seconds"]["total"])
    return f"right {metrics['accuracy']:.0%}, entropy {metrics.get('entropy', float('nan')):.2f}, {rate:.0f} tokens/s"
