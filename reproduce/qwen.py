"""Qwen2.5 on GSM8K: does the whole road work on a real model of the Qwen2 class?

    python -m reproduce.qwen first_steps --model DIR --data-dir FOLDER                      20 minutes on two CPU cores
    python -m reproduce.qwen first_steps --model DIR --data-dir FOLDER --engine deepspeed   38 minutes
    python -m reproduce.qwen smoke --model DIR --data-dir FOLDER --device cuda              wants a GPU; not yet measured

DIR is a Qwen2.5-0.5B (folder or hub id), FOLDER has gsm8k_train.jsonl and gsm8k_test.jsonl (without it the hub is asked).
first_steps trains LCO-KLD on the eight shortest training problems, at temperature 0.7: its worked answers to the others
outgrow what a CPU samples in minutes, and at temperature 1 it is almost never right. smoke runs LCO-KLD and GRPO side by
side on the whole set. Records land in results/first_steps/ and results/twenty_steps/; what is there is not repeated, and an
interrupted call continues. Minutes are of training alone. A few steps of one seed prove the road, not the method.
"""

from __future__ import annotations

from reproduce.common.smoke import Smoke, main

SMOKE = Smoke(
    scale="qwen2.5",
    task="lco_gsm8k",
    settings={
        "problems": "gsm8k", "prompt": "boxed", "extraction": "lenient", "max_prompt_tokens": 256, "max_new_tokens": 256,
        "temperature": 0.7, "prompts_per_step": 4, "samples": 4, "micro_batch": 4, "lr": 1e-6, "vllm_cache_gib": 0.5,
    },
    shortest=8,
)  # fmt: skip

if __name__ == "__main__":
    main(SMOKE, "reproduce.qwen", __doc__)
