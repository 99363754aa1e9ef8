"""Two checkouts are told apart by the last bit, and a half of a comparison is used again only for what it was made from."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
from compare_checkouts import main, read_cases
from kept_runs import digest

from lco.errors import UserError
from lco.methods import METHODS
from lco.methods.lco_common import OTHER_ADVANTAGES, SIGN

ROOT = Path(__file__).parents[2]


def compare(before, after, *options, keep=None, only=("grpo",)):
    kept = ["--keep", str(keep)] if keep else []
    return main([str(before), str(after), "--only", *only, "--engines", "torch", *kept, *options])


def lines(capsys):
    """{case: its line} of what was printed last."""
    printed = capsys.readouterr().out.split("\n")
    return {line.split()[1]: line for line in printed if line.startswith(("identical", "differs"))}


@pytest.mark.long
def test_the_suite_is_its_own_equal_and_a_changed_constant_of_a_loss_is_told_by_name(tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "lco", copy / "lco", ignore=shutil.ignore_patterns("__pycache__"))
    only = ("reinforce", "grpo")
    assert compare(ROOT, copy, keep=tmp_path / "runs", only=only) == 0
    assert [line.split()[0] for line in lines(capsys).values()] == ["identical", "identical"]
    file = copy / "lco" / "methods" / "grpo.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("CLIP = Hyperparameter(0.2", "CLIP = Hyperparameter(0.1"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != text
    assert compare(ROOT, copy, keep=tmp_path / "runs", only=only) == 1
    found = lines(capsys)
    assert found["torch/reinforce"].startswith("identical")
    assert re.match(
        r"differs  .*metrics: line \d, \w+: \S+ → \S+, by .*weights: model\.\S+, by up to", found["torch/grpo"]
    )


def test_equal_checkouts_are_identical_and_what_differs_is_named_with_the_distance(make_checkout, capsys):
    before, same, other = (
        make_checkout("before"),
        make_checkout("same"),
        make_checkout("other", weight="1.5", tokens="99"),
    )
    assert compare(before, same) == 0
    assert lines(capsys) == {"torch/grpo": "identical  torch/grpo"}
    assert compare(before, other) == 1
    line = lines(capsys)["torch/grpo"]
    assert "metrics: line 1, tokens: 100 → 99, by 1 (0.01 of it) (4 of 20 values differ)" in line
    assert "weights: head.weight, by up to 0.5 (1 of 1 tensors differ)" in line


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("print('lco: there is no method grpo', file=sys.stderr); return 2", "there is no method grpo"),
        ("raise ValueError('two by three')", "ValueError: two by three"),
        (
            "print('out of memory', flush=True); os._exit(7)",
            "the process ended with exit code 7; its last words: out of memory",
        ),
    ],
)
def test_a_case_that_one_side_refuses_differs_with_both_messages(make_checkout, capsys, first, message):
    assert compare(make_checkout("before"), make_checkout("after", first)) == 1
    assert lines(capsys)["torch/grpo"] == f"differs    torch/grpo  BEFORE: runs | AFTER: {message}"


def test_a_failed_case_is_tried_again(make_checkout, calls, tmp_path):
    before, after, keep = (
        make_checkout("before"),
        make_checkout("after", "if not Path('ready').exists(): return 2"),
        tmp_path / "runs",
    )
    assert compare(before, after, keep=keep) == 1
    (after / "ready").touch()  # not in lco/: the same source, a machine in another state
    assert compare(before, after, keep=keep) == 0
    assert (calls(before), calls(after)) == (["grpo"], ["grpo", "grpo"])


def test_a_process_that_a_case_ended_is_followed_by_another(make_checkout, capsys):
    dying = "flags['--method'] == 'grpo' and os._exit(7)"
    assert compare(make_checkout("before"), make_checkout("after", dying), only=("grpo", "sft")) == 1
    assert [line.split()[0] for line in lines(capsys).values()] == ["differs", "identical"]


def test_a_case_that_compares_nothing_is_not_called_identical(make_checkout, capsys):
    idle, refusing = ({"updates": "0"}, {"first": "return 2"})
    assert compare(make_checkout("idle", **idle), make_checkout("too", **idle)) == 1
    assert "made no update" in lines(capsys)["torch/grpo"]
    assert compare(make_checkout("refusing", **refusing), make_checkout("as well", **refusing)) == 1
    assert "both refuse" in lines(capsys)["torch/grpo"]


def test_a_kept_half_is_not_made_again_and_an_unfinished_one_goes_on(make_checkout, calls, tmp_path, capsys):
    before, after = make_checkout("before"), make_checkout("after")
    keep = tmp_path / "runs"
    assert compare(before, after, keep=keep) == 0
    assert compare(before, after, keep=keep, only=("grpo", "sft")) == 0
    assert calls(before) == calls(after) == ["grpo", "sft"]
    # Another checkout is compared with the kept half, which serves wherever the first checkout lies now.
    moved, third = tmp_path / "moved", make_checkout("third", weight="1.5")
    before.rename(moved)
    assert compare(moved, third, keep=keep, only=("grpo", "sft")) == 1
    assert calls(moved) == ["grpo", "sft"]
    assert calls(third) == ["grpo", "sft"]


def test_a_kept_run_of_other_code_other_models_or_a_stopped_run_is_made_again(make_checkout, calls, tmp_path):
    before, after, keep = make_checkout("before"), make_checkout("after"), tmp_path / "runs"
    assert compare(before, after, keep=keep) == 0
    (before / "reproduce" / "start" / "llama" / "model.safetensors").write_bytes(b"other weights")
    assert compare(before, after, keep=keep) == 0
    assert calls(before) == calls(after) == ["grpo"] * 2
    code = after / "lco" / "cli.py"
    code.write_text(code.read_text().replace("final.mkdir(parents=True)", "return 0"))  # as after Ctrl-C
    assert compare(before, after, keep=keep) == 130
    assert compare(before, after, keep=keep) == 130
    assert calls(before) == ["grpo"] * 2
    assert calls(after) == ["grpo"] * 4


def test_a_source_that_changes_while_it_runs_is_not_kept(make_checkout, calls, tmp_path, capsys):
    before, after = make_checkout("before"), make_checkout("after", "Path('lco', 'new.py').touch()")
    keep = tmp_path / "runs"
    assert compare(before, after, keep=keep) == 2
    assert "changed while its runs were made" in capsys.readouterr().err
    (after / "lco" / "new.py").unlink()
    assert compare(before, after, keep=keep) == 2
    assert calls(before) == ["grpo"]
    assert calls(after) == ["grpo"] * 2


def test_what_decides_bits_is_in_a_sources_digest_and_what_does_not_is_not(make_checkout):
    one, other = make_checkout("one"), make_checkout("other")
    assert digest(one) == digest(other)
    (other / "README.md").write_text("text")
    (other / "lco" / "cli.pyc").write_text("compiled")
    assert digest(one) == digest(other)
    (other / "lco" / "cli.py").rename(other / "lco" / "cli2.py")
    (other / "lco" / "cli.py").touch()
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "grpoo"], "there is no case 'grpoo'"),
        (["--only", "rloo", "--engines", "deepspeed2"], "no such case runs under deepspeed2, only grpo"),
        (["--start", "elsewhere"], "there is no llama/model.safetensors in elsewhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_another_exit_status_than_a_difference(capsys, arguments, message):
    assert main([str(ROOT), str(ROOT), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert main([str(ROOT), str(ROOT / "docs")]) == 2
    assert "docs holds no lco/cli.py" in capsys.readouterr().err


def hyper_of(case):
    """The method of a case, and its knobs as they are typed."""
    flags = list(case.flags)
    method = flags[flags.index("--method") + 1]
    after = flags[flags.index("--hyper") + 1 :] if "--hyper" in flags else []
    return method, dict(word.split("=") for word in itertools.takewhile(lambda word: not word.startswith("--"), after))


RUN = [(*hyper_of(case), case) for case in read_cases() if case.engine == "torch"]


def test_every_registered_method_has_a_case_at_its_defaults_and_some_run_under_every_engine():
    assert {method for method, hyper, _ in RUN if not hyper} >= set(METHODS)
    engines = {engine: {c.name for c in read_cases() if c.engine == engine} for engine in ("deepspeed2", "deepspeed3")}
    assert engines["deepspeed2"] == engines["deepspeed3"]
    assert {METHODS[name].scope for name in engines["deepspeed2"]} == {"token", "row", "pair"}


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("lco_")])
def test_every_estimator_of_an_lco_method_has_a_case_on_every_support_or_space_that_it_can_have(name):
    method = METHODS[name]
    knobs = [knob for knob in ("estimator", "support", "target_space") if knob in method.hyperparameters]
    cases = [method.read_values(hyper)[0] for named, hyper, _ in RUN if named == name]
    found = {tuple(case[knob] for knob in knobs) for case in cases}
    preset = bool(method.variant_of)
    for values in itertools.product(*(method.hyperparameters[knob].choices for knob in knobs)):
        try:
            method.bind(dict(zip(knobs, values, strict=True)))
        except UserError:
            continue
        # A preset is another method's defaults: its estimators all run, each on one support or space.
        assert values in found or (preset and values[0] in {other[0] for other in found}), values


def test_every_advantage_and_both_critics_have_a_case():
    advantages = {hyper["advantage"] for method, hyper, _ in RUN if "advantage" in hyper}
    # The default is what older versions, which the cases are run in too, call the group's mean.
    assert advantages | {"group_mean"} == {*OTHER_ADVANTAGES, SIGN}
    separate = {method for method, _, case in RUN if "separate" in case.flags}
    assert {"ppo", "lco_kld"} <= separate
