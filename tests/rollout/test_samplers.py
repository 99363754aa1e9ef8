"""The contract of a sampler, run against both: transformers on the trainer's weights, and vLLM in this process."""

import dataclasses
import random

import numpy
import pytest
import torch
from transformers import AutoTokenizer

from lco.errors import UserError
from lco.problems.responses import response_decoder
from lco.rollout.records import DivergedError, Row, Sampling
from lco.rollout.stop import StopSampler, cut_at_stop
from lco.rollout.transformers import TransformersSampler
from tests.conftest import START
from tests.rollout.conftest import VOCABULARY, save, small_model, trainer_gap

# Lengths differ, one prompt holds the pad id, one the end token of the checkpoint, two are equal but for their group.
PROMPTS = [("a", (1, 5, 6, 9)), ("b", (1, 8)), ("c", (1, 0, 0, 4, 5, 6, 7, 8, 0, 10)), ("d", (1, 8)), ("e", (3,))]
STOPS = (2, 5, 7)
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12, samples=6, stop_token_ids=STOPS)


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def sampler(request, model, tmp_path_factory):
    if request.param == "transformers":
        yield TransformersSampler(model, decode=response_decoder(AutoTokenizer.from_pretrained(START / "llama")))
        return
    from lco.rollout.vllm import VLLMSampler

    folder = save(model, tmp_path_factory.mktemp("model"))
    vllm = VLLMSampler(folder, "float32", cache_gib=0.1, max_model_len=128, separate_process=False, top=24)
    yield vllm
    vllm.close()


def sampling(**changes):
    return dataclasses.replace(SAMPLING, **changes)


def responses(rows):
    return [row.response_ids for row in rows]


def test_a_seed_repeats_and_another_seed_does_not(sampler):
    first = sampler.sample(PROMPTS, SAMPLING, seed=3)
    sampler.sample(PROMPTS[:2], sampling(temperature=0.5), seed=8)
    assert sampler.sample(PROMPTS, SAMPLING, seed=3) == first
    assert responses(sampler.sample(PROMPTS, SAMPLING, seed=4)) != responses(first)


def test_global_generators_stay_where_they_were(sampler):
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    sampler.sample(PROMPTS, SAMPLING, seed=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), numpy.random.get_state()[1].tolist())


def test_samples_of_one_prompt_and_of_equal_prompts_differ(sampler):
    rows = sampler.sample(PROMPTS, sampling(stop_token_ids=()), seed=1)
    groups = [{row.response_ids for row in rows if row.group == group} for group, _ in PROMPTS]
    assert [len(found) for found in groups] == [6] * 5
    assert not groups[1] & groups[3]


def test_rows_come_in_the_order_of_their_prompts(sampler):
    rows = sampler.sample(PROMPTS, SAMPLING, seed=1)
    assert [(row.group, row.prompt_ids) for row in rows] == [prompt for prompt in PROMPTS for _ in range(6)]


def test_every_end_token_stops_a_row_and_is_kept_and_a_cut_is_marked(sampler):
    rows = sampler.sample(PROMPTS, sampling(samples=40), seed=2)
    for row in rows:
        assert len(row.logprobs) == len(row.response_ids)
        assert not set(row.response_ids[:-1]) & set(STOPS)
        if row.finish_reason == "stop":
            assert row.response_ids[-1] in STOPS
        else:
            assert len(row.response_ids) == 12
            assert row.response_ids[-1] not in STOPS
    assert {row.response_ids[-1] for row in rows if row.finish_reason == "stop"} == set(STOPS)
    assert any(row.finish_reason == "length" for row in rows)


def test_without_end_tokens_every_row_has_the_full_length(sampler):
    """The end token that the checkpoint's configuration names is sampled and stops nothing."""
    rows = sampler.sample(PROMPTS, sampling(stop_token_ids=(), samples=20), seed=2)
    assert {(len(row.response_ids), row.finish_reason) for row in rows} == {(12, "length")}
    assert any(9 in row.response_ids[:-1] for row in rows)


def test_a_stop_string_ends_a_row_with_the_token_that_completes_it(sampler):
    """Of words in a small vocabulary: rows are those without stop strings, cut where their text first has one."""
    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    asked = sampling(stop_token_ids=(), temperature=0.0, samples=1)
    whole = sampler.sample(PROMPTS, asked, seed=3)
    texts = [tokenizer.decode(row.response_ids, skip_special_tokens=True) for row in whole]
    stop = (texts[0][3:6], texts[1][4:5])
    rows = StopSampler(sampler, response_decoder(tokenizer)).sample(
        PROMPTS, dataclasses.replace(asked, stop=stop), seed=3
    )
    for row, full in zip(rows, whole, strict=True):
        ends = (
            n
            for n in range(1, 13)
            if any(word in tokenizer.decode(full.response_ids[:n], skip_special_tokens=True) for word in stop)
        )
        end = next(ends, None)
        assert row.response_ids == full.response_ids[:end]
        assert row.logprobs == pytest.approx(full.logprobs[:end], abs=1e-5)
        assert row.finish_reason == ("length" if end is None else "stop")
    assert {row.finish_reason for row in rows} >= {"stop"}
    assert any(len(row.response_ids) < 12 for row in rows)


def test_a_stop_string_that_the_engine_alone_reads_is_named():
    row = Row("a", (1,), (45, 45), "stop", (-0.5, -0.5))
    asked = dataclasses.replace(SAMPLING, stop=("++",))
    with pytest.raises(UserError, match="tokenizer reads it has none; use --rollouts transformers"):
        cut_at_stop(row, asked, lambda ids: " ".join("+" for _ in ids))
    assert cut_at_stop(row, asked, lambda ids: "".join("+" for _ in ids)) == row


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
def test_logprobs_are_the_trainers_at_the_sampling_temperature(sampler, model, temperature):
    rows = sampler.sample(PROMPTS, sampling(temperature=temperature, samples=16), seed=5)
    assert trainer_gap(model, rows, temperature) < 1e-4
    assert trainer_gap(model, rows, temperature * 1.1) > 0.05


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("top", [1, 24])
def test_the_likeliest_tokens_are_recorded_at_every_position_and_change_no_draw(sampler, model, top, temperature):
    """24 is more than vLLM records unless it is told to at its start."""
    asked = sampling(temperature=temperature, samples=8, top=top)
    rows = sampler.sample(PROMPTS, asked, seed=5)
    plain = sampler.sample(PROMPTS, sampling(temperature=temperature, samples=8), seed=5)
    assert [dataclasses.replace(row, top=None) for row in rows] == plain
    sampled_among_them = 0
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        logp = (model(ids).logits[0, len(row.prompt_ids) - 1 : -1] / temperature).log_softmax(-1)
        assert row.top.ids.shape == row.top.logprobs.shape == (len(row.response_ids), top)
        expected = logp.topk(top, 1).values
        torch.testing.assert_close(row.top.logprobs, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(logp.gather(1, row.top.ids.long()), row.top.logprobs, rtol=0, atol=1e-4)
        assert all(len(set(step)) == top for step in row.top.ids.tolist())
        sampled_among_them += sum(a in step for a, step in zip(row.response_ids, row.top.ids.tolist(), strict=True))
    assert 0 < sampled_among_them < sum(len(row.response_ids) for row in rows)
    assert sampler.sample(PROMPTS, asked, seed=5) == rows


def test_greedy_takes_the_largest_logit_and_reports_logprobs_at_one(sampler, model):
    rows = sampler.sample(PROMPTS, sampling(temperature=0.0, samples=3), seed=5)
    for (_, prompt), row in zip([p for p in PROMPTS for _ in range(3)], rows, strict=True):
        ids = torch.tensor([[*prompt, *row.response_ids]])
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
        assert tuple(logits.argmax(-1).tolist()) == row.response_ids
    assert trainer_gap(model, rows) < 1e-4


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 5), (0.6, 0), (0.6, 5)])
def test_truncation_draws_from_the_kept_tokens_and_reports_their_distribution(sampler, model, top_p, top_k):
    rows = sampler.sample(PROMPTS, sampling(top_p=top_p, top_k=top_k, temperature=0.8, samples=16), seed=6)
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1] / 0.8
        for z, token, logprob in zip(logits, row.response_ids, row.logprobs, strict=True):
            assert abs(kept(z, top_p, top_k)[token] - logprob) < 1e-4


def kept(z, top_p, top_k):
    """Log-probabilities after top-k, then top-p, written out token by token."""
    order = z.argsort(descending=True).tolist()[: top_k or None]
    probs = z[order].softmax(0)
    count = next((i + 1 for i in range(len(order)) if probs[: i + 1].sum() >= top_p), len(order))
    found = torch.full_like(z, float("-inf"))
    found[order[:count]] = z[order[:count]].log_softmax(0)
    return found.tolist()


def test_frequencies_are_the_models_probabilities(sampler, model):
    draws = 4000
    rows = sampler.sample(PROMPTS[:1], sampling(samples=draws, max_new_tokens=1, temperature=0.8), seed=11)
    expected = (model(torch.tensor([PROMPTS[0][1]])).logits[0, -1] / 0.8).softmax(0)
    counts = torch.bincount(torch.tensor([row.response_ids[0] for row in rows]), minlength=VOCABULARY)
    common = expected * draws > 5
    chi2 = ((counts - expected * draws).square() / (expected * draws))[common].sum()
    assert chi2 < int(common.sum()) + 5 * (2 * int(common.sum())) ** 0.5


def test_rows_at_once_bounds_memory_and_keeps_the_contract(model):
    """Chunks of prompts: fewer rows in flight, the same order, the trainer's log-probabilities."""
    rows = TransformersSampler(model, rows_at_once=7).sample(PROMPTS, SAMPLING, seed=3)
    assert [row.group for row in rows] == [group for group, _ in PROMPTS for _ in range(6)]
    assert trainer_gap(model, rows) < 1e-4


def test_a_rank_without_rows_keeps_calling_the_model_until_all_have_theirs(model):
    """What ZeRO-3 needs: as many forwards as the busiest rank, here one that needs five more than this one."""
    asked, others = [], 17

    def any_rank(busy):
        asked.append(busy)
        return busy or len(asked) <= others

    rows = TransformersSampler(model, any_rank=any_rank).sample(PROMPTS, sampling(stop_token_ids=()), seed=3)
    assert asked == [True] * 12 + [False] * 6
    assert rows == TransformersSampler(model).sample(PROMPTS, sampling(stop_token_ids=()), seed=3)


def test_a_model_that_has_diverged_is_named(model):
    lost = small_model(seed=4)
    with torch.no_grad():
        lost.lm_head.weight.fill_(float("nan"))
    with pytest.raises(
        UserError, match="the model's logits are no finite numbers, so nothing can be sampled: its weights"
    ):
        TransformersSampler(lost).sample(PROMPTS, SAMPLING, seed=1)


def test_a_model_that_has_diverged_at_later_tokens_alone_is_named(model):
    """The prompt's tokens have their embeddings, all others have lost them."""
    lost, known = small_model(seed=4), sorted({token for _, ids in PROMPTS for token in ids})
    head = lost.lm_head.weight.clone()
    with torch.no_grad():
        rows = lost.get_input_embeddings().weight
        others = torch.ones(len(rows), dtype=torch.bool)
        others[known] = False
        lost.lm_head.weight = torch.nn.Parameter(head)  # tied or not, the first token's logits are numbers
        rows[others] = float("nan")
    with pytest.raises(DivergedError):
        TransformersSampler(lost).sample(PROMPTS, SAMPLING, seed=1)
