"""`lco train` with vLLM rollouts whose weights are never brought up to date: what a run logs when the sync is broken.

unsynchronised_worker.py train …    as `lco train …`. Started by test_synchronised_rollouts.py, one process per rank.
"""

from __future__ import annotations

import sys

from lco.cli import main
from lco.rollout.vllm import VLLMSampler

if __name__ == "__main__":
    VLLMSampler.sync = lambda self, weights: None
    sys.exit(main())
