"""Tokens per second of one real GRPO step, beside TRL's GRPOTrainer on the same model, prompts, samples and lengths.

    pip install --no-deps --target build/trl trl==1.16.0
    python tests/benchmarks/rl_step.py --model DIR --trl build/trl [--rollouts transformers|vllm] [--out FILE.json]

Both run in one process, one after the other: `--rounds` steps of the suite, of TRL, and of the suite again. Every response
has exactly `--new-tokens` tokens (no end token stops a row), so both do the same work: generation, reward,
log-probabilities, one update per rollout, synchronisation. The suite's step is split by phase. Ratios are of medians in one
run; the machine's name, threads and versions stand in the record. Two checkouts of the suite are set against each other by
`scripts/compare_speed.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from lco.config import Experiment
from lco.problems.prompts import style_named
from lco.problems.sets import load_problems
from lco.provenance import collect
from lco.rollout.records import Sampling
from lco.training.load import load
from lco.training.resolve import resolve
from lco.training.state import Clock
from lco.verifier import Pool


class Suite:
    """The suite's own loop, one rollout at a time."""

    def __init__(self, options: argparse.Namespace, pool: Pool) -> None:
        self.experiment = Experiment(
            model=options.model, method="grpo", problems="addition", prompt="number_only", lr=1e-6,
            device="cpu", limit=256, prompts_per_step=options.prompts, samples=options.samples, max_new_tokens=options.new_tokens,
            micro_batch=options.micro_batch,
        )  # fmt: skip
        loaded = load(resolve(self.experiment), 1, pool)
        self.collector, self.learner, self.step = loaded.collector, loaded.learner, 0
        # No token ends a response, so that every one has the same length.
        self.collector.sampling = Sampling(1.0, 1.0, 0, options.new_tokens, options.samples, stop_token_ids=())
        self.collector.sampler = self.sampler(options, self.learner.policies.engine.policy.model)

    def sampler(self, options: argparse.Namespace, model: torch.nn.Module):
        if options.rollouts == "transformers":
            from lco.rollout.transformers import TransformersSampler

            return TransformersSampler(model)
        from lco.rollout.vllm import VLLMSampler

        return VLLMSampler(options.model, dtype="float32", cache_gib=1, max_model_len=256, separate_process=False)

    def one(self) -> dict[str, float]:
        start, clock = time.perf_counter(), Clock()
        rollout = self.collector.collect(self.step, clock)
        self.learner.learn(rollout, clock)
        with clock.phase("sync"):
            self.collector.synchronise(self.learner.policies.engine.named_weights())
        self.step += 1
        return {**clock.seconds, "total": time.perf_counter() - start, "tokens": rollout.metrics["tokens"]}


class Peer:
    """TRL's GRPOTrainer on the same prompts; `train()` of one step at a time."""

    def __init__(self, options: argparse.Namespace) -> None:
        sys.path.insert(0, options.trl)
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl import GRPOConfig, GRPOTrainer

        problems = load_problems("addition", "train", limit=256)
        style = style_named("number_only")
        rows = [{"prompt": style.messages(p.problem), "answer": p.answer} for p in problems]
        times: list[float] = []

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: object, **__: object) -> None:
                times.append(time.perf_counter())

            def on_step_end(self, *_: object, **__: object) -> None:
                times.append(time.perf_counter())

        def reward(completions, answer, **_):
            return [float(a in c[0]["content"]) for a, c in zip(answer, completions, strict=True)]

        self.folder = tempfile.TemporaryDirectory()
        rows_per_step = options.prompts * options.samples
        config = GRPOConfig(
            output_dir=self.folder.name, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
            per_device_train_batch_size=options.micro_batch, num_generations=options.samples,
            gradient_accumulation_steps=rows_per_step // options.micro_batch, max_steps=options.rounds + 1,
            max_completion_length=options.new_tokens, temperature=1.0, beta=0.0, learning_rate=1e-6,
            generation_kwargs={"min_new_tokens": options.new_tokens}, disable_tqdm=True, logging_strategy="no",
            gradient_checkpointing=False, model_init_kwargs={"dtype": "float32"},
        )  # fmt: skip
        self.trainer = GRPOTrainer(
            model=options.model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list(rows),
            callbacks=[Clock()],
        )
        self.times = times

    def all(self) -> list[float]:
        """Seconds of every step but the first (a warm-up). Generation happens inside a step."""
        self.trainer.train()
        pairs = list(zip(self.times[::2], self.times[1::2], strict=True))
        return [end - start for start, end in pairs][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--trl", required=True, help="folder that TRL was installed into")
    parser.add_argument("--rollouts", default="transformers", choices=("transformers", "vllm"))
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="write the record here")
    options = parser.parse_args()
    with Pool(workers=1) as pool:
        suite = Suite(options, pool)
        suite.one()
        ours = [suite.one() for _ in range(options.rounds)]
        theirs = Peer(options).all()
        ours += [suite.one() for _ in range(options.rounds)]
    tokens = options.prompts * options.samples * options.new_tokens
    mine, peer = statistics.median(o["total"] for o in ours), statistics.median(theirs)
    phases = {k: statistics.median(o.get(k, 0.0) for o in ours) for k in ours[0] if k not in ("total", "tokens")}
    print(f"{tokens} response tokens a step, {torch.get_num_threads()} threads, rollouts by {options.rollouts}")
    print(f"suite  {tokens / mine:8.0f} tokens/s   {mine:6.2f} s a step")
    print(f"TRL    {tokens / peer:8.0f} tokens/s   {peer:6.2f} s a step")
    print(f"ratio  {peer / mine:8.2f}")
    print("suite's step: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in phases.items()))
    if options.out:
        setting = {name: value for name, value in vars(options).items() if name != "out"}
        record = {"options": {**setting, "model": Path(options.model).name, "trl": "1.16.0"}, "tokens": tokens,
                  "suite": ours, "trl_seconds": theirs, "ratio": peer / mine, "provenance": collect()}  # fmt: skip
        Path(options.out).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
