"""Five optimizer steps on a real model: proof of the road, not of the method.

    python reproduce/first_steps.py smollm2 --model DIR --engine torch
    python reproduce/first_steps.py qwen2.5 --model DIR --engine deepspeed --data-dir FOLDER

Trains a pretrained model with LCO-KLD for five rollouts (vLLM samples, weights synchronised after every step), under plain
torch or DeepSpeed ZeRO-2 with two ranks, scores it through lm-eval on the first 32 test problems before and after, and
writes one result record. Llama class: SmolLM2-135M-Instruct on one-digit addition (GSM8K gives it no signal). Qwen class:
a Qwen2.5-0.5B on the eight shortest training problems of GSM8K, at temperature 0.7: its worked answers to the others outgrow
what a CPU samples in minutes, and at temperature 1 it is almost never right. What the record shows: every step had groups
with right and wrong answers and a gradient that is not zero, and sampler and trainer agreed. Five steps say nothing about
which method is better.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from lco.config import Experiment, dump  # noqa: E402
from lco.disk import read_lines, write_text  # noqa: E402
from lco.evidence import records  # noqa: E402
from lco.problems.sets import load_problems  # noqa: E402

COMMON = Experiment(
    method="lco_kld", rollouts="vllm", steps=5, prompts_per_step=8, samples=8, micro_batch=16, lr=5e-6, device="cpu",
    vllm_cache_gib=1.0, processes=2,
)  # fmt: skip
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "smollm2": (
        {"problems": "addition", "prompt": "number_only", "extraction": "last_number", "limit": 400,
         "max_prompt_tokens": 96, "max_new_tokens": 16},
        "lco_addition",
    ),
    "qwen2.5": (
        {"problems": "gsm8k", "prompt": "boxed", "extraction": "lenient", "max_prompt_tokens": 256, "max_new_tokens": 256,
         "temperature": 0.7, "prompts_per_step": 4, "samples": 4, "micro_batch": 4, "lr": 1e-6, "vllm_cache_gib": 0.5},
        "lco_gsm8k",
    ),
}  # fmt: skip


SHORTEST = {"qwen2.5": 8}
"""Train on so many problems with the shortest question and solution; absent: on the set as it is."""


def shortest(run: Experiment, count: int, folder: Path) -> Experiment:
    """The experiment on a file with the `count` shortest problems of its set, in the set's order."""
    problems = load_problems(run.problems, run.split, run.data_dir)
    size = sorted(len(p.problem) + len(p.solution or "") for p in problems)[count - 1]
    kept = [p for p in problems if len(p.problem) + len(p.solution or "") <= size][:count]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.problems}-shortest-{count}.jsonl"
    lines = [json.dumps({k: v for k, v in dataclasses.asdict(p).items() if v}, ensure_ascii=False) for p in kept]
    write_text(path, "\n".join(lines) + "\n")
    return dataclasses.replace(run, problems=str(path), data_dir="")


def evaluate(model: str, task: str, tokens: int, data_dir: str, out: Path) -> dict[str, Any]:
    """Greedy score on the first 32 test problems, by `lco evaluate` in a process of its own; not repeated if it is there."""
    found = out / f"{task}-T0-n1.json"
    if found.exists():
        return json.loads(found.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "lco.cli", "evaluate", "--model", model, "--tasks", task, "--limit", "32",
               "--temperature", "0", "--max-new-tokens", str(tokens), "--device", "cpu", "--out", str(out)]  # fmt: skip
    subprocess.run([*command, *(["--data-dir", data_dir] if data_dir else [])], check=True)
    return json.loads(found.read_text(encoding="utf-8"))


def trained(run: Experiment, task: str, data_dir: str, before: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(record, evaluation afterwards) of a run by `lco train` in a process of its own, continued if it was interrupted."""
    final = run.folder / "checkpoints" / "final"
    if not final.exists():
        with tempfile.TemporaryDirectory() as place:
            config = Path(place) / "config.json"
            config.write_text(dump(run), encoding="utf-8")
            resume = ["--resume"] if (run.folder / "config.json").exists() else []
            subprocess.run([sys.executable, "-m", "lco.cli", "train", "--config", str(config), *resume], check=True)
    after = evaluate(str(final), task, run.max_new_tokens, data_dir, run.folder / "evals")
    record = records.distil(run.folder, [after])
    record["before"] = records.rounded(records.distil_evaluation(before))
    return record, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SETTINGS)
    parser.add_argument("--model", required=True, help="folder or hub id of the pretrained model")
    parser.add_argument("--engine", default="torch", choices=("torch", "deepspeed"))
    parser.add_argument("--data-dir", default="", help="folder of JSON Lines in place of hub ids")
    parser.add_argument("--out", type=Path, default=Path("runs/first_steps"))
    parser.add_argument("--records", type=Path, default=HERE.parent / "results" / "first_steps")
    options = parser.parse_args()
    values, task = SETTINGS[options.kind]
    folder = options.out / f"{options.kind}-{options.engine}"
    run = dataclasses.replace(
        COMMON, **values, model=options.model, engine=options.engine, data_dir=options.data_dir, out=str(folder)
    )
    if options.kind in SHORTEST:
        run = shortest(run, SHORTEST[options.kind], options.out)
    before_folder = options.out / f"{options.kind}-before"
    before = evaluate(options.model, task, run.max_new_tokens, options.data_dir, before_folder)
    record, after = trained(run, task, options.data_dir, before)
    record["experiment"]["problems"] = Path(run.problems).stem
    lines = [line for line in read_lines(folder / "metrics.jsonl") if line["step"] > 0]
    record["every_step_mixed"] = all(line["degenerate_all_right"] + line["degenerate_all_wrong"] < 1 for line in lines)
    record["every_gradient_nonzero"] = all(line.get("gradient_norm", 0) > 0 for line in lines)
    records.write(options.records / f"{options.kind}-{options.engine}.json", record)
    print(
        f"{options.kind} under {options.engine}: {before['scores']['pass@1']:.1%} → {after['scores']['pass@1']:.1%} on 32 "
        f"problems; every step mixed: {record['every_step_mixed']}; every gradient non-zero: "
        f"{record['every_gradient_nonzero']}. Five steps prove the road, not the method."
    )


if __name__ == "__main__":
    main()
