"""Prompts are the same tokens on every day, in every program, and a thought that they open belongs to the response."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lco.cli import main
from lco.errors import UserError
from lco.models.export import export
from lco.problems.prompts import (
    DIRECTIVES,
    STYLES,
    TEMPLATE_DATE,
    prompt_facts,
    prompts_sha256,
    render,
    with_pinned_date,
    with_thinking,
)
from lco.verifier import with_open_thought
from tests.conftest import START, tiny_model

ASKED = [{"role": "user", "content": "x"}]
# As Llama-3.2, SmolLM3, gpt-oss and Granite write it, each under a name of its own; inside a macro; after blanks.
DATES = {
    "{% if not date_string %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}": "26 Jul 2024",
    "{%- set today = strftime_now('%d %B %Y') -%}\nToday Date: {{ today }}": "Today Date: 26 July 2024",
    "{{- 'Current date: ' + strftime_now('%Y-%m-%d') }}": "Current date: 2024-07-26",
    "  {% if strftime_now is defined %}{% set d = strftime_now('%B %d, %Y') %}{% endif %}{{ d }}": "July 26, 2024",
    "{% macro head() %}{{ strftime_now('%-d.%-m.%y') }}{% endmacro %}\n{{ head() }}": "26.7.24",
    "\n {{ strftime_now('%A') }}": "\n Friday",
}


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(START / "llama")


@pytest.mark.parametrize("template", DATES)
def test_a_template_prints_the_pinned_day_whatever_it_calls_it(tokenizer, template):
    tokenizer.chat_template = template
    assert render(tokenizer, ASKED) == DATES[template]
    assert prompt_facts(tokenizer)["template_date"] == "26 Jul 2024"


@pytest.mark.parametrize("template", DATES)
def test_other_programs_print_it_too_from_a_saved_tokenizer(tokenizer, template, tmp_path):
    """A trained model may be trained and saved again; the template that was given stays as it is."""
    tokenizer.chat_template = template
    with_pinned_date(tokenizer).save_pretrained(tmp_path / "once")
    assert tokenizer.chat_template == template
    once = AutoTokenizer.from_pretrained(tmp_path / "once")
    with_pinned_date(once).save_pretrained(tmp_path / "twice")
    twice = AutoTokenizer.from_pretrained(tmp_path / "twice")
    assert once.chat_template == twice.chat_template
    assert twice.apply_chat_template(ASKED, tokenize=False) == render(twice, ASKED) == DATES[template]
    assert prompt_facts(twice)["template_date"] == "26 Jul 2024"


def test_every_directive_of_the_pinned_clock_is_pythons(tokenizer):
    asked = " ".join(f"%{d}" for d in DIRECTIVES)
    tokenizer.chat_template = "{{ strftime_now('" + asked + "') }}"
    saved = with_pinned_date(tokenizer)
    assert saved.apply_chat_template(ASKED, tokenize=False) == TEMPLATE_DATE.strftime(asked) == render(tokenizer, ASKED)


def test_a_template_without_a_date_is_saved_as_it_is(tokenizer):
    assert with_pinned_date(tokenizer).chat_template == tokenizer.chat_template
    assert prompt_facts(tokenizer)["template_date"] == ""
    tokenizer.chat_template = {"default": "{{ 1 }}", "tools": "{{ strftime_now('%d') }}"}
    saved = with_pinned_date(tokenizer).chat_template
    assert saved["default"] == "{{ 1 }}"
    assert saved["tools"].endswith("{{ strftime_now('%d') }}")
    assert len(saved["tools"]) > 40


def test_a_trained_model_is_saved_with_the_date_of_its_training(tokenizer, tmp_path):
    """Asked in a process of its own on a day of its own: what stock lm_eval or a server sends to the saved model."""
    tokenizer.chat_template = (
        "{% set today = strftime_now('%d %b %Y') %}{{ bos_token }}{{ today }} {{ messages[0].content }}"
    )
    trained = render(tokenizer, ASKED)
    model = tiny_model()
    export(model, tokenizer, tmp_path, dict(model.state_dict()))
    script = (
        "import json, sys\nfrom transformers import AutoTokenizer\n"
        "t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        f"print(json.dumps(t.apply_chat_template({ASKED!r}, tokenize=False)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path(tmp_path),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert json.loads(said.stdout) == trained == "<bos>26 Jul 2024 x"


def test_a_prompt_that_opens_a_thought_says_so():
    opened = {
        "<｜User｜>1 + 1?<｜Assistant｜><think>\n": "<think>",
        "<|im_start|>assistant\n<think>\n": "<think>",
        "<|im_start|>assistant\n<think>": "<think>",
        "<|im_start|>assistant\n<Reasoning> \n": "<Reasoning>",
        "<|im_start|>assistant\n": "",
        "<|im_start|>assistant\n<think>\n\n</think>\n\n": "",  # Qwen3 with thinking switched off
        "<|im_start|>user\nWhat does <think> mean?<|im_end|>\n<|im_start|>assistant\n": "",
        "[INST]1 + 1?[/INST][THINK]": "[THINK]",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>": "<|START_THINKING|>",
        "<|start|>assistant<|channel|>analysis<|message|>": "<|channel|>analysis<|message|>",
        "<|start|>assistant<|channel|>analysis<|message|>No.<|end|><|start|>assistant<|channel|>final<|message|>": "",
        "<|im_start|>assistant\n< think >\n": "< think >",
        '<|im_start|>assistant\n<think type="deep">': '<think type="deep">',
        "<|im_start|>assistant\n<scratchpad>": "<scratchpad>",
        "<start_of_turn>model\n<unused94>thought\n": "<unused94>thought",
        # Words that the template puts into the thought are a part of it ...
        "<|im_start|>assistant\n<think>\nOkay, let me see.": "<think>Okay, let me see.",
        # ... and a thought that the question talks of is none.
        "What does <think> mean?": "",
        "<|im_start|>user\nThink in <think> tags: 1 + 1?<|im_end|>\n<|im_start|>assistant\nSure. ": "",
        "User: think in <think> tags.\nAssistant: ": "",
        "<|turn>system\n<|think|><turn|>\n<|turn>user\n1 + 1?<turn|>\n<|turn>model\n": "",
    }
    for prompt, tag in opened.items():
        assert with_open_thought(prompt, "2") == tag + "2", prompt


def test_a_template_that_ends_in_a_thought_opens_one(tokenizer):
    tokenizer.chat_template = "{{ messages[0].content }}{% if add_generation_prompt %}<think>{{ '\\n' }}{% endif %}"
    assert with_open_thought(render(tokenizer, STYLES["plain"].messages("x")), "2") == "<think>2"


def test_the_hash_of_prompts_knows_ids_their_order_and_their_borders():
    one = prompts_sha256([(1, 2), (3,)])
    assert one == prompts_sha256([[1, 2], [3]])
    assert (
        len({one, prompts_sha256([(3,), (1, 2)]), prompts_sha256([(1,), (2, 3)]), prompts_sha256([(12,), (3,)])}) == 4
    )


THINKS = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if not enable_thinking %}<think></think>{% endif %}"
)
"""As Qwen3 and SmolLM3 have it."""


def test_thinking_is_switched_for_every_program_that_reads_the_template(tmp_path):
    messages = [{"role": "user", "content": "1 + 1?"}]
    tokenizer = AutoTokenizer.from_pretrained(START / "llama")
    tokenizer.chat_template = THINKS
    assert render(tokenizer, messages) == "1 + 1?"
    off, on = with_thinking(tokenizer, "off"), with_thinking(tokenizer, "on")
    assert (render(off, messages), render(on, messages)) == ("1 + 1?<think></think>", "1 + 1?")
    assert tokenizer.chat_template == THINKS
    assert with_thinking(tokenizer, "") is tokenizer
    assert prompt_facts(off)["thinking"] == "off"
    assert "thinking" not in prompt_facts(tokenizer)
    with_pinned_date(off).save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    # Stock lm_eval names no value, or its own.
    for told in ({}, {"enable_thinking": True}):
        text = saved.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **told)
        assert text == "1 + 1?<think></think>"
    assert with_thinking(saved, "off").chat_template == saved.chat_template
    with pytest.raises(UserError, match="was trained with --thinking off"):
        with_thinking(saved, "on")


def test_a_template_that_knows_no_thinking_is_refused(capsys):
    flags = [
        "train",
        "--model",
        str(START / "llama"),
        "--thinking",
        "off",
        "--max-prompt-tokens",
        "32",
        "--device",
        "cpu",
    ]
    assert main(flags) == 2
    assert "does not know enable_thinking, so --thinking off would change nothing" in capsys.readouterr().err
