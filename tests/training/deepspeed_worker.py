"""One rank: steps of DeepSpeedEngine against TorchEngine on the same rows. Started by test_deepspeed.py.

    deepspeed_worker.py OUT.json CASE [CASE …]      a case is stage-head-request, e.g. 2-tied-token

Rank 0 writes, per case, the largest deviation of a parameter after each step relative to the largest update, and the
gradient norms.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from lco.config import Experiment
from lco.methods import METHODS
from lco.policy import PolicyModel, RowLoss, Snapshot, Statistics, TokenLoss
from lco.rollout.records import Row, collate
from lco.training.deepspeed import DeepSpeedEngine
from lco.training.engine import TorchEngine
from lco.training.loop import select
from tests.conftest import tiny_model

STEPS = 3


def batch(step):
    """Rows of very unequal lengths, one of them empty."""
    g = torch.Generator().manual_seed(step)
    rows = []
    for i, (prompt, response) in enumerate([(3, 9), (7, 1), (2, 14), (5, 0), (4, 3), (6, 6), (2, 2), (9, 11)]):
        ids = torch.randint(3, 64, (prompt + response,), generator=g).tolist()
        rows.append(Row(str(i // 4), tuple(ids[:prompt]), tuple(ids[prompt:]), "stop", ()))
    return collate(rows)


def parts(rank, world):
    """This rank's micro-batches: unequal in rows and tokens, equal in number."""
    everything = [[0, 1, 2], [3], [4, 5], [6, 7]]
    return everything[rank::world]


def request(kind, whole, rows, old):
    method = METHODS["lco_kld"]
    g = torch.Generator().manual_seed(5)
    tilt = torch.randn(whole.response_mask.shape, generator=g)
    part = select(whole, rows)
    width = part.response_mask.shape[1]
    scale = whole.response_mask / whole.response_mask.sum()
    knobs = method.hyper()
    return part, kind(
        method.loss(knobs), method.statistics(knobs), {"tilt": tilt[rows, :width], "advantage": tilt[rows, :width]},
        scale[rows, :width], None if old is None else old.rows(rows), ("logprob", "entropy"),
    )  # fmt: skip


def steps(engine, kind, rank, world, poison=False):
    """STEPS optimizer steps; the second and third against the policy before the first. Yields (step, loss)."""
    for number in range(STEPS):
        whole = batch(0)
        if number == 0:
            with torch.no_grad():
                old = engine.forward(whole, Snapshot()).snapshot
        mine = parts(rank, world)
        total = 0.0
        for i, rows in enumerate(mine):
            part, asked = request(kind, whole, rows, old if number else None)
            answer = engine.forward(part, asked)
            loss = answer.loss * float("nan") if poison and number == 1 and i == 0 and rank == 0 else answer.loss
            engine.backward(loss, last=i == len(mine) - 1)
            total += float(answer.loss.detach())
        yield engine.step(), sum(engine.gather(total))


def main():
    out, cases = Path(sys.argv[1]), [a for a in sys.argv[2:] if not a.startswith("--")]
    found = {}
    for case in cases:
        stage, head, scope, *rest = case.split("-")
        dtype = "bfloat16" if "bf16" in rest else "float32"
        critic = "critic" in rest
        experiment = Experiment(
            model="x", engine="deepspeed", zero_stage=int(stage), lr=1e-2, critic_lr=3e-2, warmup_updates=1,
            clip_norm=0.5, weight_decay=0.01, device="cpu", dtype=dtype,
        )  # fmt: skip
        kind = {"token": TokenLoss, "row": RowLoss}[scope]
        tied = head == "tied"

        def policy():
            return PolicyModel(tiny_model("qwen", tied).to(getattr(torch, dtype)), critic=critic)

        plain = TorchEngine(policy(), experiment)
        engine = DeepSpeedEngine(policy(), experiment)
        start = {n: w.clone() for n, w in plain.named_weights()}
        record = []
        pairs = zip(
            steps(plain, kind, 0, 1, "nan" in rest), steps(engine, kind, engine.rank, engine.world, "nan" in rest),
            strict=True,
        )  # fmt: skip
        for (expected, loss), (got, got_loss) in pairs:
            weights = dict(engine.named_weights())
            reference = dict(plain.named_weights())
            moved = max(float((reference[n] - start[n]).abs().max()) for n in start)
            off = max(float((weights[n].float() - reference[n].float()).abs().max()) for n in start)
            record.append(
                {"off": off, "moved": moved, "names": sorted(weights) == sorted(reference),
                 "norm": [expected.gradient_norm, got.gradient_norm], "lr": [expected.lr, got.lr],
                 "applied": [expected.applied, got.applied], "loss": [loss, got_loss]}
            )  # fmt: skip
        found[case] = record
        if engine.rank == 0:
            print(case, json.dumps(record), flush=True)
    if engine.rank == 0:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
