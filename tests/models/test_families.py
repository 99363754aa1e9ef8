"""The families' own tokenizers, chat templates and weights, from the folders in LCO_MODEL_DIR (one folder per model)."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from lco import models
from lco.evaluation.language_model import SamplerLM
from lco.evaluation.tasks import load_tasks
from lco.models.end_tokens import end_token_ids
from lco.models.export import export
from lco.policy import PolicyModel, Statistics
from lco.problems import Problem, encode, style_named
from lco.rollout.records import Sampling, collate
from lco.rollout.transformers import TransformersSampler

pytestmark = pytest.mark.long
ROOT = os.environ.get("LCO_MODEL_DIR", "")
FOLDERS = sorted(path.parent for path in Path(ROOT).glob("*/config.json")) if ROOT else []
QUESTION = Problem(id="a", problem="Mia has 3 boxes of 4 pens\n and gives 5 away. How many are left?", answer="7")
HOSTILE = {
    "repetition_penalty": 5.0,
    "top_k": 1,
    "top_p": 0.01,
    "temperature": 0.01,
    "max_new_tokens": 2,
    "do_sample": True,
}


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(folder):
    return models.load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def network(folder):
    return models.load_model(str(folder), "float32", "cpu")


@pytest.mark.parametrize("style", ["boxed", "boxed_user"])
def test_training_and_both_harnesses_send_the_same_ids(folder, tokenizer, network, style, tmp_path):
    """One BOS where the template writes one, one system message, one turn of the assistant."""
    from lm_eval.models.huggingface import HFLM

    ids = encode(tokenizer, QUESTION, style_named(style))
    text = tokenizer.decode(ids)
    bos = tokenizer.bos_token_id
    assert ids.count(bos) <= 1 or tokenizer.bos_token in text.split(QUESTION.problem)[0].strip()[1:]
    assert text.count("<|im_start|>system") == 1
    assert text.count("<|im_start|>user") == 1
    assert text.count("<|im_start|>assistant") == 1
    assert text.count(QUESTION.problem) == 1
    if style != "boxed":
        return  # the tasks ask in the style "boxed"
    (tmp_path / "gsm8k_test.jsonl").write_text(
        json.dumps({"id": "a", "problem": QUESTION.problem, "answer": "7", "solution": "#### 7"}) + "\n"
    )
    stock = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=1)
    for lm in (SamplerLM(None, tokenizer, (0,), 0), stock):
        task = load_tasks(["lco_gsm8k"], str(tmp_path)).tasks["lco_gsm8k"]
        task.build_all_requests(limit=1, apply_chat_template=True, chat_template=lm.apply_chat_template)
        sent = task.instances[0].args[0]
        found = (
            stock.tok_batch_encode([sent])[0][0].tolist()
            if lm is stock
            else tokenizer.encode(sent, add_special_tokens=False)
        )
        assert tuple(found) == ids


def test_every_end_token_of_the_family_stops_a_row(folder, tokenizer):
    from transformers import GenerationConfig

    ends = end_token_ids(tokenizer, str(folder))
    listed = GenerationConfig.from_pretrained(folder).eos_token_id
    assert set(listed if isinstance(listed, list) else [listed]) <= set(ends)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ends  # what the chat template ends a turn with
    assert tokenizer.eos_token_id in ends


def sampled(sampler, folder, tokenizer, temperature=0.8):
    prompts = [(str(i), encode(tokenizer, QUESTION, style_named("boxed"))) for i in range(2)]
    sampling = Sampling(temperature, 1.0, 0, 8, 2, end_token_ids(tokenizer, str(folder)))
    return sampler.sample(prompts, sampling, seed=3)


def gap(network, rows, temperature=0.8):
    """Largest |Δ log p| between sampler and trainer."""
    with torch.no_grad():
        ours = PolicyModel(network, temperature)(collate(rows), Statistics(["logprob"]))["logprob"]
    return max(float((ours[i, : len(r.logprobs)] - torch.tensor(r.logprobs)).abs().max()) for i, r in enumerate(rows))


def test_the_trainers_log_probabilities_are_the_transformers_samplers(folder, tokenizer, network):
    rows = sampled(TransformersSampler(network), folder, tokenizer)
    assert gap(network, rows) < 1e-3
    assert gap(network, rows, temperature=1.0) > 1e-2  # another temperature is another policy


@pytest.mark.timeout(1200)
def test_vllm_draws_from_the_policy_whatever_the_checkpoint_says(folder, tokenizer, network, tmp_path):
    """A generation_config.json with penalties and truncation changes nothing: not the rows, not their probabilities."""
    from lco.rollout.vllm import VLLMSampler

    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            (hostile / file.name).symlink_to(file)
        elif file.is_file():
            shutil.copy(file, hostile)
    said = json.loads((folder / "generation_config.json").read_text())
    (hostile / "generation_config.json").write_text(json.dumps({**said, **HOSTILE}))
    sampler = VLLMSampler(str(hostile), "float32", cache_gib=0.5, max_model_len=256, separate_process=False)
    try:
        rows = sampled(sampler, folder, tokenizer)
    finally:
        sampler.close()
    assert gap(network, rows) < 1e-3
    assert len({row.response_ids for row in rows}) > 1  # top_k = 1 would make all rows equal
    assert all(len(row.response_ids) > 2 or row.finish_reason == "stop" for row in rows)


def test_a_saved_policy_reloads_bit_for_bit(folder, tokenizer, network, tmp_path):
    from transformers import AutoModelForCausalLM

    where = tmp_path / "saved"
    export(network, tokenizer, where, dict(PolicyModel(network).named_weights()))
    again = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(again[name], weight), name
    saved = models.load_tokenizer(str(where))
    assert encode(saved, QUESTION, style_named("boxed")) == encode(tokenizer, QUESTION, style_named("boxed"))
