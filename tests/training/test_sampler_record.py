"""What the sampler recorded reaches the loss of a method that asks for it, as it stands in the rows, and nobody else's."""

import dataclasses
import math
import pickle

import pytest
import torch

from lco.addresses import URLS
from lco.errors import UserError
from lco.methods import METHODS
from lco.methods.objective import Needs
from lco.rollout.records import Row, TopTokens, refuse_unrecorded, sampler_record
from lco.rollout.transformers import TransformersSampler
from lco.training.collector import Collector
from tests.conftest import lines, small, train

TOP = TopTokens(torch.tensor([[3, 1], [4, 2]], dtype=torch.int32), torch.tensor([[-0.1, -2.0], [-0.5, -1.0]]))
LONG = Row("a", (5,), (3, 9), "stop", (-0.1, -4.0), TOP)
EMPTY = Row("a", (5,), (), "stop", (), TopTokens(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0, 2)))
SHORT = Row("b", (5,), (1,), "stop", (-2.0,), TopTokens(TOP.ids[:1], TOP.logprobs[:1]))


def test_a_record_is_padded_to_its_longest_row():
    found = sampler_record([SHORT, EMPTY, LONG], 2)
    assert found["sampler_logprob"].tolist() == [[-2.0, 0.0], [0.0, 0.0], pytest.approx([-0.1, -4.0])]
    assert found["sampler_top/2"].tolist() == [[[3, 1], [0, 0]], [[0, 0], [0, 0]], [[3, 1], [4, 2]]]
    assert torch.equal(found["sampler_logprob_at_top/2"][2], TOP.logprobs)
    assert found["sampler_top/2"].dtype == torch.int64
    assert sampler_record([SHORT, LONG], 0).keys() == {"sampler_logprob"}


def test_rows_are_the_same_where_their_likeliest_tokens_are_and_travel_between_ranks():
    assert pickle.loads(pickle.dumps(LONG)) == LONG
    other = TopTokens(TOP.ids, TOP.logprobs + 1)
    assert dataclasses.replace(LONG, top=other) != LONG
    assert dataclasses.replace(LONG, top=None) != LONG


@pytest.mark.parametrize(
    ("row", "top", "words"),
    [
        (dataclasses.replace(LONG, logprobs=()), 0, "recorded 0 log-probabilities for a response of 2 tokens"),
        (
            dataclasses.replace(LONG, top=None),
            2,
            "recorded 0 of the likeliest tokens at each position, and this method reads 2",
        ),
        (
            LONG,
            5,
            "recorded 2 of the likeliest tokens at each position, and this method reads 5 .*; use --rollouts transformers",
        ),
    ],
)
def test_what_was_not_recorded_is_refused(row, top, words):
    with pytest.raises(UserError, match=words):
        refuse_unrecorded([SHORT, row], top)
    refuse_unrecorded([SHORT, EMPTY, LONG], 2)


def recorded(monkeypatch, change):
    """Every rollout's rows, with what was recorded of them changed."""
    verified, rows = Collector.verify_rows, []

    def verify(collector, drawn, problems, **options):
        changed = [change(row) for row in drawn]
        rows.extend(changed)
        return verified(collector, changed, problems, **options)

    monkeypatch.setattr(Collector, "verify_rows", verify)
    return rows


def test_the_loss_is_given_what_the_rows_hold(tmp_path, monkeypatch):
    """In micro-batches of rows of different lengths, in the order of the rows, in every update."""
    seen = []

    def loss(hyper):
        def per_row(s, x):
            seen.append((x["mask"].bool(), s["sampler_logprob"], s["sampler_top/3"], s["sampler_logprob_at_top/3"]))
            return -x["advantage"] * s["logprob"]

        return per_row

    names = ("logprob", "sampler_logprob", "sampler_top/3", "sampler_logprob_at_top/3")
    mine = dataclasses.replace(
        METHODS["gspo"], name="mine", loss=loss, statistics=lambda hyper: names, metrics=None,
        needs=lambda hyper: Needs(group=True, sampler_logprob=True, sampler_top=3),
    )  # fmt: skip
    monkeypatch.setitem(METHODS, "mine", mine)
    rows = recorded(monkeypatch, lambda row: row)
    train(small(tmp_path / "run", method="mine", steps=1, eval_every=0, epochs=2))
    known = {row.logprobs: row.top for row in rows}
    given = 0
    for mask, logprob, ids, values in seen:
        for i in range(len(mask)):
            top = known[tuple(float(x) for x in logprob[i][mask[i]])]
            assert torch.equal(ids[i][mask[i]], top.ids.long())
            assert torch.equal(values[i][mask[i]], top.logprobs)
            given += 1
    assert given == 2 * len(rows) == 32


def first_norm(folder, **changes):
    return lines(train(small(folder, steps=1, eval_every=0, minibatches=1, **changes)))[0]["gradient_norm"]


def test_the_weight_compares_with_the_samplers_own_number_and_the_recomputed_one_does_not(tmp_path, monkeypatch):
    """A sampler that held every token e times less likely than the trainer does: r = e instead of 1."""
    free = {"delta": 1.0, "cap": 0}
    own = first_norm(tmp_path / "own", method="dppo", hyper=free)
    again = first_norm(tmp_path / "again", method="dppo_verl", hyper=free)
    recorded(monkeypatch, lambda row: dataclasses.replace(row, logprobs=tuple(x - 1 for x in row.logprobs)))
    monkeypatch.setattr("lco.training.run.watch", lambda *_: None)  # which stops a run whose sampler is another policy
    assert first_norm(tmp_path / "own shifted", method="dppo", hyper=free) == pytest.approx(math.e * own, rel=1e-4)
    assert first_norm(tmp_path / "again shifted", method="dppo_verl", hyper=free) == again


@pytest.mark.parametrize(
    ("method", "hyper"),
    [
        ("dppo", {"delta": 0.02}), ("dppo", {"divergence": "top_kl", "delta_kl": 0.002}), ("dppo_recompute", {"delta": 0.02}),
        ("cppo", {"delta": 0.02}), ("cppo_unirl", {"delta": 0.02, "allowance": 0.002}),
    ],
)  # fmt: skip
def test_later_updates_are_masked_and_that_is_logged(tmp_path, method, hyper):
    run = small(tmp_path / "run", method=method, hyper=hyper, steps=2, lr=3e-3, minibatches=4, eval_every=0)
    for line in lines(train(run)):
        assert 0 < line["divergence_mean"] < line["divergence_max"]
        assert 0 < line["masked_positive"] + line["masked_negative"] < 1


def test_only_who_asks_for_likeliest_tokens_has_them_recorded(tmp_path, monkeypatch):
    rows = recorded(monkeypatch, lambda row: row)
    train(small(tmp_path / "binary", method="dppo", steps=1))
    assert {row.top for row in rows} == {None}
    rows.clear()
    train(small(tmp_path / "top", method="cppo", steps=1, hyper={"top": 4}))
    asked = [row for row in rows if row.top is not None]
    assert {row.top.ids.shape[1] for row in asked} == {4}
    assert len(asked) == 16 < len(rows)  # the others are validations'


def test_more_likeliest_tokens_than_the_vocabulary_has_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"cppo reads the 5000 likeliest tokens .*has a vocabulary of .*; give fewer"):
        train(small(tmp_path / "run", method="cppo", hyper={"top": 5000}))


def test_servers_that_send_none_are_refused_before_one_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv(URLS, "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UserError, match=r"cppo reads the sampler's 20 likeliest tokens .* use --rollouts vllm or"):
        train(small(tmp_path / "run", method="cppo", rollouts="vllm-server"))


def test_a_sampler_that_records_none_is_refused_before_the_first_rollout(tmp_path, monkeypatch):
    sample = TransformersSampler.sample

    def bare(sampler, prompts, sampling, seed, on_rows=None):
        return sample(sampler, prompts, dataclasses.replace(sampling, top=0), seed, on_rows)

    monkeypatch.setattr(TransformersSampler, "sample", bare)
    with pytest.raises(
        UserError, match="recorded 0 of the likeliest tokens at each position, and this method reads 20"
    ):
        train(small(tmp_path / "run", method="cppo"))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.long
def test_vllms_record_trains_the_same_methods(tmp_path):
    """On the first update vLLM's distribution is the trainer's: its K likeliest tokens are next to nothing away from it."""
    for method, hyper in (("dppo", {"divergence": "top_kl"}), ("cppo", {"top": 24}), ("cppo_unirl", {})):
        run = small(tmp_path / method, method=method, hyper=hyper, steps=2, minibatches=1, eval_every=0, rollouts="vllm",
                    vllm_cache_gib=0.1)  # fmt: skip
        for line in lines(train(run)):
            assert line["updates"] == 1
            assert 0 <= line["divergence_mean"] <= line["divergence_max"] < 1e-3
            assert line["masked_positive"] == line["masked_negative"] == 0
