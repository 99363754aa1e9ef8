"""Whole runs on the committed start models: what a folder holds, what is logged, what is refused."""

import json
import math
import shutil

import pytest
import torch

from lco.errors import UserError
from lco.methods import METHODS
from lco.methods.method import Method
from tests.conftest import START, lines, small, train, weights, without_time


@pytest.mark.parametrize("name", METHODS)
def test_every_method_leaves_a_whole_run(tmp_path, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Preference pairs are the reference policy's: such a run has no sampler of its own weights to validate with.
    validates = METHODS[name].source != "pairs"
    folder = train(small(tmp_path / "run", method=name, steps=2, eval_every=2 if validates else 0, diagnose_every=1))
    assert [line["step"] for line in lines(folder)] == ([0, 1, 2] if validates else [1, 2])
    last = lines(folder)[-1]
    assert last["updates"] in (0, 2)
    if validates:
        assert {"pass@1", "greedy"} <= set(last["validation"])
    assert set(last["seconds"]) >= {"update", "total"} or last["updates"] == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"]["class"] == "LlamaForCausalLM"
    assert str(START) not in (folder / "manifest.json").read_text()
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoints" / "final")
    assert AutoTokenizer.from_pretrained(folder / "checkpoints" / "final").chat_template
    start = AutoModelForCausalLM.from_pretrained(START / "llama")
    moved = any(not torch.equal(p, q) for p, q in zip(model.parameters(), start.parameters(), strict=True))
    assert moved == any(line.get("updates", 0) > 0 and line.get("gradient_norm", 0) > 0 for line in lines(folder))


def test_every_update_is_diagnosed(tmp_path):
    """What is logged of LCO's target, of the old policy, and of the gradient by sign of advantage."""
    whole = lines(train(small(tmp_path / "kld", steps=1, epochs=2, diagnose_every=1, eval_every=0)))[0]
    assert 0 < whole["target_tv"] < 0.25  # tanh(|A|/(4β)) for |A| ≤ 1 and β = 2 is 0.124
    assert whole["target_tv"] <= 0.125
    assert 0 < whole["target_kl"] <= 0.03126
    assert whole["target_kl_per_sequence"] > whole["target_kl"]
    assert 0 < math.exp(whole["logprob"]) < whole["sampled_probability"] < 1  # Jensen
    assert whole["tilt_clamped"] == 0
    # π_old is kept for the later updates, so the divergence is exact; the estimate on samples is near it.
    assert whole["kl_old_exact"] > 0
    assert whole["kl_target"] > 0
    signs = whole["hidden_gradient_positive"] ** 2 + whole["hidden_gradient_negative"] ** 2
    assert signs > 0
    # A gradient is the sum of its two signs' parts.
    assert whole["gradient_norm_positive"] + whole["gradient_norm_negative"] > 0
    assert whole["gradient_norm_projections"] > 0
    clipped = lines(train(small(tmp_path / "grpo", method="grpo", steps=1, epochs=2, eval_every=0)))[0]
    assert "kl_old_exact" not in clipped
    assert clipped["kl_old"] > 0
    reference = lines(train(small(tmp_path / "ref", method="lco_kld_reference", steps=1, eval_every=0)))[0]
    assert 0 <= reference["outside_top/5"] < 0.5


def test_lco_learns_from_a_critics_advantages(tmp_path):
    """The tilt of every token is then its own, and the critic is PPO's."""
    hyper = {"advantage": "gae"}
    line = lines(train(small(tmp_path / "run", steps=2, eval_every=0, hyper=hyper)))[-1]
    assert line["explained_variance"] is not None
    assert line["target_tv"] > 0
    assert line["gradient_norm"] > 0


def test_dense_estimators_run_from_models_that_pairs_trained(tmp_path):
    """DPO and the preference verifier learn from the start model's verified answers; LCO then reads them."""
    common = {"eval_every": 0, "minibatches": 2, "steps": 4, "samples": 8}
    dpo = train(small(tmp_path / "dpo", method="dpo", lr=3e-4, **common))
    margins = [line["margin"] for line in lines(dpo) if line["updates"]]
    assert margins[-1] > margins[0] - 1e-6
    verifier = train(small(tmp_path / "verifier", method="preference_verifier", lr=3e-4, **common))
    final = "checkpoints/final"
    ratio = small(
        tmp_path / "ratio", steps=2, eval_every=0, hyper={"estimator": "dpo_ratio"}, dpo_model=str(dpo / final)
    )  # fmt: skip
    line = lines(train(ratio))[-1]
    assert line["target_kl"] > 0
    assert line["gradient_norm"] > 0
    scored = small(
        tmp_path / "scored", steps=2, eval_every=0, method="lco_mse", hyper={"estimator": "logprob"},
        verifier_model=str(verifier / final),
    )  # fmt: skip
    line = lines(train(scored))[-1]
    assert line["target_tv"] > 0
    manifest = json.loads((tmp_path / "scored" / "manifest.json").read_text())
    assert manifest["fixed_models"]["verifier"]["name"] == "final"


def test_with_the_dpo_model_equal_to_the_reference_nothing_is_learnt(tmp_path):
    start = str(START / "llama")
    run = small(
        tmp_path / "run", steps=1, eval_every=0, minibatches=1, hyper={"estimator": "dpo_ratio"}, dpo_model=start
    )
    assert lines(train(run))[0]["gradient_norm"] < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyper": {"estimator": "logprob"}}, "name its folder or hub id with --verifier-model"),
        ({"hyper": {"estimator": "dpo_ratio"}}, "name its folder or hub id with --dpo-model"),
        ({"dpo_model": "x"}, "--dpo-model is given, but lco_kld with these hyper-parameters reads none"),
        ({"method": "dpo"}, "has no sampler of its own weights to validate with"),
        ({"hyper": {"estimator": "logprob", "support": "top_rest"}}, "knows only a tilt of the sampled token"),
        ({"hyper": {"estimator": "logprob", "dense_scale": "top_std"}}, "give dense_top=5"),
    ],
)
def test_models_and_estimators_that_do_not_go_together_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(small(tmp_path / "run", **changes))


def test_a_verifier_with_another_vocabulary_is_refused(tmp_path):
    from transformers import AutoTokenizer

    other = tmp_path / "other"
    shutil.copytree(START / "llama", other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["<judge>"])
    tokenizer.save_pretrained(other)
    with pytest.raises(UserError, match="has another vocabulary than"):
        train(small(tmp_path / "run", verifier_model=str(other), hyper={"estimator": "logprob"}))


def test_the_same_seed_repeats_and_another_differs(tmp_path):
    first, second, other = (
        train(small(tmp_path / str(i), steps=1, eval_every=0, seed=seed)) for i, seed in enumerate((0, 0, 1))
    )
    assert without_time(lines(first)[0]) == without_time(lines(second)[0])
    assert without_time(lines(first)[0]) != without_time(lines(other)[0])
    assert lines(first, "samples.jsonl") == lines(second, "samples.jsonl")


def test_micro_batches_do_not_change_a_run(tmp_path):
    one, many = (train(small(tmp_path / str(n), steps=1, micro_batch=n, eval_every=0)) for n in (16, 3))
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(many)[key], value, rtol=0, atol=2e-4)
    assert lines(one)[0]["gradient_norm"] == pytest.approx(lines(many)[0]["gradient_norm"], rel=1e-4)


def test_the_first_update_is_on_policy_and_later_ones_drift(tmp_path):
    line = lines(train(small(tmp_path / "run", method="grpo", steps=1, epochs=3, lr=3e-3, eval_every=0)))[0]
    assert line["sampler_gap_max"] < 1e-4
    assert line["kl_old"] > 1e-6
    assert line["updates"] == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "./absent"}, "there is no model folder ./absent"),
        ({"max_new_tokens": 4000}, "reads at most 64 tokens"),
        ({"max_prompt_tokens": 3}, "every prompt is longer"),
        ({"method": "sft", "problems": "addition"}, None),
    ],
)
def test_mistakes_are_said_before_training(tmp_path, change, words):
    if words is None:
        # Addition has worked solutions too; words unknown to the tokenizer do not stop imitation.
        assert (
            train(small(tmp_path / "run", **change, steps=1, eval_every=0, max_prompt_tokens=32)) / "config.json"
        ).exists()
        return
    with pytest.raises(UserError, match=words):
        train(small(tmp_path / "run", **change))


@pytest.mark.parametrize(
    "change",
    [
        lambda capped: {"model": capped},
        lambda capped: {"reference_model": capped, "method": "grpo", "hyper": {"beta": 0.04}},
        lambda capped: {"verifier_model": capped, "hyper": {"estimator": "logprob"}},
        lambda capped: {"critic_model": capped, "critic": "separate", "method": "ppo"},
    ],
)
def test_a_soft_cap_is_refused_before_any_weights_are_read(tmp_path, monkeypatch, change):
    from lco import models

    capped = tmp_path / "capped"
    shutil.copytree(START / "llama", capped)
    config = json.loads((capped / "config.json").read_text())
    (capped / "config.json").write_text(json.dumps({**config, "final_logit_softcapping": 30.0}))
    read: list[str] = []
    monkeypatch.setattr(models, "load_model", lambda where, *_: read.append(where))
    with pytest.raises(UserError, match=r"capped caps its final logits at 30\.0 .*; use a model without a soft-cap"):
        train(small(tmp_path / "run", **change(str(capped))))
    assert not read


def test_a_method_registered_in_three_lines_trains(tmp_path, monkeypatch):
    """Adding a method is a file and a registry line; here one that is REINFORCE without a baseline, by another name."""
    base = METHODS["reinforce"]
    mine = Method(
        "mine",
        "Mine",
        "none",
        "",
        base.advantage,
        base.loss,
        base.statistics,
        "token_mean",
        base.hyperparameters,
    )
    monkeypatch.setitem(METHODS, "mine", mine)
    assert lines(train(small(tmp_path / "run", method="mine", steps=1, eval_every=0)))[0]["updates"] == 2


def test_random_rewards_change_what_is_learnt_and_not_what_is_said_of_the_answers(tmp_path):
    """The first rollout is the same policy's: its share of right answers is the verifier's in both, its update is not."""
    runs = {
        reward: train(small(tmp_path / reward, steps=1, reward={reward: 1.0}, eval_every=0))
        for reward in ("verifier", "random")
    }
    by_verdict, by_chance = (lines(folder)[0] for folder in runs.values())
    assert by_chance["accuracy"] == by_verdict["accuracy"] > 0
    assert by_chance["tokens"] == by_verdict["tokens"]
    assert by_chance["gradient_norm"] != by_verdict["gradient_norm"]
    again = train(small(tmp_path / "again", steps=1, reward={"random": 1.0}, eval_every=0))
    assert without_time(lines(again)[0]) == without_time(by_chance)


def test_random_rewards_are_refused_where_nothing_learns_from_rewards(tmp_path):
    with pytest.raises(UserError, match=r"reward is {'random': 1.0}, but sft learns from demonstrations"):
        train(small(tmp_path / "run", method="sft", reward={"random": 1.0}))
