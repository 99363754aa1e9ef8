"""What of the sampled ids becomes the text that is judged."""

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from lco.errors import UserError
from lco.problems.responses import completes, find_stops, response_decoder
from lco.verifier import verify, with_open_thought
from tests.conftest import START

MARKS = {
    "mistral": ("[THINK]", "[/THINK]"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "qwen": ("<think>", "</think>"),
}


def tokenizer_with(*special):
    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def ids_of(tokenizer, text):
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


@pytest.mark.parametrize("family", MARKS)
def test_marks_of_thinking_that_are_special_tokens_are_kept_and_others_are_not(family):
    opened, closed = MARKS[family]
    tokenizer = tokenizer_with(opened, closed)
    decode = response_decoder(tokenizer)
    assert len(tokenizer.encode(opened, add_special_tokens=False)) == 1
    assert decode(ids_of(tokenizer, f"{opened}1 + 1{closed}2")) == f"{opened}1 + 1{closed}2"
    assert not verify(decode(ids_of(tokenizer, f"{opened}#### 31")), "31").correct
    rest = decode(ids_of(tokenizer, f"1{closed}#### 31"))
    assert verify(with_open_thought(f"[INST]30+1[/INST]{opened}", rest), "31").correct


def test_the_channels_of_a_response_are_told_apart():
    tokenizer = tokenizer_with("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
    tokenizer.add_tokens(["analysis", "final"])  # words, which the miniature's vocabulary lacks
    decode = response_decoder(tokenizer)
    thought = "<|channel|>analysis<|message|>#### 31"
    assert not verify(decode(ids_of(tokenizer, thought)), "31").correct
    whole = decode(ids_of(tokenizer, f"{thought}<|end|><|start|>assistant<|channel|>final<|message|>#### 32"))
    assert (verify(whole, "31").correct, verify(whole, "32").correct) == (False, True)


def test_without_such_tokens_it_is_the_tokenizers_own_decoding():
    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    ids = ids_of(tokenizer, "12 + 3 = 15")
    assert response_decoder(tokenizer)(ids) == tokenizer.decode(ids, skip_special_tokens=True) == "12 + 3 = 15"
    assert response_decoder(tokenizer)([]) == ""


def test_what_is_judged_ends_before_the_first_stop_string():
    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    ids = ids_of(tokenizer, "12 + 3 = 15 #### 15")
    assert response_decoder(tokenizer, ["####", "= "])(ids) == "12 + 3 "
    assert response_decoder(tokenizer, ["never"])(ids) == "12 + 3 = 15 #### 15"


@pytest.mark.parametrize("family", ["llama", "qwen"])
@pytest.mark.parametrize("word", ["15", "= 1", "####", " + 3 = 15", "#"])
def test_a_stop_string_is_complete_at_the_token_where_the_whole_text_first_has_it(family, word):
    tokenizer = AutoTokenizer.from_pretrained(START / family)
    ids = tokenizer.encode("12 + 3 = 15 #### 15", add_special_tokens=False)
    decode = response_decoder(tokenizer)
    ends = [n for n in range(1, len(ids) + 1) if completes(ids[:n], [word, "no such"], decode)]
    assert ends[0] == next(n for n in range(1, len(ids) + 1) if word in tokenizer.decode(ids[:n]))


def test_a_stop_string_that_is_a_special_token_is_an_end_token():
    tokenizer = tokenizer_with("<|im_end|>")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert find_stops(tokenizer, ["<|im_end|>", "Question:", "Question:"]) == ((end,), ("Question:",))
    with pytest.raises(UserError, match="a stop string is empty"):
        find_stops(tokenizer, ["Question:", ""])
