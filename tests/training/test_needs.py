"""What a method may ask of the loop: filters and refill, a pass over the minibatch, critics, KL in the reward, history."""

import dataclasses
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file

from lco.methods import METHODS
from lco.methods.method import Prepare
from lco.methods.objective import Prepared
from lco.training.collector import Collector
from lco.verifier import Verdict
from tests.conftest import START, lines, small, train, weights, without_time


def test_a_method_may_read_its_whole_minibatch_before_its_first_micro_batch(tmp_path, monkeypatch, capsys):
    """`prepare` sees the statistics of all rows of the minibatch, under the policy of that moment."""
    base, found = METHODS["reinforce"], []

    def mean_logprob(statistics, inputs, mask, hyper):
        mean = statistics["logprob"][mask].mean()
        found.append((int(mask.any(1).sum()), float(mean)))
        return Prepared({"mean": mean.expand(mask.shape) * mask}, {"mean_logprob": float(mean)}, {"seen": "was seen"})

    def loss(hyper):
        return lambda s, x: -x["advantage"] * (s["logprob"] - x["mean"])

    mine = dataclasses.replace(base, name="mine", loss=loss, prepare=Prepare(("logprob",), mean_logprob))
    monkeypatch.setitem(METHODS, "mine", mine)
    # Micro-batches of 5 rows, minibatches of 8; the second update's policy is another one.
    line = lines(train(small(tmp_path / "run", method="mine", steps=1, eval_every=0)))[0]
    assert [rows for rows, _ in found] == [8, 8]
    assert line["updates"] == 2
    assert line["mean_logprob"] == pytest.approx(sum(mean for _, mean in found) / 2)
    assert line["seen"] == 2
    assert capsys.readouterr().err.count("mine: was seen") == 1
    plain = lines(train(small(tmp_path / "plain", method="reinforce", steps=1, eval_every=0)))[0]
    assert line["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-5)  # a constant changes no gradient


def test_degenerate_groups_are_left_out_and_others_drawn_in_their_place(tmp_path):
    run = small(tmp_path / "filter", method="dapo", steps=2, eval_every=0, samples=2, prompts_per_step=8)
    for line in lines(train(run)):
        degenerate = line["degenerate_all_right"] + line["degenerate_all_wrong"]
        assert line["rows_kept"] == round(line["rows"] * (1 - degenerate))
        assert 0 < line["rows_kept"] < line["rows"] == 16
    filled = dataclasses.replace(run, out=str(tmp_path / "refill"), hyper={"refill_rounds": 10})
    for line in lines(train(filled)):
        assert line["rows_kept"] == 16 or line["refill_exhausted"]
        assert line["rows"] == 2 * line["prompts_drawn"] > 16
        assert line["generation_multiplier"] > 1
        assert line["refill_rounds"] >= 1


def test_a_rollout_without_any_signal_is_skipped(tmp_path):
    """One token is never enough for an answer, so every group is all wrong."""
    run = small(tmp_path / "run", method="dapo", steps=2, eval_every=0, max_new_tokens=1, hyper={"refill_rounds": 2})
    for line in lines(train(run)):
        assert (line["updates"], line["refill_rounds"], line["refill_exhausted"]) == (0, 2, True)
        assert "skipped" in line
    start = load_file(START / "llama" / "model.safetensors")
    assert all(torch.equal(value, start[name]) for name, value in weights(tmp_path / "run").items() if name in start)


def test_rows_without_a_reward_are_dropped_and_counted(tmp_path, monkeypatch):
    """Every third verdict is no number: its group stays finite, and the run says how many there were."""
    verified = Collector.verify_rows

    def sometimes(collector, rows, problems):
        found = verified(collector, rows, problems)
        nothing = Verdict(float("nan"), None, "lost", 0.0)
        return [dataclasses.replace(j, verdict=nothing) if i % 3 == 0 else j for i, j in enumerate(found)]

    monkeypatch.setattr(Collector, "verify_rows", sometimes)
    for line in lines(train(small(tmp_path / "run", method="grpo", steps=2, eval_every=0))):
        assert line["rewards_not_finite"] == 6
        assert line["rows"] == 16
        assert line["rows_kept"] == 10
        assert line["updates"] == 2
        assert line["gradient_norm"] >= 0


def test_rewards_are_computed_while_the_next_rows_are_generated(tmp_path, monkeypatch):
    """The first part's verdicts are in before the second part is sampled; the rows stay in order."""

    import lco.rollout.transformers as transformers

    verified, generated, happened = Collector.verify_rows, transformers.TransformersSampler._sample, []
    finished = threading.Event()

    def judge(collector, rows, problems):
        found = verified(collector, rows, problems)
        happened.append("judged")
        finished.set()
        return found

    def sample(self, *arguments):
        if "judged" in happened:  # the second part: the first one's verdicts come without its help
            assert finished.wait(timeout=30)
        happened.append("sampled")
        return generated(self, *arguments)

    whole = lines(train(small(tmp_path / "whole", steps=1, eval_every=0)))
    monkeypatch.setattr(transformers.TransformersSampler.__init__, "__defaults__", (8, None, None))
    monkeypatch.setattr(Collector, "verify_rows", judge)
    monkeypatch.setattr(transformers.TransformersSampler, "_sample", sample)
    folder = train(small(tmp_path / "parts", steps=1, eval_every=0))
    # Before the first rollout a few tokens are sampled, to compare sampler and trainer.
    assert happened == ["sampled", "sampled", "judged", "sampled", "judged"]
    assert lines(folder)[0]["rows"] == whole[0]["rows"]
    answers = [(x["question"], x["answer"]) for x in lines(folder, "samples.jsonl")]
    assert answers == [(x["question"], x["answer"]) for x in lines(tmp_path / "whole", "samples.jsonl")]


def test_a_critic_may_be_a_model_of_its_own_and_resumes(tmp_path):
    run = small(tmp_path / "run", method="ppo", critic="separate", critic_lr=1e-3, save_every=1, steps=2, eval_every=0)
    folder = train(run)
    assert lines(folder)[1]["explained_variance"] is not None
    assert (folder / "checkpoints" / "step-000001" / "critic" / "model.safetensors").exists()
    saved = load_file(folder / "checkpoints" / "step-000002" / "critic" / "model.safetensors")
    start = load_file(START / "llama" / "model.safetensors")
    body = next(name for name in start if "layers.0" in name)
    assert not torch.equal(saved["model." + body], start[body])  # its body learns too
    shutil.rmtree(folder / "checkpoints" / "step-000002")
    shutil.rmtree(folder / "checkpoints" / "final")
    whole = lines(folder)
    train(run, resume=True)
    assert [without_time(x) for x in lines(folder)] == [without_time(x) for x in whole]
    again = load_file(folder / "checkpoints" / "step-000002" / "critic" / "model.safetensors")
    assert all(torch.equal(again[name], saved[name]) for name in saved)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_critic_warms_up_while_the_policy_stays(tmp_path, critic):
    hyper = {"critic_warmup": 2}
    run = small(
        tmp_path / "run", method="ppo", critic=critic, critic_lr=1e-2, steps=3, save_every=2, eval_every=0, hyper=hyper
    )
    folder = train(run)
    first, second, third = lines(folder)
    assert (first["updates"], first["critic_updates"], third["updates"]) == (0, 2, 2)
    assert second["critic_gradient_norm"] > 0
    critics = folder / "checkpoints" / "step-000002" / ("critic" if critic == "separate" else ".")
    assert load_file(critics / "model.safetensors")["value_head.weight"].any()  # it begins at 0
    saved = load_file(folder / "checkpoints" / "step-000002" / "model.safetensors")
    start = load_file(START / "llama" / "model.safetensors")
    assert all(torch.equal(saved["model." + name], value) for name, value in start.items())


def test_a_running_baseline_survives_a_resume(tmp_path):
    run = small(tmp_path / "run", method="reinforce", hyper={"baseline": "running_mean"}, save_every=1, eval_every=0)
    folder = train(run)
    whole = lines(folder)
    shutil.rmtree(folder / "checkpoints" / "final")
    shutil.rmtree(folder / "checkpoints" / "step-000003")
    train(run, resume=True)
    assert [without_time(x) for x in lines(folder)] == [without_time(x) for x in whole]


def test_a_kl_to_the_reference_inside_the_reward_is_zero_where_both_are_the_same(tmp_path):
    """In the first rollout the policy is the reference, so the penalty is exactly nothing."""
    for method in ("ppo", "rloo", "reinforce_pp"):
        runs = [
            lines(
                train(
                    small(tmp_path / f"{method}-{beta}", method=method, steps=2, eval_every=0, hyper={"beta_kl": beta})
                )
            )
            for beta in (0.0, 0.5)
        ]
        assert without_time(runs[0][0]) == without_time(runs[1][0])
        assert runs[0][1]["loss"] != runs[1][1]["loss"]
