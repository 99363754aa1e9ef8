"""The engine of several processes: DeepSpeed ZeRO-2 or ZeRO-3, exact over unequal micro-batches.

Losses arrive divided by the divisor of the whole minibatch over all ranks, so gradients must be summed, not averaged:
each backward call takes `loss · world` against DeepSpeed's mean over ranks, with its own division by accumulation steps
switched off. The accumulation boundary is set by hand before every backward call; with DeepSpeed's own counting, ZeRO-2
keeps only the last micro-batch's gradient (off by 86 % in a measurement).
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lco.config import Experiment
from lco.disk import sha256, write_json
from lco.errors import UserError
from lco.heads import HeadStep
from lco.policy import A, LossAnswer, PolicyModel, Request
from lco.rollout.records import Batch
from lco.training.engine import Norms, Step, gradient_norms, learning_rate_factor, parameter_groups

BUCKET = 50_000_000
"""Elements that are reduced or gathered at once. DeepSpeed's 500 M reserves 2 GB a rank in float32; larger tensors than a
bucket (a head, an embedding) go one by one."""

SHARED_MEMORY = Path("/dev/shm")
STATE, RECORD = "deepspeed", "engine.json"
"""Inside a checkpoint: DeepSpeed's files, and the record of their hashes."""


def settings(experiment: Experiment) -> dict[str, Any]:
    """DeepSpeed's configuration; what it would otherwise do on its own is switched off."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # micro-batches are ours; DeepSpeed only insists on a number
        "gradient_accumulation_steps": 1,
        "gradient_clipping": experiment.clip_norm,
        "bf16": {"enabled": experiment.dtype == "bfloat16"},
        "zero_optimization": {
            "stage": experiment.zero_stage,
            "overlap_comm": False,
            "round_robin_gradients": False,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
        },
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
    }


class DeepSpeedEngine:
    """One rank of several. Build it in every rank, under DeepSpeed's launcher or torchrun."""

    def __init__(self, policy: PolicyModel, experiment: Experiment) -> None:
        import deepspeed  # here and below, once an engine is made

        deepspeed.utils.logger.setLevel(logging.WARNING)
        cuda = torch.cuda.is_available() and experiment.device != "cpu"
        # Several ranks have met already (roll_call.py); DeepSpeed takes their group over.
        deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False)
        self.experiment, self.policy = experiment, policy
        optimizer = torch.optim.AdamW(
            parameter_groups(policy, experiment),
            betas=(experiment.beta1, experiment.beta2),
            weight_decay=experiment.weight_decay,
        )
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.module, self.optimizer, _, _ = deepspeed.initialize(
            model=policy, optimizer=optimizer, config=settings(experiment), dist_init_required=False
        )
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
        self.updates = 0
        forget_buffers(self.rank)

    def forward(self, batch: Batch, request: Request[A]) -> A:
        answer: A = self.module(batch.to(self.device), request)
        return answer

    def backward(self, loss: Tensor, last: bool) -> None:
        self.module.set_gradient_accumulation_boundary(last)
        self.module.backward(loss * self.world, scale_wrt_gas=False)

    def step(self, factor: float = 1.0) -> Step:
        factor *= learning_rate_factor(self.updates, self.experiment)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor
        before = self.module.skipped_steps
        self.module.step()
        norm = self.module.get_global_grad_norm()
        norm = float("nan") if norm is None else float(norm)
        self.updates += 1
        applied = self.module.skipped_steps == before and math.isfinite(norm)
        return Step(norm, self.experiment.lr * factor, applied)

    def head_step(self, moments: bool) -> HeadStep:
        # A method that asks for moments is refused under DeepSpeed (rules.py): they are spread over the ranks.
        assert not moments
        return HeadStep(self.experiment.lr * learning_rate_factor(self.updates, self.experiment))

    def probe(self, batch: Batch, request: Request[LossAnswer]) -> Norms:
        # Asked of the module itself, so that DeepSpeed's accumulation sees nothing of it; not possible under ZeRO-3.
        norms: Norms = self.gather(gradient_norms(self.policy, batch.to(self.device), request))[0]
        return norms

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; every rank must call it equally often."""
        tensor = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        if self.experiment.zero_stage < 3:
            yield from self.policy.named_weights()
            return
        import deepspeed

        # One parameter at a time; whoever needs all of them keeps them, the other ranks only take part.
        for name, parameter in self.policy.model.named_parameters(remove_duplicate=False):
            with deepspeed.zero.GatheredParameters([parameter]):
                whole = parameter.detach().clone()
            yield name, whole

    @property
    def files(self) -> Sequence[str]:
        return (RECORD,)  # which lists DeepSpeed's own

    def save(self, folder: Path) -> None:
        """DeepSpeed's own files, one set per rank, in an existing folder, with a record of their hashes.

        Every rank calls this with the same folder.
        """
        self.module.save_checkpoint(str(folder), tag=STATE, client_state={}, save_latest=False)
        dist.barrier()
        if self.rank == 0:
            for script in folder.glob("zero_to_*.py"):  # DeepSpeed adds its converters; a checkpoint holds no code
                script.unlink()
            write_json(folder / RECORD, {"updates": self.updates, "world": self.world, "files": hashes(folder / STATE)})
        dist.barrier()

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote with as many ranks.

        Raises:
            UserError: the files are not those that the run recorded, or would build something else than DeepSpeed saves.
                They are pickles, which could run code.
        """
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = hashes(folder / STATE)
        wrong = sorted(
            name for name in found.keys() | recorded["files"].keys() if found.get(name) != recorded["files"].get(name)
        )
        if wrong:
            raise UserError(
                f"{folder / STATE / wrong[0]} is not the file that this run saved; nothing was loaded, "
                "remove this checkpoint to resume from the one before"
            )
        if recorded["world"] != self.world:
            raise UserError(
                f"{folder} was saved by {recorded['world']} ranks and is loaded by {self.world}; "
                f"give --processes {recorded['world']}"
            )
        self.module.checkpoint_engine.load = read_restricted
        self.module.load_checkpoint(str(folder), tag=STATE)
        self.updates = recorded["updates"]


def read_restricted(path: str, map_location: Any = None) -> Any:
    """A file of a checkpoint, by an unpickler that builds tensors and the few classes that DeepSpeed saves beside them.

    Raises:
        UserError: it names anything else.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    try:
        with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{path} is not what DeepSpeed saves: it would build {named[1] if named else 'something else than tensors'}; "
            "nothing of it was run, remove this checkpoint to resume from the one before"
        ) from error


def hashes(folder: Path) -> dict[str, str]:
    """{file name: sha256} of everything in a folder."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def forget_buffers(rank: int) -> None:
    """Takes DeepSpeed's all-reduce buffer (CPU) off the list of shared memory, where it would outlive the run.

    Every rank has mapped all of them by now, so only the names go, and the memory is free when the ranks end.
    """
    dist.barrier()
    here = f"{os.environ.get('MASTER_ADDR')}_{os.environ.get('MASTER_PORT')}_{rank}"
    for file in SHARED_MEMORY.glob(f"deepspeed_allreduce_buffer_{os.getuid()}_{here}"):
        file.unlink()
