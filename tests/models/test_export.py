"""Model folders that ship and those that training leaves give every program the same tokens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import tokenizers

from lco import models
from lco.models.export import export
from lco.problems import encode, load_problems, style_named
from tests.conftest import tiny_model

TEXT = "Ann has 16 apples . eats 5 . finds 12 ?"
ASK = f"""
import json, sys
from transformers import AutoTokenizer
found = []
for folder in sys.argv[1:]:
    for options in ({{}}, {{"trust_remote_code": False}}, {{"trust_remote_code": True}}):
        found.append(AutoTokenizer.from_pretrained(folder, **options).encode({TEXT!r}, add_special_tokens=False))
print(json.dumps(found))
"""


def test_shipped_and_exported_tokenizers_load_in_programs_that_trust_code_and_that_do_not(start_folder, tmp_path):
    """Asked in a process of its own, with a cache of its own."""
    model = tiny_model(start_folder.name)
    tokenizer = models.load_tokenizer(str(start_folder))
    export(model, tokenizer, tmp_path / "once", dict(model.state_dict()))
    export(model, models.load_tokenizer(str(tmp_path / "once")), tmp_path / "twice", dict(model.state_dict()))
    folders = [str(start_folder), str(tmp_path / "once"), str(tmp_path / "twice")]
    said = subprocess.run(
        [sys.executable, "-c", ASK, *folders], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    own = tokenizers.Tokenizer.from_file(str(start_folder / "tokenizer.json")).encode(TEXT).ids
    assert json.loads(said.stdout) == [own] * 9
    for folder in folders:
        config = json.loads(Path(folder, "tokenizer_config.json").read_text())
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # a name that transformers 4 knows too
        assert any(config.get("auto_map", {"AutoTokenizer": ["no code"]})["AutoTokenizer"])


def test_an_exported_model_sends_the_prompts_of_its_training(start_folder, tmp_path):
    model, tokenizer = tiny_model(start_folder.name), models.load_tokenizer(str(start_folder))
    export(model, tokenizer, tmp_path, dict(model.state_dict()))
    again = models.load_tokenizer(str(tmp_path))
    for problem in load_problems("arithmetic", "test", limit=20):
        assert encode(again, problem, style_named("plain")) == encode(tokenizer, problem, style_named("plain"))
    assert models.weights_sha256(models.load_model(str(tmp_path), "float32", "cpu")) == models.weights_sha256(model)
