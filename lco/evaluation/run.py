"""Runs lm-eval's tasks on a sampler and keeps what statistics need: counts per problem, all samples, all settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lco
from lco.errors import UserError, nearest
from lco.evaluation.language_model import SamplerLM
from lco.evidence.statistics import interval, pass_at_k
from lco.problems.prompts import prompt_facts
from lco.problems.records import Problem
from lco.problems.sets import SETS, content_sha256

OnResult = Callable[[str, dict[str, Any]], None]

FIELDS = tuple(Problem.__dataclass_fields__)


def tasks_folder(given: str = "") -> Path:
    """The tasks that ship with the package, those of a checkout, or the folder that was given.

    Raises:
        UserError: the folder is not there.
    """
    package = Path(lco.__file__).parent
    candidates = [Path(given)] if given else [package / "tasks", package.parent / "evals"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(f"there is no folder of tasks at {candidates[0]}; give --tasks-dir")


@dataclass(frozen=True)
class Tasks:
    """lm-eval's tasks with their problems, loaded apart from the model so that a mistake costs no loading of weights."""

    manager: Any
    tasks: dict[str, Any]
    metadata: dict[str, str]

    def sampling(self, name: str) -> dict[str, Any]:
        """The task's own sampling values."""
        return dict(self.tasks[name].config.generation_kwargs)


def load_tasks(tasks: Sequence[str], data_dir: str = "", tasks_dir: str = "") -> Tasks:
    """Tasks and their problems.

    Raises:
        UserError: no such folder of tasks, no such task, or its problems cannot be read.
    """
    from lm_eval.tasks import TaskManager

    folder = tasks_folder(tasks_dir)
    metadata = {"data_dir": data_dir} if data_dir else {}
    manager = TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata)
    known = manager.all_tasks
    for name in tasks:
        if name not in known:
            raise UserError(f"there is no task {name!r}{nearest(name, [t for t in known if t.startswith('lco_')])}")
    loaded = manager.load(list(dict.fromkeys(tasks)))["tasks"]
    return Tasks(manager, dict(loaded), metadata)


def check_numbers(samples: int, limit: int, temperature: float | None, max_new_tokens: int | None) -> None:
    """Refuses numbers that no evaluation can have.

    Raises:
        UserError: names the number and the least allowed value.
    """
    least = {"samples": (samples, 1), "limit": (limit, 0), "temperature": (temperature, 0),
             "max-new-tokens": (max_new_tokens, 1)}  # fmt: skip
    for name, (value, bound) in least.items():
        if value is not None and not value >= bound:
            raise UserError(f"{name} is {value}; the least allowed value is {bound}")


def evaluate(
    model: SamplerLM, tasks: Sequence[str] | Tasks, *, samples: int = 1, limit: int = 0, data_dir: str = "",
    tasks_dir: str = "", on_result: OnResult | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Scores a model; {task: result}, a result being plain JSON.

    Args:
        tasks: names, or what `load_tasks` returned for them.
        samples: responses per problem; all of them are kept and judged.
        limit: the first N problems of each task (0: all); the result says so.
        data_dir: folder of JSON Lines in place of the hub.
        on_result: called with each task's result as soon as it is there, so that a later failure does not lose it.

    Raises:
        UserError: no such task, samples > 1 at temperature 0, or a prompt of any task that is longer than the context
            allows; all are found before anything is sampled.
    """
    from lm_eval import simple_evaluate

    check_numbers(samples, limit, model.temperature, model.max_new_tokens)
    ready = tasks if isinstance(tasks, Tasks) else load_tasks(tasks, data_dir, tasks_dir)
    model.forget()
    for name, task in ready.tasks.items():
        task.set_config("repeats", samples)
        task.build_all_requests(
            limit=limit or None, apply_chat_template=True, chat_template=model.apply_chat_template
        )  # fmt: skip
        model.readable(name, samples, task.instances)
    results = {}
    for name, task in ready.tasks.items():
        found = simple_evaluate(
            model, tasks=[task], task_manager=ready.manager,
            limit=limit or None, apply_chat_template=True, log_samples=True, bootstrap_iters=0, metadata=ready.metadata,
        )  # fmt: skip
        assert found is not None
        results[name] = result(model, name, found["samples"][name], samples, limit)
        if on_result is not None:
            on_result(name, results[name])
    return results


def result(model: SamplerLM, task: str, logged: Sequence[dict[str, Any]], samples: int, limit: int) -> dict[str, Any]:
    """One task's result: settings, scores with intervals over problems, counts per problem, every response."""
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
                "majority": entry["maj@n"],
            }
        )
        for v, truncated in zip(verdicts, cut, strict=True):
            line = {"id": entry["doc"]["id"], "response": v["text"]}
            verdict = {key: v[key] for key in ("correct", "extracted", "reason")}
            responses.append({**line, **verdict, "truncated": truncated})
    sampling = asdict(model.used[task])
    return {
        "task": task,
        "sampling": {**sampling, "seed": model.seed},
        "limit": limit or None,
        "generated": SETS[ordered[0]["doc"]["set"]].generate is not None,
        "prompt": prompt_facts(model.tokenizer),
        "problems_sha256": content_sha256(Problem(**{key: entry["doc"][key] for key in FIELDS}) for entry in ordered),
        "scores": scores(problems, samples),
        "problems": problems,
        "responses": responses,
    }


def scores(problems: Sequence[dict[str, Any]], samples: int) -> dict[str, Any]:
    """avg@n with its 95 % interval, pass@k for powers of two up to n, maj@n, and the rates that explain them."""
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
    }
