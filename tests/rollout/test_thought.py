"""A budget for the thought: what a closed thought looks like, where the ids that were put in are, and that none is learnt."""

import dataclasses

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from lco.errors import UserError
from lco.policy import PolicyModel, Snapshot, Statistics
from lco.problems.responses import response_decoder
from lco.rollout.records import Sampling, collate, sampler_record
from lco.rollout.thought import ThoughtSampler, closing_mark, is_in_thought, with_thought_budget
from lco.rollout.transformers import TransformersSampler
from tests.conftest import START
from tests.rollout.conftest import trainer_gap

PROMPTS = [("a", (1, 5, 6, 9)), ("b", (1, 8)), ("c", (1, 0, 4, 5))]
SAMPLING = Sampling(1.0, 1.0, 0, max_new_tokens=12, samples=3, stop_token_ids=(2,), top=4, thought_tokens=5)
CLOSING = (60, 61)
OPEN, CLOSED = 30, 31
"""Ids that open and close a thought."""


def read(ids):
    marks = {OPEN: "<think>", CLOSED: "</think>"}
    return "".join(marks.get(i, f" {i}") for i in ids)


@pytest.fixture
def sampler(model):
    """Of prompts of which the first alone opens a thought."""
    texts = {ids: "<think>\n" if group == "a" else "?" for group, ids in PROMPTS}
    return ThoughtSampler(TransformersSampler(model), CLOSING, read, lambda ids: texts[tuple(ids)])


def test_an_open_thought_is_closed_at_its_budget_and_an_answer_follows(sampler):
    rows = sampler.sample(PROMPTS, SAMPLING, seed=3)
    closed = [row for row in rows if row.put_in != (0, 0)]
    assert closed
    assert {row.group for row in closed} == {"a"}
    for row in closed:
        assert row.put_in == (5, 7)
        assert row.response_ids[5:7] == CLOSING
        assert row.logprobs[5:7] == (0.0, 0.0)
        assert 8 <= len(row.response_ids) <= 12
        assert 2 not in row.response_ids[:-1]
    for row in rows:
        assert len(row.logprobs) == len(row.response_ids) == len(row.top.ids) <= 12
        assert row.finish_reason == ("stop" if row.response_ids[-1] == 2 else "length")
        assert row.finish_reason == "stop" or len(row.response_ids) == 12
    assert [(row.group, row.prompt_ids) for row in rows] == [prompt for prompt in PROMPTS for _ in range(3)]
    assert sampler.sample(PROMPTS, SAMPLING, seed=3) == rows
    assert sampler.sample(PROMPTS, SAMPLING, seed=4) != rows


def test_the_rest_is_the_policys_behind_what_was_put_in(sampler, model):
    """Its log-probabilities are the trainer's, given the closed thought; those of the tokens put in are asked of nobody."""
    rows = sampler.sample(PROMPTS, SAMPLING, seed=3)
    assert trainer_gap(model, rows) < 1e-4
    batch = collate(rows)
    assert batch.sampled_lengths == [len(row.response_ids) - (row.put_in[1] - row.put_in[0]) for row in rows]
    hidden = PolicyModel(model, 1.0)(batch, Snapshot()).hidden
    assert [len(part) for part in hidden] == batch.sampled_lengths
    record = sampler_record(rows, top=4)
    assert record["sampler_logprob"].shape == batch.response_mask.shape


def test_tokens_put_in_reach_no_statistic(sampler, model):
    rows = sampler.sample(PROMPTS[:1], SAMPLING, seed=3)
    mask = collate(rows).response_mask
    found = PolicyModel(model, 1.0)(collate(rows), Statistics(["logprob", "entropy"]))
    for row, own, one, two in zip(rows, mask, found["logprob"], found["entropy"], strict=True):
        first, end = row.put_in
        assert not own[first:end].any()
        assert (one[first:end] == 0).all()
        assert (two[first:end] == 0).all()
        assert own.sum() == len(row.response_ids) - (end - first)


def test_a_thought_that_was_closed_in_time_goes_on_as_it_is(model):
    """Here the responses show a closed thought before the budget, so nothing is put in, and the length limit is the same."""
    sampler = ThoughtSampler(TransformersSampler(model), CLOSING, lambda ids: "<think>so</think>", lambda ids: "?")
    rows = sampler.sample(PROMPTS, dataclasses.replace(SAMPLING, stop_token_ids=()), seed=3)
    assert {row.put_in for row in rows} == {(0, 0)}
    assert {len(row.response_ids) for row in rows} == {12}


def test_a_budget_that_leaves_no_room_behind_the_closing_ends_the_row_there(sampler):
    rows = sampler.sample(PROMPTS[:1], dataclasses.replace(SAMPLING, stop_token_ids=(), thought_tokens=10), seed=3)
    assert {(len(row.response_ids), row.finish_reason, row.put_in) for row in rows} == {(12, "length", (10, 12))}


def test_without_a_budget_the_sampler_is_the_same(model):
    plain = TransformersSampler(model)
    assert with_thought_budget(plain, None, 0) is plain


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("{{ '<think>\\n' }}", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("◁think▷", "◁/think▷"),
        ("<thought>", "</thought>"),
        ("no thought", ""),
    ],
)
def test_a_thought_is_closed_in_the_words_that_opened_it(text, mark):
    assert closing_mark(text) == mark
    if mark:
        assert is_in_thought(f"{text} perhaps")
        assert not is_in_thought(f"{text} perhaps {mark} so 4")


def test_a_model_that_shows_no_thought_is_refused_and_one_that_does_is_read():
    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    with pytest.raises(UserError, match=r"thought_tokens is 5, but the chat template of .* shows no thought"):
        with_thought_budget(None, tokenizer, 5)
    template = tokenizer.chat_template
    tokenizer.chat_template += "{{ '<think>' }}"
    with pytest.raises(UserError, match="cannot write </think>, so no thought can be closed; leave it out"):
        with_thought_budget(None, tokenizer, 5)
    tokenizer.chat_template = template
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.chat_template += "{{ '<think>' }}"
    found = with_thought_budget(None, tokenizer, 5)
    assert tokenizer.convert_tokens_to_ids("</think>") in found.closing
    assert "</think>" in response_decoder(tokenizer)(found.closing)
