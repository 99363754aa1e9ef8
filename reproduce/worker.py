"""What every process of a reproduction script is: one thread, alive only as long as the script."""

from __future__ import annotations

import os

from lco.training.launch import die_with_parent


def become_worker() -> None:
    """One thread for torch, since processes run side by side; and an end when the parent ends, even by `kill -9`."""
    os.environ["OMP_NUM_THREADS"] = "1"
    die_with_parent()
    import torch

    torch.set_num_threads(1)
