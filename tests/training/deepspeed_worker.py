"""One rank: DeepSpeedEngine against TorchEngine on the same rows. Started by test_deepspeed.py under the launcher.

    deepspeed_worker.py OUT.json FOLDER CASE [CASE …]    a case is stage-head-request[-extra…], e.g. 3-untied-token-critic

Rank 0 writes what each case found: for every optimizer step the largest deviation of a parameter (`off`), all deviations
relative to all changes since the start (`drift`), of statistics the largest deviation, then gradient norms, learning
rates and losses (plain torch first, DeepSpeed second).

Extras: a loss of LOSSES; one of REDUCTIONS; bf16; critic; bucket (smaller than a tensor); nan (a loss that is not finite in
the second step); resume (save, spoil, load, and step again); sample (rollouts with the weights of all ranks between the steps).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from lco.config import REDUCTIONS, Experiment
from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest
from lco.losses import token_scale
from lco.methods import METHODS
from lco.policy import PolicyModel, RowLoss, Snapshot, Statistics, TokenLoss
from lco.rollout.records import Row, Sampling, collate, select
from lco.rollout.transformers import TransformersSampler
from lco.training import deepspeed
from lco.training.deepspeed import DeepSpeedEngine
from lco.training.engine import TorchEngine
from tests.conftest import tiny_model

STEPS = 3
LENGTHS = [(3, 9), (7, 1), (2, 14), (5, 0), (4, 3), (6, 6), (2, 2), (9, 11)]
MICRO_BATCHES = [[0, 1, 2], [3], [4, 5], [6, 7]]
"""Unequal in rows and tokens, one of them without a token; rank r of w takes [r::w]."""


def rows():
    """Rows of very unequal lengths, one with an empty response."""
    g = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 64, (p + r,), generator=g).tolist() for p, r in LENGTHS]
    return [Row("x", tuple(i[:p]), tuple(i[p:]), "stop", ()) for i, (p, _) in zip(ids, LENGTHS, strict=True)]


LOSSES = {
    "mse": ("lco_mse", {}),
    "lch": ("lco_lch", {}),
    "verifier": ("lco_kld", {"estimator": "logprob"}),
    "ratio": ("lco_mse", {"estimator": "dpo_ratio", "target_space": "weighted"}),
    "released": ("lco_kld_reference", {}),
    "dapo": ("dapo", {}),
    "logprob": ("lco_mse", {"target_space": "logprob"}),
    "gspo": ("gspo", {"clip_low": 0.2, "clip_high": 0.2}),
    "pmd": ("pmd_mean", {"tau": 0.1}),
}
"""Extras that choose another loss than LCO-KLD's."""


def chosen(extras):
    """The objective that is compared."""
    name, hyper = next((LOSSES[extra] for extra in extras if extra in LOSSES), ("lco_kld", {}))
    # β = 1: a weak tilt makes gradients that AdamW's division by √v lifts out of float32's noise.
    strong = {"beta": 1.0} if "estimator" in METHODS[name].hyperparameters else {}
    own = METHODS[name].with_reduction(next((extra for extra in extras if extra in REDUCTIONS), ""))
    return own.bind({**strong, **hyper})


def request(kind, whole, part, old, extras, fixed, known):
    """A loss of `part`'s rows, its scale that of all rows; `known` are log-probabilities from before the first step."""
    objective = chosen(extras)
    mask = whole.response_mask.float()
    tilt = torch.randn(mask.shape, generator=torch.Generator().manual_seed(5))
    if objective.scope == "row":  # one advantage a row
        tilt = tilt[:, :1] * mask
    inputs = {"advantage": tilt, "mask": mask, "divisor": mask.sum(1, keepdim=True) * mask}
    if known is not None:
        inputs["old_logprob"] = known
    scale = token_scale(whole.response_mask, objective.reduction, tilt, limit=20)
    target, chosen_mask = objective.target, whole.response_mask[part]
    head = HeadRequest(
        tokens=whole.response_ids[part][chosen_mask],
        statistics=objective.statistics,
        inputs={name: value[part][chosen_mask] for name, value in inputs.items()},
        scale=scale[part][chosen_mask],
        old=None if old is None or not objective.old.whole else rows_of(old, part),
        target=target,
        fixed={name: rows_of(fixed[name], part) for name in (target.fixed if target else ())},
        report=("logprob", "entropy"),
    )
    value = (lambda values, inputs: (values - inputs["advantage"]).square()) if "critic" in extras else None
    return kind(objective.loss, head, value)


def rows_of(policy, rows):
    """A snapshot of all rows at the tokens of some."""
    return FixedHead(torch.cat([policy.hidden[row] for row in rows]), policy.head)


class Side:
    """One of the two engines that are compared, and where it stands."""

    def __init__(self, engine, kind, extras):
        self.engine, self.kind, self.extras = engine, kind, extras
        self.whole, self.old, self.known = collate(rows()), None, None
        # Policies that never learn are plain modules on every rank, with their own heads.
        self.fixed = {
            name: PolicyModel(tiny_model("qwen", seed=20 + i))(self.whole, Snapshot())
            for i, name in enumerate(("verifier", "dpo", "reference"))
        }
        self.sampler = TransformersSampler(engine.policy.model, any_rank=getattr(engine, "any", None))

    def step(self, number):
        """(what the step did, loss over all ranks); after the first step the old policy is the one before it."""
        engine = self.engine
        if number == 0:
            with torch.no_grad():
                self.old = engine.forward(self.whole, Snapshot())
                known = engine.forward(self.whole, Statistics(["logprob"]))["logprob"]
        mine = MICRO_BATCHES[engine.rank :: engine.world]
        total = 0.0
        for i, part in enumerate(mine):
            old, scalars = (self.old, self.known) if number else (None, None)
            asked = request(self.kind, self.whole, part, old, self.extras, self.fixed, scalars)
            loss = engine.forward(select(self.whole, part), asked).loss
            total += float(loss.detach())
            if "nan" in self.extras and number == 1 and engine.rank == 0 and i == 0:
                loss = loss * float("nan")
            engine.backward(loss, last=i == len(mine) - 1)
        if number == 0:
            self.known = known
        return engine.step(), sum(engine.gather(total))

    def statistics(self):
        names = ["logprob", "entropy", *(["value"] if "critic" in self.extras else [])]
        with torch.no_grad():
            return self.engine.forward(self.whole, Statistics(names))

    def sample(self):
        """Rows of other lengths, so other numbers of forwards, on every rank."""
        rank = self.engine.rank
        prompts = [(str(i), (3 + i, 4, 5)) for i in range(1 + rank)]
        sampling = Sampling(1.0, 1.0, 0, 5 + 6 * rank, 2, (2,))
        return self.sampler.sample(prompts, sampling, seed=rank)


def build(experiment, tied, critic):
    model = tiny_model("qwen", tied).to(getattr(torch, experiment.dtype))
    return PolicyModel(model, critic=critic)


def difference(found, expected):
    return max(float((found[name].float() - expected[name].float()).abs().max()) for name in expected)


def total(found, expected):
    return sum(float((found[name].float() - expected[name].float()).abs().sum()) for name in expected)


def run_case(case, folder):
    stage, head, scope, *extras = case.split("-")
    experiment = Experiment(
        model="x", engine="deepspeed", zero_stage=int(stage), lr=1e-3, critic_lr=3e-3, warmup_updates=1, clip_norm=0.5,
        weight_decay=0.01, device="cpu", dtype="bfloat16" if "bf16" in extras else "float32",
    )  # fmt: skip
    # 1000 elements: the embedding and the head are larger, most others share a bucket with their neighbours.
    deepspeed.BUCKET = 1000 if "bucket" in extras else 50_000_000
    kind, parts = {"token": TokenLoss, "row": RowLoss}[scope], (experiment, head == "tied", "critic" in extras)
    plain = Side(TorchEngine(build(*parts), experiment), kind, extras)
    spread = Side(DeepSpeedEngine(build(*parts), experiment), kind, extras)
    start = {name: weight.clone() for name, weight in plain.engine.named_weights()}
    record = []
    for number in range(STEPS):
        if "sample" in extras:
            spread.sample()
        expected, loss = plain.step(number)
        got, got_loss = spread.step(number)
        reference, weights = dict(plain.engine.named_weights()), dict(spread.engine.named_weights())
        assert weights.keys() == reference.keys(), "names of weights"
        record.append(
            {
                "off": difference(weights, reference),
                "drift": total(weights, reference) / total(reference, start),
                "statistics": difference(spread.statistics(), plain.statistics()),
                "norm": [expected.gradient_norm, got.gradient_norm],
                "lr": [expected.lr, got.lr],
                "applied": [expected.applied, got.applied],
                "loss": [loss, got_loss],
            }
        )
    found = {"steps": record}
    if "resume" in extras:
        found |= resume(spread, experiment, head == "tied", folder / case)
    return found, spread.engine


def resume(side, experiment, tied, folder):
    """Continues from a saved state in a fresh engine with other weights; then spoils a file."""
    engine = side.engine
    if engine.rank == 0:
        folder.mkdir(parents=True)
    engine.gather(None)
    engine.save(folder)
    side.step(STEPS)
    expected = {name: weight.clone() for name, weight in engine.named_weights()}
    other_weights = PolicyModel(tiny_model("qwen", tied, seed=9).to(getattr(torch, experiment.dtype)))
    fresh = DeepSpeedEngine(other_weights, experiment)
    fresh.load(folder)
    other = Side(fresh, side.kind, side.extras)
    other.old, other.known = side.old, side.known
    other.step(STEPS)
    off = difference(dict(fresh.named_weights()), expected)
    engine.gather(None)
    if engine.rank == 0:
        with next((folder / "deepspeed").glob("*optim_states.pt")).open("ab") as file:
            file.write(b"x")
    engine.gather(None)
    try:
        fresh.load(folder)
        refusal = ""
    except UserError as error:
        refusal = str(error)
    return {"resumed_off": off, "refusal": refusal}


def main():
    out, folder, cases = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    found = {}
    for case in cases:
        found[case], engine = run_case(case, folder)
        if engine.rank == 0:
            print(case, json.dumps(found[case]), flush=True)
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
