"""docs/one_step.md: every name stands where the page says; and how far it is from the command to the loss."""

import re
import traceback
from pathlib import Path

import pytest

from lco.cli import main
from lco.methods import METHODS, method_named
from lco.methods.method import Method
from lco.training import resolve as resolving
from lco.training import rules
from tests.conftest import START

PAGE = Path("docs/one_step.md").read_text(encoding="utf-8")
FILES = re.findall(r"^\| `(lco/[\w/]+\.py)` \|(.*)\|$", PAGE, re.MULTILINE)
PATHS = sorted(Path("lco").rglob("*.py"))
CODE = "\n".join(path.read_text(encoding="utf-8") for path in PATHS)
SOURCES = {path: Path(path).read_text(encoding="utf-8") for path, _ in FILES}


def test_the_page_fits_a_screen_and_names_no_more_than_twelve_files():
    assert len(PAGE.splitlines()) <= 60
    assert 8 <= len(FILES) <= 12
    told = int("".join(re.findall(r"Twelve files, (\d) (\d{3}) lines", PAGE)[0]))
    assert sum(source.count("\n") for source in SOURCES.values()) == pytest.approx(told, rel=0.1)


def defines(source, name):
    return re.search(rf"^\s*(?:def|class) {name}\b|^\s*{name}(?::.*)? = |^\s+{name}: ", source, re.MULTILINE)


@pytest.mark.parametrize(("path", "words"), FILES)
def test_every_file_defines_what_its_row_names_first(path, words):
    first, *further = re.findall(r"`([\w.]+)`", words.split("(")[0])
    assert all(defines(SOURCES[path], name) for name in first.split("."))
    assert all(defines(CODE, part) for name in further for part in name.split("."))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w[\w.]*)(?:\([^`]*\))?`", PAGE.split("## The walk")[1]))))
def test_every_name_of_the_walk_is_defined_in_the_code(name):
    """A class before its method or field, an object (`objective.loss`) after its class."""
    if name.endswith((".py", ".jsonl")):
        assert any(str(path).endswith(name) for path in PATHS) or name in CODE
        return
    assert all(
        defines(CODE, part) or f'"{part}":' in CODE or defines(CODE, part.capitalize()) for part in name.split(".")
    )


def train(out, *more):
    flags = ["--model", str(START / "llama"), "--method", "grpo", "--extraction", "hash", "--max-prompt-tokens", "32",
             "--prompts-per-step", "2", "--samples", "2", "--steps", "1", "--limit", "20", "--device", "cpu"]  # fmt: skip
    return main(["train", *flags, "--out", str(out), *more])


def broken_loss(hyper):
    def per_token(s, x):
        raise ZeroDivisionError("in the loss")

    return per_token


def test_a_traceback_out_of_a_loss_has_twelve_frames_of_the_suite_at_most(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "grpo", METHODS["grpo"].variant("grpo", "GRPO", "", loss=broken_loss))
    with pytest.raises(ZeroDivisionError) as caught:
        train(tmp_path / "run")
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    own = [frame for frame in frames if str(Path("lco").resolve()) in frame]
    assert frames[-1] == __file__
    assert 5 < len(own) + 1 <= 12  # with the loss's own frame, which stands in this file


def test_a_run_resolves_its_configuration_once(tmp_path, monkeypatch):
    """The method is looked up once and bound once, the fixed models are found once, every rule is asked once."""
    counted: dict[str, int] = {}

    def count(where, name, key):
        called = getattr(where, name)

        def counting(*arguments, **named):
            counted[key] = counted.get(key, 0) + 1
            return called(*arguments, **named)

        monkeypatch.setattr(where, name, counting)

    count(resolving, "method_named", "looked up")
    count(Method, "bind", "bound")
    for rule in ("check_values", "check_problems", "check_installed", "check_fixed_models", "check_objective"):
        count(rules, rule, rule)
    assert train(tmp_path / "run", "--minibatches", "2") == 0
    assert counted == dict.fromkeys(counted, 1)
    assert len(counted) == 7
    assert method_named("grpo") is METHODS["grpo"]
