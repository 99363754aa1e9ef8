"""Qwen2.5 and Qwen3 of every size: LCO and its baselines at equal budget, from a plan to a table.

    python -m reproduce.qwen 0.5b --dry-run      cells, memory term by term, hours, disk; loads and downloads nothing
    python -m reproduce.qwen 0.5b --smoke        the whole script on a stand-in: minutes on two CPU cores
    python -m reproduce.qwen 0.5b                the study: seven methods, three seeds; a GPU of 80 GB, days
    python -m reproduce.qwen 0.5b --status       which cells are done, running, begun, not run

The same call again continues it, and so do calls beside it, on other GPUs or machines with the same file system (--dry-run
--slurm writes the array). Two older commands try the road on a small real model:

    python -m reproduce.qwen first_steps --model DIR --data-dir FOLDER                      20 minutes on two CPU cores
    python -m reproduce.qwen first_steps --model DIR --data-dir FOLDER --engine deepspeed   38 minutes
    python -m reproduce.qwen smoke --model DIR --data-dir FOLDER --device cuda              wants a GPU; not yet measured

For these DIR is a Qwen2.5-0.5B (folder or hub id), FOLDER has gsm8k_train.jsonl and gsm8k_test.jsonl (without it the hub is
asked). first_steps trains LCO-KLD on the eight shortest training problems, at temperature 0.7: its worked answers to the
others outgrow what a CPU samples in minutes, and at temperature 1 it is almost never right. Records land in
results/first_steps/ and results/twenty_steps/. A few steps of one seed prove the road, not the method.
"""

from __future__ import annotations

import sys
from typing import Any

from reproduce.common import family, smoke
from reproduce.common.families import COMMON, TASKS, ZERO_3, Choice, Family, Scale, architecture


def qwen2(hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return architecture(hidden, layers, heads, kv, inner, vocabulary, tied, context=32768)


def qwen3(hidden: int, layers: int, heads: int, inner: int, tied: bool) -> dict[str, Any]:
    return architecture(hidden, layers, heads, 8, inner, 151936, tied, context=32768, head_dim=128)


def models(size: str, math: bool = False) -> dict[str, str]:
    base = {"base": f"Qwen/Qwen2.5-{size}", "instruct": f"Qwen/Qwen2.5-{size}-Instruct"}
    return {**base, **({"math": f"Qwen/Qwen2.5-Math-{size}"} if math else {})}


QWEN = Family(
    name="qwen",
    stand_in="qwen",
    scales=(
        Scale("0.5b", models("0.5B"), "qwen2", qwen2(896, 24, 14, 2, 4864, 151936, True), gpus=1),
        Scale("1.5b", models("1.5B", math=True), "qwen2", qwen2(1536, 28, 12, 2, 8960, 151936, True), gpus=1),
        Scale(
            "3b",
            models("3B"),
            "qwen2",
            qwen2(2048, 36, 16, 2, 11008, 151936, True),
            gpus=2,
            licence="Qwen Research License: not for commercial use, nor is what is trained from it",
        ),
        Scale("7b", models("7B", math=True), "qwen2", qwen2(3584, 28, 28, 4, 18944, 152064, False), 8, ZERO_3),
        Scale("qwen3-1.7b", {"base": "Qwen/Qwen3-1.7B-Base"}, "qwen3", qwen3(2048, 28, 16, 6144, True), gpus=1),
        Scale("qwen3-4b", {"base": "Qwen/Qwen3-4B-Base"}, "qwen3", qwen3(2560, 36, 32, 9728, True), gpus=4),
        Scale("qwen3-8b", {"base": "Qwen/Qwen3-8B-Base"}, "qwen3", qwen3(4096, 36, 32, 12288, False), 8, ZERO_3),
    ),
    settings={
        **COMMON,
        "prompt": Choice("boxed", "the families' own evaluation: ChatML with the boxed instruction as system"),
    },
    tasks=TASKS,
)

SMOKE = smoke.Smoke(
    scale="qwen2.5",
    task="lco_gsm8k",
    settings={
        "problems": "gsm8k", "prompt": "boxed", "extraction": "lenient", "max_prompt_tokens": 256, "max_new_tokens": 256,
        "temperature": 0.7, "prompts_per_step": 4, "samples": 4, "micro_batch": 4, "lr": 1e-6, "vllm_cache_gib": 0.5,
    },
    shortest=8,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] in (["first_steps"], ["smoke"]):
        smoke.main(SMOKE, "reproduce.qwen", __doc__)
    else:
        family.main(QWEN, "reproduce.qwen", __doc__, sys.argv[1:])
