"""SmolLM2 on one-digit addition: does the whole road work on a real model of the Llama class?

    python -m reproduce.llama first_steps --model DIR                      four minutes on two CPU cores
    python -m reproduce.llama first_steps --model DIR --engine deepspeed   six minutes
    python -m reproduce.llama smoke --model DIR                            17 minutes

DIR is SmolLM2-135M-Instruct (folder or hub id), to which GSM8K gives no signal. first_steps trains LCO-KLD, smoke runs
LCO-KLD and GRPO side by side. Records land in results/first_steps/ and results/twenty_steps/; what is there is not repeated,
and an interrupted call continues. Minutes are of training alone. A few steps of one seed prove the road, not the method.
"""

from __future__ import annotations

from reproduce.common.smoke import Smoke, main

SMOKE = Smoke(
    scale="smollm2",
    task="lco_addition",
    settings={
        "problems": "addition", "prompt": "number_only", "extraction": "last_number", "limit": 400,
        "max_prompt_tokens": 96, "max_new_tokens": 16,
    },
)  # fmt: skip

if __name__ == "__main__":
    main(SMOKE, "reproduce.llama", __doc__)
