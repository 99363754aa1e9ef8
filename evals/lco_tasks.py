"""What the tasks in this folder share: their problems, their prompts, and the suite's verifier as metric.

Usable with stock lm-eval:

    lm_eval --include_path evals --tasks lco_gsm8k --model hf --model_args pretrained=DIR --apply_chat_template \\
        --metadata '{"data_dir": "FOLDER"}'          # leave --metadata out to load from the hub

All n samples of a problem are kept (lm-eval's default filter keeps the first) and judged in one batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import datasets
from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter

from lco.evidence.majority import group_answers, group_sizes, majority
from lco.problems.prompts import STYLES
from lco.problems.sets import load_problems, rules_of
from lco.verifier import Pool, Rules, verify


def load(set: str, split: str, data_dir: str = "", opening: str = "", **_: Any) -> dict[str, datasets.Dataset]:
    """The problems of a set as lm-eval wants them; other keys of the task's metadata are not ours.

    `opening` is the tag with which a thinking model's prompts end (`<think>`): stock lm_eval does not tell a task what the
    chat template wrote, and a box in an unfinished thought is no answer. `lco evaluate` finds it by itself.
    """
    rows = [{**asdict(problem), "set": set, "opening": opening} for problem in load_problems(set, split, data_dir)]
    return {"test": datasets.Dataset.from_list(rows)}


def _ask(style: str, doc: dict[str, Any]) -> str:
    return STYLES[style].template.replace("{problem}", doc["problem"])


plain, boxed, number_only = (partial(_ask, style) for style in ("plain", "boxed", "number_only"))


def same_answer(a: str, b: str) -> bool:
    """Whether two extracted answers mean the same, by the verifier's equality."""
    return a == b or verify(f"\\boxed{{{a}}}", b, Rules(extraction="boxed_only")).correct


@register_filter("lco_verified")
class Verified(Filter):
    """All samples of all problems → verdicts, in one batch through one pool of verifier processes."""

    def apply(self, resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        samples, documents = [list(texts) for texts in resps], list(docs)
        verdicts: list[list[dict[str, Any]]] = [[] for _ in documents]
        with Pool(workers=os.cpu_count() or 1) as pool:
            for rules in dict.fromkeys(map(rules_of, documents)):
                alike = [i for i, doc in enumerate(documents) if rules_of(doc) == rules]
                pairs = [
                    (documents[i].get("opening", "") + text, documents[i]["answer"])
                    for i in alike
                    for text in samples[i]
                ]
                judged = iter(pool.verify_many(pairs, rules))
                for i in alike:
                    verdicts[i] = [{"text": text, **asdict(next(judged))} for text in samples[i]]
        for of_problem in verdicts:
            groups = group_answers([v["extracted"] for v in of_problem], same_answer)
            for verdict, group in zip(of_problem, groups, strict=True):
                verdict["group"] = group
        return verdicts


def judge(doc: dict[str, Any], results: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """One problem's scores from the verdicts on its n samples: mean (avg@n = pass@1), any, majority, no answer."""
    verdicts = results[0]
    n, right = len(verdicts), sum(v["correct"] for v in verdicts)
    sizes = group_sizes([v["group"] for v in verdicts], [v["correct"] for v in verdicts])
    return {
        "avg@n": right / n,
        "pass@n": float(right > 0),
        "maj@n": majority(sizes),
        "no_answer": sum(v["extracted"] is None for v in verdicts) / n,
    }
