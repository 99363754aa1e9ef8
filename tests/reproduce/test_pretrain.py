"""The committed start models and the command that rebuilds them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lco.problems.arithmetic import VOCABULARY, arithmetic_problems, pretraining_pairs
from reproduce.miniature import start_model
from reproduce.miniature.recipe import Recipe
from tests.conftest import START

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {"qwen": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
PARAMETERS = {"qwen": 453_888, "llama": 453_120}


@pytest.fixture(params=CLASSES)
def name(request):
    return request.param


@pytest.fixture
def folder(name):
    return START / name


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_committed_folder_loads_small_tied_and_as_recorded(name, folder):
    model, tokenizer = load(folder)
    record = json.loads((folder / "start.json").read_text())
    weights = folder / "model.safetensors"
    assert type(model).__name__ == CLASSES[name] == record["class"]
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name] == record["parameters"]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["weights_sha256"]
    # Tied in the file (one matrix), in the configuration and in memory.
    stored = load_file(weights)
    assert "lm_head.weight" not in stored
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, stored["model.embed_tokens.weight"])
    assert len(tokenizer) == model.config.vocab_size == len(VOCABULARY) + 4 == 77


def test_start_is_worth_improving(folder):
    """Recorded: pass@1 at temperature 1 between 20 % and 60 %. Measured again here on fewer problems."""
    recorded = json.loads((folder / "start.json").read_text())["validation_pass_at_1"]
    assert 0.2 <= recorded["temperature_1"] <= 0.6
    model, tokenizer = load(folder)
    recipe = Recipe(seed=7, validation_problems=256)
    measured = start_model.pass_at_1(model, tokenizer, recipe, temperature=1.0, samples=1)
    assert measured == pytest.approx(recorded["temperature_1"], abs=0.1)
    assert start_model.pass_at_1(model, tokenizer, recipe, 0.0, 1) == pytest.approx(recorded["greedy"], abs=0.1)


def test_generation_config_holds_special_tokens_alone(folder):
    text = json.loads((folder / "generation_config.json").read_text())
    text.pop("transformers_version")
    assert text == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<pad>", "<bos>", "<eos>", "<unk>"]


def test_chat_template_gives_one_bos_and_the_words(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for problem in arithmetic_problems("train", 50, seed=0):
        chat = [{"role": "user", "content": problem.problem}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert text == f"<bos> {problem.problem}"
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert ids == tokenizer.convert_tokens_to_ids(["<bos>", *problem.problem.split()])
        assert ids == tokenizer.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.unk_token_id not in ids
        whole = [*chat, {"role": "assistant", "content": problem.solution}]
        assert tokenizer.apply_chat_template(whole, return_dict=False) == [
            *ids,
            *tokenizer.encode(problem.solution, add_special_tokens=False),
            tokenizer.eos_token_id,
        ]


def test_chat_template_refuses_a_system_message(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "system", "content": "Think."}, {"role": "user", "content": "Ann has 1 nuts . finds 2 . eats 1 ?"}]
    with pytest.raises(Exception, match="user and assistant messages only, not system"):
        tokenizer.apply_chat_template(chat, tokenize=False)


def test_tokenizer_round_trip(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for problem, response in pretraining_pairs(200, seed=0):
        for text in (problem, response):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert len(ids) == len(text.split())
            assert tokenizer.decode(ids) == text
            assert tokenizer.decode([1, *ids, 2, 0], skip_special_tokens=True) == text
    assert tokenizer.encode("Zoe has 41 cats") == tokenizer.convert_tokens_to_ids(["<unk>", "has", "<unk>", "<unk>"])


def test_sampling_does_not_depend_on_the_padding_beside_a_row(folder):
    """A greedy response is the same alone and beside longer prompts, and the same as that of ``generate``."""
    model, tokenizer = load(folder)
    prompts = [
        start_model.prompt_ids(tokenizer, problem.problem) for problem in arithmetic_problems("validation", 8, 0)
    ]
    draws = torch.Generator().manual_seed(0)
    together = start_model.sample(model, tokenizer, prompts, 0.0, draws)
    for prompt, response in zip(prompts, together, strict=True):
        assert start_model.sample(model, tokenizer, [prompt], 0.0, draws) == [response]
        generated = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=32)
        assert generated[0, len(prompt) :].tolist() == [*response, tokenizer.eos_token_id]


def test_the_command_builds_loadable_folders(tmp_path):
    """Three steps from the command line, both classes side by side."""
    command = [
        sys.executable,
        "-m",
        "reproduce.miniature.pretrain",
        "--steps",
        "3",
        "--validation-problems",
        "4",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    for name, class_name in CLASSES.items():
        assert class_name in done.stdout
        model, tokenizer = load(tmp_path / name)
        assert type(model).__name__ == class_name
        output = model(torch.tensor([start_model.prompt_ids(tokenizer, "Ann has 1 nuts . finds 2 . eats 1 ?")]))
        assert output.logits.shape == (1, 12, 77)
        assert json.loads((tmp_path / name / "start.json").read_text())["recipe"]["steps"] == 3


def test_same_seed_same_weights_and_global_generator_untouched(tmp_path, name):
    recipe = Recipe(steps=2, batch_size=8, validation_problems=2, validation_samples=1)
    before = torch.random.get_rng_state()
    first = start_model.build_start(name, tmp_path / "first", recipe)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    second = start_model.build_start(name, tmp_path / "second", recipe)
    assert first["weights_sha256"] == second["weights_sha256"]
    other = Recipe(steps=2, batch_size=8, validation_problems=2, validation_samples=1, seed=1)
    assert start_model.build_start(name, tmp_path / "third", other)["weights_sha256"] != first["weights_sha256"]


def test_learning_rate_warms_up_stays_and_falls():
    recipe = Recipe(steps=1000)
    rates = [start_model.learning_rate(step, recipe) for step in range(1000)]
    assert rates[0] == pytest.approx(recipe.learning_rate / 50)
    assert rates[49] == rates[499] == recipe.learning_rate
    assert rates[749] == pytest.approx(recipe.learning_rate * 0.525)
    assert rates[-1] == pytest.approx(recipe.learning_rate * 0.05)


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("12 - 5 = 7 ; 7 + 8 = 15 ; #### 15", True),
        ("#### 15", True),
        ("#### 14", False),
        ("#### 15 ;", False),
        ("#### 14 #### 15", False),
        ("12 - 5 = 7 ; 15", False),
    ],
)
def test_a_response_is_right_when_it_ends_with_the_answer(words, right):
    tokenizer = start_model.build_tokenizer()
    problem = next(problem for problem in arithmetic_problems("train", 500, 0) if problem.answer == "15")
    assert start_model.is_right(tokenizer, tokenizer.encode(words), problem) is right
