"""Runs lm-eval's tasks on a sampler and keeps what statistics need: counts per problem, all samples, all settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import lco
from lco.errors import UserError
from lco.evaluation.language_model import SamplerLM
from lco.evaluation.tasks import Tasks, load_tasks
from lco.evidence.majority import group_sizes
from lco.evidence.statistics import interval, pass_at_k
from lco.problems.prompts import prompt_facts, prompts_sha256
from lco.problems.records import Problem
from lco.problems.sets import SETS, content_sha256, rules_of
from lco.rollout.records import Sampling

OnResult = Callable[[str, dict[str, Any]], None]
"""(task, result or what decides it)"""

FEWSHOT_SEED = 1234
"""lm_eval's own default: a task with examples shows those of stock lm_eval."""

FIELDS = tuple(Problem.__dataclass_fields__)


def check_numbers(
    samples: int, limit: int, temperature: float | None, max_new_tokens: int | None, thought_tokens: int = 0
) -> None:
    """Refuses numbers that no evaluation can have.

    Raises:
        UserError: names the number and the least allowed value.
    """
    least = {"samples": (samples, 1), "limit": (limit, 0), "temperature": (temperature, 0),
             "max-new-tokens": (max_new_tokens, 1), "thought-tokens": (thought_tokens, 0)}  # fmt: skip
    for name, (value, bound) in least.items():
        if value is not None and not value >= bound:
            raise UserError(f"{name} is {value}; the least allowed value is {bound}")


def evaluate(
    model: SamplerLM, tasks: Sequence[str] | Tasks, *, samples: int = 1, limit: int = 0, data_dir: str = "",
    tasks_dir: str = "", on_result: OnResult | None = None, before_sampling: OnResult | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Scores a model; {task: result}, a result being plain JSON.

    Args:
        tasks: names, or what `load_tasks` returned for them.
        samples: responses per problem; all of them are kept and judged.
        limit: the first N problems of each task (0: all); the result says so.
        data_dir: folder of JSON Lines in place of the hub.
        on_result: called with each task's result as soon as it is there, so that a later failure does not lose it.
        before_sampling: called for each task, before the first sample of any, with everything that decides its numbers.

    Raises:
        UserError: no such task, one whose problems lack what is judged, a generation value that the sampler does not have,
            samples > 1 at temperature 0, or a prompt of any task that is longer than the context allows; all are found
            before anything is sampled.
    """
    # Seconds, which a refused number does not cost; and its simple_evaluate also asks git and the machine what nobody reads here.
    from lm_eval.evaluator import evaluate as run_tasks

    check_numbers(samples, limit, model.temperature, model.max_new_tokens)
    ready = tasks if isinstance(tasks, Tasks) else load_tasks(tasks, data_dir, tasks_dir)
    model.forget()
    deciding: dict[str, dict[str, Any]] = {}
    for name, task in ready.tasks.items():
        task.set_config("repeats", samples)
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(FEWSHOT_SEED)
        task.build_all_requests(
            limit=limit or None,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=model.apply_chat_template,
        )
        check_documents(name, [request.doc for request in task.instances])
        sampling, prompts = model.readable(name, samples, task.instances)
        deciding[name] = {
            **settings_of(model, [request.doc for request in task.instances], sampling, limit),
            "prompts_sha256": prompts_sha256(ids for _, ids in prompts),
        }
        if before_sampling is not None:
            before_sampling(name, deciding[name])
    results = {}
    for name, task in ready.tasks.items():
        task.set_fewshot_seed(FEWSHOT_SEED)  # its requests are built once more, with the same examples
        found = run_tasks(
            model, {"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=limit or None, apply_chat_template=True, fewshot_as_multiturn=True, log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
        assert found is not None
        results[name] = {"task": name, **deciding[name], **result(model, name, found["samples"][name], samples)}
        if on_result is not None:
            on_result(name, results[name])
    return results


def check_documents(task: str, docs: Sequence[dict[str, Any]]) -> None:
    """
    Raises:
        UserError: a problem of the task lacks what the suite asks, judges and counts.
    """
    for number, doc in enumerate(docs):
        lacking = [key for key in ("id", "problem", "answer") if not isinstance(doc.get(key), str)]
        if lacking:
            raise UserError(
                f"{task}: its problem number {number} has no text under {', '.join(map(repr, lacking))}; give every problem "
                "id, problem and answer, as lco_tasks.load does"
            )


def recorded(sampling: Sampling) -> dict[str, Any]:
    """The values for a result; those that came later are left out where they do nothing, so that older results compare."""
    values = {**asdict(sampling), "stop_token_ids": list(sampling.stop_token_ids), "stop": list(sampling.stop)}
    return {name: value for name, value in values.items() if value or name not in ("stop", "thought_tokens")}


def settings_of(model: SamplerLM, docs: Sequence[dict[str, Any]], sampling: Sampling, limit: int) -> dict[str, Any]:
    """What decides a task's numbers besides the model and its prompts' ids."""
    sets = sorted({str(doc.get("set", "")) for doc in docs})
    return {
        "sampling": {**recorded(sampling), "seed": model.seed},
        "limit": limit or None,
        "generated": all(name in SETS and SETS[name].generate is not None for name in sets),
        "prompt": prompt_facts(model.tokenizer),
        "problems_sha256": content_sha256(Problem(**{key: doc.get(key, "") for key in FIELDS}) for doc in docs),
        "verifier": {
            "rules": [asdict(rules) for rules in dict.fromkeys(map(rules_of, docs))],
            "sha256": verifier_sha256(),
        },
    }


@cache
def verifier_sha256() -> str:
    """Hash of the verifier's own code: the rules by which answers are equal."""
    folder, digest = Path(lco.__file__).parent / "verifier", hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def result(model: SamplerLM, task: str, logged: Sequence[dict[str, Any]], samples: int) -> dict[str, Any]:
    """What one task's samples gave: scores with intervals over problems, counts per problem, every response."""
    ordered = sorted(logged, key=lambda entry: entry["doc_id"])
    problems, responses = [], []
    for entry in ordered:
        verdicts = entry["filtered_resps"]
        verdicts = verdicts[0] if verdicts and isinstance(verdicts[0], list) else verdicts
        cut = model.truncated[task, entry["doc_id"]]
        problems.append(
            {
                "id": entry["doc"]["id"],
                "problem": entry["doc"]["problem"],
                "answer": entry["doc"]["answer"],
                "n": len(verdicts),
                "correct": sum(v["correct"] for v in verdicts),
                "no_answer": sum(v["extracted"] is None for v in verdicts),
                "truncated": sum(cut),
                "tokens": sum(model.lengths[task, entry["doc_id"]]),
                "majority": entry["maj@n"],
                "answer_groups": group_sizes([v["group"] for v in verdicts], [v["correct"] for v in verdicts]),
            }
        )
        for v, truncated in zip(verdicts, cut, strict=True):
            line = {"id": entry["doc"]["id"], "response": v["text"]}
            verdict = {key: v[key] for key in ("correct", "extracted", "reason")}
            responses.append({**line, **verdict, "truncated": truncated})
    return {"scores": scores(problems, samples), "problems": problems, "responses": responses}


def scores(problems: Sequence[dict[str, Any]], samples: int) -> dict[str, Any]:
    """avg@n with its 95 % interval, pass@k for powers of two up to n, maj@n, the rates that explain them, tokens a response."""
    rates = [p["correct"] / p["n"] for p in problems]
    total = sum(p["n"] for p in problems)
    ks = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    return {
        "pass@1": sum(rates) / len(rates),
        "interval": list(interval(rates)),
        "pass@k": {str(k): sum(pass_at_k(p["n"], p["correct"], k) for p in problems) / len(problems) for k in ks},
        "maj@n": sum(p["majority"] for p in problems) / len(problems),
        "no_answer": sum(p["no_answer"] for p in problems) / total,
        "truncated": sum(p["truncated"] for p in problems) / total,
        "length": sum(p["tokens"] for p in problems) / total,
    }
