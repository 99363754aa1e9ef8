"""Stop strings and the budget of a thought: the same in training, `lco evaluate` and, as far as it has them, stock lm_eval."""

import json

import pytest
import torch
from tokenizers import AddedToken

from lco import models
from lco.cli import main
from lco.evaluation.run import evaluate
from lco.problems.responses import response_decoder
from tests.conftest import START, lines, small, train
from tests.evals.test_evaluate import language_model


def test_stop_strings_of_a_task_end_and_cut_responses_as_in_stock_lm_eval():
    """`until` of a task, and --stop in its place; the stop string itself is judged by neither."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    stock = HFLM(pretrained=str(START / "llama"), batch_size=4, device="cpu")
    manager = TaskManager(include_path="evals")
    found = simple_evaluate(
        stock, tasks=["lco_miniature"], task_manager=manager, limit=8, apply_chat_template=True, log_samples=True,
        bootstrap_iters=0, gen_kwargs={"until": ["####", "="]},
    )  # fmt: skip
    theirs = [sample["resps"][0][0] for sample in found["samples"]["lco_miniature"]]
    ours = {}
    for stop in (None, ["####", "="]):
        lm = language_model(0.0)
        lm.sampler.decode, lm.stop = response_decoder(lm.tokenizer), stop
        result = evaluate(lm, ["lco_miniature"], limit=8)["lco_miniature"]
        ours[stop is None] = [response["response"] for response in result["responses"]]
        assert result["sampling"].get("stop") == stop
        assert result["scores"]["truncated"] == 0
    assert [text.strip() for text in ours[False]] == [text.strip() for text in theirs]
    assert all(word not in text for text in ours[False] for word in ("####", "="))
    assert any("####" in text for text in ours[True])


def thinking_model(folder):
    """A start model whose prompts open a thought, with the marks of thinking in its vocabulary."""
    tokenizer, network = (
        models.load_tokenizer(str(START / "llama")),
        models.load_model(str(START / "llama"), "float32", "cpu"),
    )
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    with torch.random.fork_rng():
        network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_thought_that_has_had_its_tokens_is_closed_in_training_and_in_evaluation(tmp_path, capsys):
    """Without a budget the start model never closes the thought that it knows nothing of, so nothing is an answer."""
    model = thinking_model(tmp_path / "model")
    command = ["evaluate", "--model", model, "--tasks", "lco_miniature", "--limit", "4", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "plain")]) == 0
    assert main([*command, "--thought-tokens", "2", "--out", str(tmp_path / "bounded")]) == 0
    plain, bounded = (
        json.loads((tmp_path / name / "lco_miniature-T0-n1.json").read_text()) for name in ("plain", "bounded")
    )
    assert plain["scores"]["no_answer"] == 1
    texts = [response["response"] for response in bounded["responses"]]
    assert any("</think>" in text for text in texts)
    assert bounded["sampling"]["thought_tokens"] == 2
    assert "thought_tokens" not in plain["sampling"]
    # Another budget decides other numbers, so it replaces nothing.
    assert main([*command, "--thought-tokens", "3", "--out", str(tmp_path / "bounded")]) != 0
    assert "another sampling.thought_tokens (2, and this call has 3)" in capsys.readouterr().err
    assert main([*command, "--thought-tokens", "40", "--out", str(tmp_path / "long")]) == 2
    assert "thought-tokens is 40, which leaves nothing of 32 tokens for an answer" in capsys.readouterr().err
    for method in ("ppo", "lco_kld", "minpro", "dppo"):
        run = small(
            tmp_path / method,
            model=model,
            method=method,
            thought_tokens=6,
            max_new_tokens=16,
            steps=2,
            epochs=2,
            eval_every=0,
        )
        found = lines(train(run))
        assert 0 < found[0]["thoughts_closed"] <= 1
        assert all(line["sampler_gap_mean"] < 1e-4 for line in found)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--thought-tokens", "-1"], "thought-tokens is -1; the least allowed value is 0"),
        (["--thought-tokens", "4"], "shows no thought that could be closed"),
        (["--stop", ""], "a stop string is empty"),
    ],
)
def test_a_budget_or_stop_that_cannot_be_meant_is_named(tmp_path, capsys, flags, words):
    command = [
        "evaluate",
        "--model",
        str(START / "llama"),
        "--tasks",
        "lco_miniature",
        "--limit",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*command, "--out", str(tmp_path), *flags]) == 2
    assert words in capsys.readouterr().err
