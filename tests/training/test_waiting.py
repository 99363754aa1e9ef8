"""Rollouts that wait: sampled and measured by the policy of N rollouts before, learnt from as its own, the same after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from lco.config import dump
from lco.errors import UserError
from lco.heads import FixedHead, LinearHead
from lco.rollout.records import Row, TopTokens, collate
from lco.rollout.transformers import TransformersSampler
from lco.stopping import Stopped
from lco.training.collector import Collector
from lco.training.learner import Learner
from lco.training.once_per_rollout import measure_behaviour
from lco.training.resolve import resolve
from lco.training.saved_rollouts import load_rollouts, save_rollouts
from lco.training.state import Behaviour, Rollout, VerifiedRow
from lco.verifier import Verdict
from tests.conftest import lines, small, train, weights, without_time
from tests.training.test_resume import wait_for_rollouts

METHODS = ["lco_kld", "lco_mse", "ppo", "grpo", "cppo", "oblr_po"]
"""The whole of π_old, a critic, statistics of π_old, what the sampler recorded, norms of rows."""


def tensors(behaviour):
    """Everything that was measured, by name."""
    found = {**behaviour.statistics, "logprob": behaviour.logprob}
    found |= {"norms": behaviour.row_norms} if behaviour.row_norms is not None else {}
    for row, one in behaviour.snapshots.items():
        found |= {f"{row}/hidden": one.hidden, f"{row}/head": one.head.weight}
    return found


def alike(a, b):
    a, b = tensors(a), tensors(b)
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_rollout_is_learnt_from_as_the_one_of_the_policy_that_sampled_it(tmp_path, monkeypatch, method):
    """Measured again with the weights of its sampling it is the same to the bit, with the current ones it is not."""
    draw, learn, sampled, current, ages = Collector.draw, Learner.learn, {}, [], []

    def weights_of(policy):
        return {name: value.clone() for name, value in policy.state_dict().items()}

    def remember_weights(collector, step, clock):
        sampled[step] = weights_of(collector.ranks.policy)
        return draw(collector, step, clock)

    def check(learner, rollout, clock):
        policy = learner.policies.engine.policy
        current.append(weights_of(policy))
        ages.append(rollout.metrics["policy_age"])
        if rollout.behaviour is not None:
            rows = learner.rows_to_update_on(rollout)
            batch, plan = collate([row.row for row in rollout.compared]), learner.plan_updates(rollout.step, rows)
            found = measure_behaviour(learner.policies, learner.objective, batch, plan, waits=True)
            assert not alike(found, rollout.behaviour)
            policy.load_state_dict(sampled[rollout.step])
            found = measure_behaviour(learner.policies, learner.objective, batch, plan, waits=True)
            assert alike(found, rollout.behaviour)
            policy.load_state_dict(current[-1])
        return learn(learner, rollout, clock)

    monkeypatch.setattr(Collector, "draw", remember_weights)
    monkeypatch.setattr(Learner, "learn", check)
    folder = train(small(tmp_path / "run", method=method, staleness=2, steps=5, eval_every=0))
    assert ages == [0, 1, 2, 2, 2]
    assert [line["policy_version"] for line in lines(folder)] == [0, 0, 0, 1, 2]
    assert sorted(sampled) == list(range(5))  # none beyond the last
    for step, was in sampled.items():
        of = current[max(0, step - 2)]
        assert all(torch.equal(value, of[name]) for name, value in was.items())


def test_the_first_update_of_a_rollout_that_waited_is_off_policy(tmp_path):
    """One update a rollout: without staleness its ratios are 1, and the policy is the sampler's."""
    now, late = (
        lines(
            train(small(tmp_path / str(n), method="grpo", staleness=n, minibatches=1, steps=3, lr=5e-3, eval_every=0))
        )
        for n in (0, 1)
    )
    assert now[2]["kl_old"] < 1e-9 < 1e-4 < late[2]["kl_old"]
    assert now[2]["clip_high"] + now[2]["clip_low"] == 0 < late[2]["clip_high"] + late[2]["clip_low"]
    # Nothing of the drift is taken for a sampler that computes something else.
    assert late[2]["sampler_gap_max"] < 1e-4


def test_without_staleness_nothing_is_measured_early_and_the_first_rollout_is_the_same(tmp_path, monkeypatch):
    waits = lines(train(small(tmp_path / "waits", staleness=1, eval_every=0)))
    monkeypatch.delattr(Learner, "measure")
    plain = lines(train(small(tmp_path / "plain", eval_every=0)))
    assert not any("policy" in name for line in plain for name in line)
    first = {name: value for name, value in without_time(waits[0]).items() if "policy" not in name}
    assert first == without_time(plain[0])
    assert waits[2]["loss"] != plain[2]["loss"]


def test_a_sampler_with_other_weights_is_seen_in_a_rollout_that_waited(tmp_path, monkeypatch):
    """The comparison is with the trainer at the time of the sampling: here the trainer moves on and the sampler does not."""
    sample = TransformersSampler.sample

    def wrong(sampler, prompts, sampling, seed, on_rows=None):
        def shifted(rows):
            on_rows([dataclasses.replace(row, logprobs=tuple(x - 0.5 for x in row.logprobs)) for row in rows])

        return sample(sampler, prompts, sampling, seed, on_rows and shifted)

    monkeypatch.setattr(TransformersSampler, "sample", wrong)
    with pytest.raises(UserError, match=r"sampler and trainer differ by 0\.5 per token"):
        train(small(tmp_path / "run", method="grpo", staleness=2, eval_every=0))


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("lco_kld", {"reward": {"random": 1.0}, "staleness": 9}),
        ("ppo", {"critic": "separate", "critic_lr": 1e-3}),
        ("cppo", {"reward": {"verifier": 1.0, "format": 0.1}}),
        pytest.param("lco_mse", {}, marks=LONG),
        pytest.param("reinforce", {"hyper": {"baseline": "running_mean"}}, marks=LONG),
        pytest.param("oblr_po", {}, marks=LONG),
        pytest.param("dapo", {"hyper": {"refill_rounds": 2}}, marks=LONG),
    ],
)
def test_what_waits_survives_a_stop(tmp_path, method, changes):
    """Bit for bit: weights, metrics and samples; what waits is read from the checkpoint and sampled no second time."""

    def stop(metrics):
        if metrics["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    settings = {"method": method, "staleness": 2, "steps": 5, "eval_every": 0, **changes}
    whole = train(small(tmp_path / "whole", **settings))
    part = small(tmp_path / "part", **settings)
    with pytest.raises(Stopped):
        train(part, on_step=stop)
    waiting = json.loads((part.folder / "checkpoints" / "step-000002" / "waiting.json").read_text())
    assert [rollout["step"] for rollout in waiting] == ([2, 3] if part.staleness == 2 else [2, 3, 4])
    train(part, resume=True)
    assert [without_time(x) for x in lines(part.folder)] == [without_time(x) for x in lines(whole)]
    assert lines(part.folder, "samples.jsonl") == lines(whole, "samples.jsonl")
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(part.folder)[key]), key


def test_what_waits_survives_a_kill(tmp_path):
    run = small(tmp_path / "run", staleness=3, steps=6, save_every=1, eval_every=0)
    file = tmp_path / "run.json"
    file.write_text(dump(run))
    command = [sys.executable, "-m", "lco.cli", "train", "--config", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for_rollouts(run.folder, 2, process)
        process.kill()
        process.wait(timeout=60)
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole = train(dataclasses.replace(run, out=str(tmp_path / "whole")))
    assert [without_time(x) for x in lines(run.folder)] == [without_time(x) for x in lines(whole)]
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(run.folder)[key]), key


@pytest.mark.long
def test_rollouts_of_vllm_wait_too_and_survive_a_kill(tmp_path):
    """vLLM does not repeat a rollout: after the resume it is the saved rows, with vLLM's own numbers, that are learnt from."""
    vllm = {"rollouts": "vllm", "vllm_cache_gib": 0.1, "method": "cppo", "staleness": 2}
    run = small(tmp_path / "run", steps=5, save_every=1, eval_every=0, **vllm)
    file = tmp_path / "run.json"
    file.write_text(dump(run))
    command = [sys.executable, "-m", "lco.cli", "train", "--config", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for_rollouts(run.folder, 2, process)
        process.kill()
        process.wait(timeout=60)
    before = lines(run.folder)
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = lines(run.folder)
    assert [without_time(x) for x in found[: len(before)]] == [without_time(x) for x in before]
    assert [(line["policy_version"], line["policy_age"]) for line in found] == [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]
    assert all(line["sampler_gap_max"] < 1e-4 for line in found)
    assert all(line["kl_old"] > 1e-6 for line in found)


def test_a_checkpoint_without_what_waits_is_passed_over(tmp_path, capsys):
    def stop(metrics):
        if metrics["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    run = small(tmp_path / "run", staleness=1, save_every=1, steps=4, eval_every=0)
    with pytest.raises(Stopped):
        train(run, on_step=stop)
    (run.folder / "checkpoints" / "step-000002" / "waiting.safetensors").unlink()
    train(run, resume=True)
    assert "checkpoint step-000002 lacks waiting.safetensors; it is passed over" in capsys.readouterr().err


def test_a_run_whose_rollouts_wait_cannot_become_longer(tmp_path):
    run = small(tmp_path / "run", staleness=1, steps=2, eval_every=0)
    train(run)
    with pytest.raises(UserError, match="steps was 2 and is now 3, but staleness is 1, so rollouts beyond"):
        train(dataclasses.replace(run, steps=3), resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"staleness": -1}, "staleness is -1; the least allowed value is 0"),
        (
            {"method": "dpo"},
            "staleness is 2, but dpo learns from pairs, which are the same whatever the policy is; give 0",
        ),
        ({"method": "sage"}, "staleness is 2, but sage learns from pairs"),
        ({"method": "sft"}, "staleness is 2, but sft learns from demonstrations"),
        ({"engine": "deepspeed"}, "staleness is 2, but with --engine deepspeed .*; give --engine torch, or 0"),
    ],
)
def test_rollouts_that_cannot_wait_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        resolve(small(tmp_path / "run", **{"staleness": 2, "eval_every": 0, **changes}))


def test_every_kind_of_row_and_measurement_is_read_back_as_it_was(tmp_path, monkeypatch):
    """Cut, empty and unrewarded rows; a sampler's numbers that float32 does not hold; a head with a bias; no update at all."""
    kept = []

    def stop(collector, step, clock):
        kept.append(collector)
        raise RuntimeError("loaded")

    monkeypatch.setattr(Collector, "draw", stop)
    with pytest.raises(RuntimeError, match="loaded"):
        train(small(tmp_path / "run", eval_every=0, temperature=0.7))
    (collector,) = kept
    first, second = collector.prompts[3], collector.prompts[7]
    top = TopTokens(torch.tensor([[3, 1], [4, 2]], dtype=torch.int32), torch.tensor([[-0.1, -2.0], [-0.5, -1.0]]))
    nothing = TopTokens(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0, 2))
    right, lost = Verdict(True, "7", "equal", 0.25), Verdict(False, None, "lost", 0.0)

    def row(prompt, response, logprobs, likeliest, verdict, **more):
        sampled = Row(f"{prompt.problem.id}#0", prompt.ids, response, "length", logprobs, likeliest, 3)
        return VerifiedRow(sampled, prompt.problem, verdict, collector.decode(response), **more)

    rows = [
        row(first, (5, 6), (-1 / 3, -1e-300), top, right, parts={"verifier": 1.0, "mine": 1 / 7}),
        row(first, (), (), nothing, lost, parts={"verifier": float("nan"), "mine": 0.0}),
        row(second, (9, 8), (-0.1, -0.2), top, right, parts={"verifier": 0.0, "mine": 0.5}, dealt=0.5),
    ]
    compared = [rows[0], rows[2]]
    collector.history += [0.1, 0.2]
    signal_ = collector.signal_of(compared)
    head = LinearHead(torch.randn(11, 4), torch.randn(11), 0.7)
    behaviour = Behaviour(
        {"old_logprob": torch.randn(2, 2), "value": torch.randn(2, 2)},
        {1: FixedHead(torch.randn(2, 4), head)},
        torch.randn(2, dtype=torch.float64),
        torch.randn(2, 2),
    )
    full = Rollout(4, rows, compared, signal_, {"accuracy": 2 / 3, "truncated": None}, behaviour)
    bare = Rollout(5, [rows[1]], [], None, {"rows": 1})
    save_rollouts(tmp_path, [full, bare], collector)
    collector.history.clear()
    again, empty = load_rollouts(tmp_path, collector)
    assert repr(again.rows) == repr(rows)  # NaN is not equal to itself
    assert again.rows[0] == rows[0]
    assert again.compared == compared
    assert (again.step, again.metrics, again.signal.reward_history) == (4, full.metrics, (0.1, 0.2))
    assert torch.equal(again.signal.rewards, signal_.rewards)
    assert alike(again.behaviour, behaviour)
    found = again.behaviour.snapshots[1].head
    assert (found.temperature, torch.equal(found.bias, head.bias)) == (0.7, True)
    assert (empty.compared, empty.signal, empty.behaviour) == ([], None, None)
    save_rollouts(tmp_path, [], collector)
    assert list(load_rollouts(tmp_path, collector)) == []
