"""One rank of the DeepSpeed tests: optimizer steps on unequal micro-batches, the result saved by rank 0.

    python -m torch.distributed.run --nproc-per-node 2 tests/training/ranks.py OUT CASES_JSON

With one process and `engine` "torch" it is the reference that the others must equal.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from lco.config import Experiment
from lco.losses import token_scale
from lco.methods import METHODS
from lco.policy import PolicyModel, RowLoss, Snapshot, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.engine import TorchEngine
from lco.training.loop import select
from lco.training.plan import micro_batches
from tests.conftest import tiny_model


def rows(count=7):
    g = torch.Generator().manual_seed(3)
    lengths = [6, 1, 0, 4, 9, 2, 3][:count]
    return [
        Row(str(i), tuple(torch.randint(3, 64, (3 + i % 3,), generator=g).tolist()),
            tuple(torch.randint(3, 64, (n,), generator=g).tolist()), "stop", ())
        for i, n in enumerate(lengths)
    ]  # fmt: skip


def steps(engine, method, scope, updates=2):
    """`updates` optimizer steps of the same minibatch; the second one is off-policy. Returns gradient norms."""
    batch, all_rows, knobs = collate(rows()), list(range(7)), METHODS[method].hyper()
    advantage = torch.linspace(-1, 1, 7)[:, None] * batch.response_mask
    inputs = {"advantage": advantage, "tilt": advantage / 2}
    scale = token_scale(batch.response_mask, METHODS[method].reduction)
    parts = list(micro_batches(all_rows, 2, engine.rank, engine.world))
    with torch.no_grad():
        kept = [engine.forward(select(batch, part.rows), Snapshot()).snapshot for part in parts]
    norms = []
    for update in range(updates):
        for number, part in enumerate(parts):
            cut = select(batch, part.rows)
            width, index = cut.response_mask.shape[1], list(part.rows)
            request = (TokenLoss if scope == "token" else RowLoss)(
                METHODS[method].loss(knobs), METHODS[method].statistics(knobs),
                {name: value[index, :width] for name, value in inputs.items()},
                scale[index, :width] * part.real, kept[number] if update else None, ("logprob",),
            )  # fmt: skip
            engine.backward(engine.forward(cut, request).loss, last=number == len(parts) - 1)
        norms.append(engine.step().gradient_norm)
    return norms


def main():
    out, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    for case in cases:
        experiment = Experiment(
            model="tiny", engine=case["engine"], zero_stage=case["stage"], lr=1e-2, clip_norm=0.5, device="cpu",
            dtype="float32",
        )  # fmt: skip
        policy = PolicyModel(tiny_model(case["kind"], case["tied"]))
        if case["engine"] == "torch":
            engine = TorchEngine(policy, dataclasses.replace(experiment))
        else:
            from lco.training.deepspeed import DeepSpeedEngine

            engine = DeepSpeedEngine(policy, experiment)
        norms = steps(engine, case["method"], case["scope"])
        weights = {name: tensor.clone() for name, tensor in engine.named_weights()}
        if engine.rank == 0:
            save_file(weights, out / f"{case['name']}.safetensors")
            (out / f"{case['name']}.json").write_text(json.dumps(norms))


if __name__ == "__main__":
    main()
