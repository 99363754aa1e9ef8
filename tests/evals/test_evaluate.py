"""lm-eval on the committed start models: the suite's own model, stock `lm_eval`, all n samples, identical prompts."""

import json
import os
import re
import subprocess
import sys

import pytest

from lco import models
from lco.cli import main
from lco.errors import UserError
from lco.evaluation.command import check_file
from lco.evaluation.language_model import SamplerLM
from lco.evaluation.run import evaluate
from lco.evidence.records import distil_evaluation
from lco.models.end_tokens import end_token_ids
from lco.problems import STYLES, encode, load_problems, style_named
from lco.rollout.transformers import TransformersSampler
from tests.conftest import START
from tests.evals.own_task import own_task


def language_model(temperature=None, limit=None):
    folder = str(START / "llama")
    tokenizer, network = models.load_tokenizer(folder), models.load_model(folder, "float32", "cpu")
    return SamplerLM(
        TransformersSampler(network), tokenizer, end_token_ids(tokenizer, folder), 0, temperature, limit, 64
    )


def test_all_samples_of_a_problem_are_kept_and_counted():
    found = evaluate(language_model(1.0), ["lco_miniature"], samples=4, limit=6)["lco_miniature"]
    assert len(found["problems"]) == 6
    assert all(p["n"] == 4 for p in found["problems"])
    assert len(found["responses"]) == 24
    assert len({r["response"] for r in found["responses"][:4]}) > 1
    by_id = {p["id"]: p["correct"] for p in found["problems"]}
    for name, correct in by_id.items():
        assert correct == sum(r["correct"] for r in found["responses"] if r["id"] == name)
    assert found["scores"]["pass@1"] == pytest.approx(sum(by_id.values()) / 24)
    assert found["scores"]["pass@k"]["1"] == pytest.approx(found["scores"]["pass@1"])
    assert found["limit"] == 6
    assert found["sampling"]["temperature"] == 1.0


def test_the_command_lines_budget_wins_and_cut_rows_are_counted():
    found = evaluate(language_model(0.0, limit=3), ["lco_miniature"], limit=4)["lco_miniature"]
    assert found["sampling"]["max_new_tokens"] == 3
    assert found["scores"]["truncated"] > 0.5


def test_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'lco_miniature'"):
        evaluate(language_model(), ["lco_miniatur"])
    with pytest.raises(UserError, match="all would be equal"):
        evaluate(language_model(0.0), ["lco_miniature"], samples=2)
    with pytest.raises(UserError, match="all would be equal"):  # the task's own temperature is 0
        evaluate(language_model(None), ["lco_miniature"], samples=2, limit=2)
    with pytest.raises(UserError, match="samples is 0; the least"):
        evaluate(language_model(1.0), ["lco_miniature"], samples=0)
    with pytest.raises(UserError, match="limit is -1; the least"):
        evaluate(language_model(1.0), ["lco_miniature"], limit=-1)
    with pytest.raises(UserError, match="no folder of tasks"):
        evaluate(language_model(), ["lco_miniature"], tasks_dir="absent")


def test_a_model_is_evaluated_again_with_the_same_result():
    """Counts of an earlier evaluation do not leak into a later one; the same seed gives the same samples."""
    lm = language_model(1.0)
    one, two = (evaluate(lm, ["lco_miniature"], samples=2, limit=5)["lco_miniature"] for _ in range(2))
    assert one == two
    lm.seed = 1
    other = evaluate(lm, ["lco_miniature"], samples=2, limit=5)["lco_miniature"]
    assert other["responses"] != one["responses"]
    assert other["problems_sha256"] == one["problems_sha256"]


def test_a_record_shows_generated_problems_and_never_published_ones():
    found = evaluate(language_model(1.0), ["lco_miniature"], samples=2, limit=4)["lco_miniature"]
    shown = distil_evaluation(found)["examples"]
    assert [e["problem"] for e in shown] == [p.problem for p in load_problems("arithmetic", "test")[:3]]
    assert [e["response"] for e in shown] == [r["response"] for r in found["responses"][:6:2]]
    assert distil_evaluation({**found, "generated": False})["examples"] == []


class Recorder:
    """A sampler that notes the prompts it is sent."""

    def __init__(self, sampler):
        self.sampler, self.prompts = sampler, []

    def sample(self, prompts, sampling, seed):
        self.prompts += [ids for _, ids in prompts]
        return self.sampler.sample(prompts, sampling, seed)


def test_evaluation_sends_the_ids_of_training():
    lm = language_model(0.0)
    lm.sampler = Recorder(lm.sampler)
    evaluate(lm, ["lco_miniature"], limit=5)
    problems = load_problems("arithmetic", "test")[:5]
    assert lm.sampler.prompts == [encode(lm.tokenizer, p, style_named("plain")) for p in problems]


def test_a_prompt_that_is_too_long_stops_the_evaluation_before_the_first_sample():
    """Whatever task it is of: hours of the first task must not be lost to the second, which asks for 64 new tokens."""
    lm = language_model()
    lm.sampler = Recorder(lm.sampler)
    with pytest.raises(UserError, match=r"lco_addition: prompt 0 has \d+ tokens and leaves no room for 64 more in a"):
        evaluate(lm, ["lco_miniature", "lco_addition"], limit=2)
    assert lm.sampler.prompts == []


QWEN_LIKE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a default<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_LIKE = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{{ '<|start_header_id|>system' + date_string + '<|eot_id|>' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant' }}{% endif %}"
)


def byte_tokenizer(template, bos):
    """A byte-level tokenizer with chat markers: every character of a prompt counts. `bos`: adds one by itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    markers = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>"]
    core.add_special_tokens([AddedToken(m, special=True) for m in markers])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=template
    )


@pytest.mark.parametrize(("template", "bos"), [(QWEN_LIKE, False), (LLAMA_LIKE, True)], ids=["qwen", "llama"])
@pytest.mark.parametrize(
    ("task", "name", "split", "style"),
    [
        ("lco_gsm8k", "gsm8k", "test", "boxed"),
        ("lco_aime24", "aime24", "test", "boxed"),
        ("lco_addition", "addition", "test", "number_only"),
    ],
)
def test_training_lco_evaluate_and_stock_lm_eval_send_identical_ids(tmp_path, template, bos, task, name, split, style):
    """System message, chat markers once, one BOS though the tokenizer would add another; for every prompt style."""
    from lm_eval.models.huggingface import HFLM

    from lco.evaluation.tasks import load_tasks
    from tests.conftest import tiny_model

    text = " What is\n\n $\\frac{1}{2}$ of 4\u2028apples? "
    line = json.dumps({"id": "a", "problem": text, "answer": "2"}) + "\n"
    for file in ("gsm8k_test.jsonl", "aime24.jsonl"):
        (tmp_path / file).write_text(line)
    tokenizer = byte_tokenizer(template, bos)
    trained = encode(tokenizer, load_problems(name, split, str(tmp_path))[0], style_named(style))
    ours = SamplerLM(None, tokenizer, (0,), 0)
    stock = HFLM(pretrained=tiny_model(vocabulary=len(tokenizer)), tokenizer=tokenizer, batch_size=1)
    sent = {}
    for lm in (ours, stock):
        found = load_tasks([task], str(tmp_path)).tasks[task]
        found.build_all_requests(limit=1, apply_chat_template=True, chat_template=lm.apply_chat_template)
        sent[lm] = found.instances[0].args[0]
    assert tuple(tokenizer.encode(sent[ours], add_special_tokens=False)) == trained
    assert tuple(stock.tok_batch_encode([sent[stock]])[0][0].tolist()) == trained
    assert trained.count(tokenizer.bos_token_id) == (1 if bos else 0)
    assert tokenizer.decode(trained).count("assistant") == 1


def test_the_tasks_say_what_the_styles_say():
    """The system message stands in the task files, where stock lm_eval reads it, and in STYLES, where training does."""
    import pathlib

    for file in pathlib.Path("evals").glob("lco_*.yaml"):
        text = file.read_text()
        if "description:" in text:
            assert f"description: '{STYLES['boxed'].system}'" in text, file


def command(*arguments):
    return main(["evaluate", "--model", str(START / "llama"), "--tasks", "lco_miniature", "--limit", "3", *arguments])


def test_the_command_names_model_prompt_and_problems_and_replaces_no_other_result(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert command("--samples", "2", "--temperature", "1", *out) == 0
    file = tmp_path / "lco_miniature-T1-n2.json"
    found = json.loads(file.read_text())
    assert found["model"]["class"] == "LlamaForCausalLM"
    assert found["model"]["name"] == "llama"
    assert len(found["model"]["sha256"]) == len(found["problems_sha256"]) == 64
    assert found["prompt"]["template_date"] == ""  # its template prints none
    assert found["provenance"]["packages"]["lm-eval"]
    assert str(START) not in file.read_text()
    before = file.read_bytes()
    assert command("--samples", "2", "--temperature", "1", *out) == 0
    assert file.read_bytes() == before
    assert command("--samples", "2", "--temperature", "1", *out, "--limit", "4") == 2
    assert "holds a result with another limit (3, and this call has 4); give another --out" in capsys.readouterr().err
    for more, key in ((["--max-new-tokens", "4"], "sampling.max_new_tokens"), (["--dtype", "bfloat16"], "dtype"),
                      (["--seed", "1"], "sampling.seed")):  # fmt: skip
        assert command("--samples", "2", "--temperature", "1", *out, *more) == 2
        assert f"holds a result with another {key} (" in capsys.readouterr().err
    assert file.read_bytes() == before
    file.write_text("{")
    assert command("--samples", "2", "--temperature", "1", *out) == 2
    assert "holds no result that can be read" in capsys.readouterr().err


def test_outside_a_checkout_nothing_is_said_of_git(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert command("--out", str(tmp_path / "out")) == 0
    said = capfd.readouterr()
    assert "git" not in said.err + said.out
    assert len(said.out.splitlines()) == 1


def test_a_result_that_had_a_value_which_this_call_leaves_out_is_another(tmp_path):
    file, deciding = tmp_path / "a.json", {"sampling": {"seed": 0}, "prompt": {"chat_template_sha256": "b"}}
    for before, key in (
        ({"sampling": {"seed": 0, "stop": ["."]}, "prompt": {"chat_template_sha256": "b"}}, "sampling.stop"),
        ({"sampling": {"seed": 0}, "prompt": {"chat_template_sha256": "a", "thinking": "on"}}, "prompt.thinking"),
        ({"prompt": {"chat_template_sha256": "b"}}, "sampling.seed"),
    ):
        file.write_text(json.dumps({**before, "scores": {}}))
        with pytest.raises(UserError, match=f"another {re.escape(key)} "):
            check_file(file, deciding)
    file.write_text(json.dumps({**deciding, "scores": {}}))
    check_file(file, deciding)


def test_what_was_scored_before_a_failure_is_written(tmp_path, monkeypatch):
    sample, calls = TransformersSampler.sample, []

    def fail_at_the_second_task(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        return sample(*arguments)

    monkeypatch.setattr(TransformersSampler, "sample", fail_at_the_second_task)
    out = tmp_path / "a" / "b"
    with pytest.raises(MemoryError):
        command("--tasks", "lco_miniature", "lco_miniature_validation", "--out", str(out))
    assert [file.name for file in out.iterdir()] == ["lco_miniature-T0-n1.json"]
    assert len(json.loads((out / "lco_miniature-T0-n1.json").read_text())["problems"]) == 3


def test_the_command_finds_mistakes_before_it_reads_weights(tmp_path, capsys, monkeypatch):
    def reached(*_):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(models, "load_model", reached)
    for arguments, words in (
        (["--samples", "8"], "samples is 8 at temperature 0 of lco_miniature"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--tasks", "lco_minature"], "did you mean 'lco_miniature'"),
        (["--tasks", "lco_gsm8k", "--data-dir", str(tmp_path)], "gsm8k_test.jsonl: No such file"),
    ):
        assert command("--out", str(tmp_path), *arguments) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert command("--out", str(tmp_path / "file")) == 2
    assert f"cannot write results to {tmp_path / 'file'}: File exists; give another --out" in capsys.readouterr().err


def test_stock_lm_eval_runs_the_tasks_whatever_the_checkpoint_says(tmp_path):
    """`--model hf`, with a generation_config.json that would ruin every answer if it were obeyed.

    (Its max_new_tokens is the one value that stock lm_eval lets win over the task's; `lco evaluate` does not.)
    """
    import shutil

    folder = tmp_path / "hostile"
    shutil.copytree(START / "llama", folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    hostile = {
        **generation,
        "repetition_penalty": 5.0,
        "temperature": 0.01,
        "top_k": 1,
        "do_sample": True,
    }
    (folder / "generation_config.json").write_text(json.dumps(hostile))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lm_eval", "--include_path", "evals", "--tasks", "lco_miniature", "--model", "hf",
               "--model_args", f"pretrained={folder}", "--apply_chat_template", "--device", "cpu", "--batch_size", "16",
               "--limit", "16", "--output_path", str(out), "--log_samples"]  # fmt: skip
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    stock = json.loads(next(out.rglob("results_*.json")).read_text())["results"]["lco_miniature"]
    ours = evaluate(language_model(0.0), ["lco_miniature"], limit=16)["lco_miniature"]
    assert stock["avg@n,verified"] == pytest.approx(ours["scores"]["pass@1"])
    logged = next(out.rglob("samples_*.jsonl")).read_text().split("\n")[0]
    assert "####" in logged


def test_a_task_on_problems_of_ones_own_brings_its_own_rules(tmp_path):
    folder = own_task(tmp_path, columns={"set": "mine", "extraction": "hash"})
    found = evaluate(language_model(0.0, limit=8), ["lco_mine"], limit=2, tasks_dir=folder)["lco_mine"]
    assert len(found["problems"]) == 2
    assert found["verifier"]["rules"][0]["extraction"] == "hash"
    assert not found["generated"]


@pytest.mark.parametrize(
    ("more", "columns", "words"),
    [
        ("", {"answer": None}, "lco_mine: its problem number 0 has no text under 'answer'"),
        ("generation_kwargs: {until: [], temperature: 0.0, top_p: 1.0, top_k: 0, max_gen_toks: 8, repetition_penalty: 1.5}",
         {}, "sets repetition_penalty to 1.5, which the suite's samplers do not have"),
    ],
)  # fmt: skip
def test_what_a_task_cannot_mean_is_said_before_the_first_sample(tmp_path, monkeypatch, more, columns, words):
    def reached(*_):
        raise AssertionError("something was sampled")

    monkeypatch.setattr(TransformersSampler, "sample", reached)
    with pytest.raises(UserError, match=words):
        evaluate(language_model(), ["lco_mine"], limit=2, tasks_dir=own_task(tmp_path, more, columns))


def test_a_thought_that_the_prompt_opens_is_judged_with_it(monkeypatch):
    """In `lco evaluate`, and in stock lm_eval where its metadata says how prompts end."""
    from lm_eval.api.registry import get_filter

    thought = "It might be \\boxed{41}. But wait, I should check"
    lm = language_model(0.0)
    lm.tokenizer.chat_template = "<bos>{{ messages[-1].content }}{% if add_generation_prompt %}<think>{% endif %}"
    monkeypatch.setattr(type(lm.tokenizer), "decode", lambda *_, **__: thought)
    found = evaluate(lm, ["lco_miniature"], limit=2)["lco_miniature"]
    assert found["scores"]["no_answer"] == 1
    document = {"id": "a", "problem": "?", "answer": "41"}
    (unaware,), (told,) = (
        get_filter("lco_verified")().apply([[thought]], [{**document, **more}])[0]
        for more in ({}, {"opening": "<think>"})
    )
    assert unaware["correct"]
    assert not told["correct"]
