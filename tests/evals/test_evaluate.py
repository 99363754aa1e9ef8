"""lm-eval on the committed start models: the suite's own model, stock `lm_eval`, all n samples, identical prompts."""

import json
import os
import subprocess
import sys

import pytest

from lco.errors import UserError
from lco.evaluation.language_model import SamplerLM
from lco.evaluation.run import evaluate
from lco.problems import STYLES, encode, end_token_ids, load_problems, style_named
from lco.rollout.transformers import TransformersSampler
from lco.training import models
from tests.conftest import START


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
    with pytest.raises(UserError, match="no folder of tasks"):
        evaluate(language_model(), ["lco_miniature"], tasks_dir="absent")


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


def test_the_tasks_say_what_the_styles_say():
    """The system message stands in the task files, where stock lm_eval reads it, and in STYLES, where training does."""
    import pathlib

    for file in pathlib.Path("evals").glob("lco_*.yaml"):
        text = file.read_text()
        if "description:" in text:
            assert f"description: '{STYLES['boxed'].system}'" in text, file


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
