"""`lco evaluate`: score a model on lm-eval tasks."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from lco.disk import full_disk_named, write_json
from lco.errors import UserError
from lco.evaluation.tasks import check_names, load_tasks, tasks_folder
from lco.provenance import collect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Scores a model on the suite's lm-eval tasks: prompts through its chat template, the suite's verifier, n "
        "samples a problem, intervals over problems. Writes one JSON file a task, with every response in it."
    )
    parser.epilog = "example: lco evaluate --model DIR --tasks lco_gsm8k --samples 8 --temperature 1"
    parser.add_argument("--model", required=True, help="local folder, hub id, or GGUF file")
    parser.add_argument("--tasks", required=True, nargs="+", help="task names, e.g. lco_gsm8k lco_math500 lco_aime24")
    parser.add_argument("--samples", type=int, default=1, help="responses per problem (default: 1)")
    parser.add_argument("--temperature", type=float, help="0 is greedy (default: the task's, usually 0)")
    parser.add_argument("--max-new-tokens", type=int, help="length limit (default: the task's)")
    parser.add_argument(
        "--stop",
        nargs="+",
        metavar="TEXT",
        help="stop strings; a response is judged up to the first (default: the task's)",
    )
    parser.add_argument(
        "--thought-tokens",
        type=int,
        default=0,
        help="close a thought that is still open after so many tokens (default: never)",
    )
    parser.add_argument("--thinking", default="", choices=("on", "off"), help="default: the chat template's own")
    parser.add_argument("--limit", type=int, default=0, help="the first N problems only; the result says so")
    parser.add_argument("--data-dir", default="", help="folder of JSON Lines in place of hub ids")
    parser.add_argument("--tasks-dir", default="", help="another folder of tasks")
    parser.add_argument("--rollouts", default="transformers", choices=("transformers", "vllm"), help="sampling engine")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--vllm-cache-gib", type=float, default=1.0, help="memory for vLLM's key-value cache, GiB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="evaluations", help="folder for the results (default: evaluations)")


def run(arguments: argparse.Namespace) -> int:
    arguments.tasks = [name for given in arguments.tasks for name in given.split(",") if name]  # as lm_eval takes them
    check_names(arguments.tasks, tasks_folder(arguments.tasks_dir))
    if arguments.data_dir and not Path(arguments.data_dir).is_dir():
        raise UserError(f"there is no folder {arguments.data_dir}; give the folder of JSON Lines with --data-dir")
    from lco import models

    models.check_device(arguments.device)
    models.check_local(arguments.model)
    # Then torch, transformers, lm-eval: each only once what is asked so far can be done.

    models.resolve_device(arguments.device)
    models.load_config(arguments.model)
    from lco.evaluation.run import check_numbers, evaluate

    check_numbers(
        arguments.samples, arguments.limit, arguments.temperature, arguments.max_new_tokens, arguments.thought_tokens
    )
    tasks = load_tasks(arguments.tasks, arguments.data_dir, arguments.tasks_dir)
    files = {name: file_of(arguments, name, tasks.sampling(name)) for name in tasks.tasks}
    make_folder(Path(arguments.out))
    lm, sampler, model = load(arguments)

    made_with = {"model": model, "engine": arguments.rollouts, "dtype": arguments.dtype}

    def check(task: str, deciding: dict[str, Any]) -> None:
        check_file(files[task], {**made_with, **deciding})

    def keep(task: str, found: dict[str, Any]) -> None:
        with full_disk_named(files[task], "free some space, or give another --out"):
            write_json(files[task], {**made_with, **found, "provenance": collect()})
        print(f"{line(task, found)} → {files[task]}", flush=True)

    try:
        evaluate(lm, tasks, samples=arguments.samples, limit=arguments.limit, on_result=keep, before_sampling=check)
    finally:
        sampler.close()
    return 0


def make_folder(folder: Path) -> None:
    """Makes the folder of the results, before anything that takes long.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))  # what a full disk has no room for, before anything is sampled
            file.flush()
    except OSError as error:
        raise UserError(f"cannot write results to {folder}: {error.strerror}; give another --out") from None


def file_of(arguments: argparse.Namespace, task: str, own: dict[str, Any]) -> Path:
    """Where a task's result goes, known before anything is sampled.

    Raises:
        UserError: several greedy samples are asked for.
    """
    temperature = float(own["temperature"]) if arguments.temperature is None else arguments.temperature
    if arguments.samples > 1 and temperature == 0:
        raise UserError(
            f"samples is {arguments.samples} at temperature 0 of {task}: all would be equal; give --temperature 1, or "
            "1 sample"
        )
    return Path(arguments.out) / f"{task}-T{temperature:g}-n{arguments.samples}.json"


def check_file(file: Path, deciding: dict[str, Any]) -> None:
    """A result may be made again, but never replaces one that anything else decided.

    Raises:
        UserError: the file holds something else; a value that differs is named.
    """
    if not file.exists():
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise UserError(f"{file} holds no result that can be read; give another --out, or move it away")
    was = flat({key: before[key] for key in deciding if key in before})
    now = flat(json.loads(json.dumps(deciding)))
    for key in sorted(now | was, key=is_hash):
        if was.get(key) != now.get(key):
            raise UserError(
                f"{file} holds a result with another {key} ({was.get(key)!r}, and this call has {now.get(key)!r}); give another "
                "--out, or move it away"
            )


def is_hash(key: str) -> bool:
    """Whether a value is a hash, which only says that something is another: what differs by name (a dtype, --thinking) and
    changes a hash too is named first."""
    return key.endswith("sha256")


def flat(value: dict[str, Any], stem: str = "") -> dict[str, Any]:
    """{"sampling": {"seed": 0}} → {"sampling.seed": 0}"""
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat(item, f"{stem}{key}.") if isinstance(item, dict) else {f"{stem}{key}": item}
    return found


def line(task: str, found: dict[str, Any]) -> str:
    """One task's result as a line to read."""
    scores, sampling = found["scores"], found["sampling"]
    head = f" (first {found['limit']} problems)" if found["limit"] else ""
    low, high = scores["interval"]
    return (
        f"{task}{head}: pass@1 {scores['pass@1']:.1%} [{low:.1%}, {high:.1%}], T {sampling['temperature']:g}, "
        f"n {sampling['samples']}, no answer {scores['no_answer']:.1%}, cut {scores['truncated']:.1%}"
    )


def load(arguments: argparse.Namespace):  # type: ignore[no-untyped-def]
    """(lm-eval model, its sampler, the model's name, class and weight hash) for a model folder or hub id."""
    from lco import models  # as above
    from lco.evaluation.language_model import SamplerLM
    from lco.models.end_tokens import end_token_ids
    from lco.problems.prompts import with_thinking
    from lco.problems.responses import response_decoder
    from lco.rollout.records import Sampler
    from lco.rollout.stop import StopSampler
    from lco.rollout.thought import closing_ids, with_thought_budget

    config = models.load_config(arguments.model)
    tokenizer = with_thinking(models.load_tokenizer(arguments.model), arguments.thinking)
    if arguments.thought_tokens:
        closing_ids(tokenizer, arguments.thought_tokens)  # refused before the weights are read
    context = models.context_length(config)
    device = models.resolve_device(arguments.device)
    network = models.load_model(arguments.model, arguments.dtype, "cpu" if arguments.rollouts == "vllm" else device)
    model = {
        "name": models.public_name(arguments.model),
        "class": type(network).__name__,
        "sha256": models.weights_sha256(network),
    }
    sampler: Sampler
    if arguments.rollouts == "vllm":
        from lco.rollout.vllm import VLLMSampler

        del network  # it was read for its hash; vLLM reads the weights itself
        sampler = VLLMSampler(
            arguments.model, dtype=arguments.dtype, cache_gib=arguments.vllm_cache_gib, max_model_len=context,
            separate_process=False,
        )  # fmt: skip
    else:
        from lco.rollout.transformers import TransformersSampler

        sampler = TransformersSampler(network, decode=response_decoder(tokenizer))
    sampler = StopSampler(sampler, response_decoder(tokenizer))
    sampler = with_thought_budget(sampler, tokenizer, arguments.thought_tokens)
    ends = end_token_ids(tokenizer, arguments.model)
    lm = SamplerLM(
        sampler, tokenizer, ends, arguments.seed, arguments.temperature, arguments.max_new_tokens, context,
        arguments.stop, arguments.thought_tokens,
    )  # fmt: skip
    return lm, sampler, model
