"""Small records for tests, whole and true to themselves."""

import json

from lco.disk import append_line
from lco.evidence import page, records
from lco.evidence.check import EARLIER
from lco.evidence.names import titles
from lco.evidence.report import LEAD, heading, sections


def evaluation(temperature, correct, samples):
    rate = sum(correct) / samples / len(correct)
    eight = {"8": sum(map(bool, correct)) / len(correct)} if samples == 8 else {}
    return {
        "task": "t", "limit": None, "problems": len(correct), "samples": samples, "ids_sha256": "x", "correct": correct,
        "sampling": {"temperature": temperature, "max_new_tokens": 32, "samples": samples},
        "scores": {"pass@1": rate, "pass@k": {"1": rate, **eight}},
    }  # fmt: skip


def record(method, seed, right, samples=8):
    evaluations = [evaluation(1.0, [right] * 6 + [0] * 4, samples), evaluation(0.0, [1] * 8 + [0] * 2, 1)]
    if method == "start":
        evaluations.append(evaluation(0.4, [samples] * 9 + [0], samples))
    curves = {"step": [1, 2, 3, 4], "accuracy": [0.1 * (seed or 0)] * 4, "entropy": [1.0, 0.5, None, 0.2],
              "gradient_norm": [1, 2, 1, 1], "kl_old": [0.1, 0.1, 0.2, 0.1]}  # fmt: skip
    return {
        "schema": EARLIER, "experiment": {}, "method": method, "seed": seed,
        "model": {"class": "LlamaForCausalLM", "name": "llama", "sha256": "ab" * 32},
        "budget": {"rollouts": 4 if seed is not None else 0, "rows": 16, "updates": 8, "response_tokens": 4000},
        "curves": {} if seed is None else curves,
        "evaluations": evaluations, "seconds": {"update": 1.0},
        "provenance": {"git": {"commit": "c", "dirty": False}, "packages": {"torch": "2"}, "torch_wheel_sha256": None,
                       "python": "3.11", "hardware": {"processor": "p", "cores": 2, "memory_gib": 8, "gpu": None}},
        "problems_sha256": "y", "source_sha256": {},
    }  # fmt: skip


def write(folder, *runs):
    """Writes (method, seed, right samples of eight on six of ten problems) as records; returns the folder."""
    for method, seed, right in runs:
        records.write(folder / method / f"{seed}.json", record(method, seed, right))
    return folder


def tables(folder):
    """The tables of a report, without its figures, which take seconds."""
    found = records.read_all(folder)
    parts = sections(found, titles(found))
    return [table for part in parts for table in (part.table, part.differences) if table is not None]


def page_of(folder):
    """The page of a report, without its figures."""
    found = records.read_all(folder)
    names = titles(found)
    return page.build(heading(folder, found), LEAD, sections(found, names), [], found, names)


def finished(folder, lines, method="grpo", said=None):
    """A run folder of these metric lines; `said` is what its manifest tells of its method."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"method": method, "seed": 0, "model": "m", "data_dir": "", "out": "", "problems": "arithmetic"}
    manifest = {
        "model": {"class": "C", "name": "start", "sha256": "a" * 64}, "problems_sha256": "p", "packages": {}, "python": "3.11",
        "torch_wheel_sha256": None, "git": {"commit": None, "dirty": None},
        "hardware": {"processor": "p", "cores": 2, "memory_gib": 8, "gpu": None},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").write_text(json.dumps({**manifest, **({"method": said} if said else {})}))
    for line in lines:
        append_line(folder / "metrics.jsonl", line)
    return folder
