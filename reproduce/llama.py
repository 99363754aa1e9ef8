"""Llama-class models of every size: LCO and its baselines at equal budget, from a plan to a table.

    python -m reproduce.llama 1b --dry-run       cells, memory term by term, hours, disk; loads and downloads nothing
    python -m reproduce.llama 1b --smoke         the whole script on a stand-in: minutes on two CPU cores
    python -m reproduce.llama 1b                 the study: seven methods, three seeds; a GPU of 80 GB, days
    python -m reproduce.llama 1b --status        which cells are done, running, begun, not run

The same call again continues it, and so do calls beside it, on other GPUs or machines with the same file system (--dry-run
--slurm writes the array). Two older commands try the road on a small real model:

    python -m reproduce.llama first_steps --model DIR                      four minutes on two CPU cores
    python -m reproduce.llama first_steps --model DIR --engine deepspeed   six minutes
    python -m reproduce.llama smoke --model DIR                            17 minutes

For these DIR is SmolLM2-135M-Instruct (folder or hub id), to which GSM8K gives no signal: they train on one-digit addition.
first_steps trains LCO-KLD, smoke runs LCO-KLD and GRPO side by side. Records land in results/first_steps/ and
results/twenty_steps/. Minutes are of training alone. A few steps of one seed prove the road, not the method.
"""

from __future__ import annotations

import sys
from typing import Any

from reproduce.common import family, smoke
from reproduce.common.families import COMMON, GREEDY_AND_SAMPLED, TASKS, ZERO_3, Choice, Family, Scale, architecture

META = (
    "the hub gives these weights only to whoever has agreed to Meta's licence on the model's page: set HF_TOKEN, or give a "
    "folder with --model"
)
ADDITION = {
    "problems": Choice("addition", "one-digit sums, on which so small a model has signal; GSM8K gives it none"),
    "prompt": Choice("number_only", "what it can follow"),
    "extraction": Choice("last_number", "it writes words around the number"),
    "max_prompt_tokens": Choice(96, "the longest has fewer"),
    "max_new_tokens": Choice(16, "a number and its end"),
}


def llama(hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return architecture(hidden, layers, heads, kv, inner, vocabulary, tied, context=8192)


LLAMA = Family(
    name="llama",
    stand_in="llama",
    scales=(
        Scale(
            "1b",
            {"instruct": "meta-llama/Llama-3.2-1B-Instruct"},
            "llama",
            llama(2048, 16, 32, 8, 8192, 128256, True),
            gpus=1,
            licence=META,
        ),
        Scale(
            "3b",
            {"instruct": "meta-llama/Llama-3.2-3B-Instruct"},
            "llama",
            llama(3072, 28, 24, 8, 8192, 128256, True),
            gpus=2,
            licence=META,
        ),
        Scale(
            "8b",
            {"instruct": "meta-llama/Llama-3.1-8B-Instruct"},
            "llama",
            llama(4096, 32, 32, 8, 14336, 128256, False),
            gpus=8,
            settings=ZERO_3,
            licence=META,
        ),
        Scale(
            "smollm2-135m",
            {"instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"},
            "llama",
            llama(576, 30, 9, 3, 1536, 49152, True),
            gpus=1,
            settings=ADDITION,
            tasks={"lco_addition": GREEDY_AND_SAMPLED},
        ),
        Scale(
            "octothinker-3b",
            {"base": "OctoThinker/OctoThinker-3B-Hybrid-Base"},
            "llama",
            llama(3072, 28, 24, 8, 8192, 128256, True),
            gpus=2,
            licence="a base model without a chat template: put a chat_template.jinja beside its tokenizer, and give the folder",
        ),
    ),
    settings={
        **COMMON,
        "prompt": Choice("boxed_user", "the instruction in the user's turn, as Meta's own evaluation asks"),
    },
    tasks=TASKS,
)

SMOKE = smoke.Smoke(
    scale="smollm2",
    task="lco_addition",
    settings={
        "problems": "addition", "prompt": "number_only", "extraction": "last_number", "limit": 400,
        "max_prompt_tokens": 96, "max_new_tokens": 16,
    },
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] in (["first_steps"], ["smoke"]):
        smoke.main(SMOKE, "reproduce.llama", __doc__)
    else:
        family.main(LLAMA, "reproduce.llama", __doc__, sys.argv[1:])
