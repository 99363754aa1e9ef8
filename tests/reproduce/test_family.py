"""The family commands: what a plan says before anything is loaded, and the whole script on a stand-in."""

import dataclasses
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from lco.config import Experiment
from lco.errors import UserError
from lco.evidence.records import read_all
from reproduce.common import family, memory
from reproduce.common import plan as plan_of_study
from reproduce.common.study import take_lock
from reproduce.llama import LLAMA
from reproduce.qwen import QWEN
from tests.reproduce import counting

ROOT = Path(__file__).parents[2]
SCALES = [(one, scale) for one in (QWEN, LLAMA) for scale in one.scales]
PUBLISHED = {
    "0.5b": 494_032_768, "1.5b": 1_543_714_304, "3b": 3_085_938_688, "7b": 7_615_616_512, "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360, "1b": 1_235_814_400, "8b": 8_030_261_248,
    "smollm2-135m": 134_515_008, "octothinker-3b": 3_212_749_824,
}  # fmt: skip
"""Parameters as the models' pages give them; Llama-3.2-3B's are OctoThinker's."""


@pytest.mark.parametrize(("one", "scale"), SCALES, ids=[f"{one.name}-{scale.name}" for one, scale in SCALES])
def test_every_architecture_has_the_parameters_that_its_page_gives(one, scale):
    expected = PUBLISHED["octothinker-3b" if (one.name, scale.name) == ("llama", "3b") else scale.name]
    assert memory.shape_of(scale.kind, scale.architecture).parameters == expected


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("stage", [2, 3])
def test_states_are_what_deepspeeds_estimator_says(gpus, stage):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    shape = memory.shape_of("qwen2", QWEN.scales[0].architecture)
    terms = memory.memory_terms(shape, Experiment(zero_stage=stage), gpus)
    if stage == 3 and gpus > 1:
        names = (memory.SHARED, "the largest module, gathered")
        _, expected, _ = estimate_zero3_model_states_mem_needs(
            shape.parameters, shape.largest, gpus, cpu_offload=False, cpu_offload_params=False
        )
    else:
        names = (memory.SHARED, "weights")
        _, expected = estimate_zero2_model_states_mem_needs(shape.parameters, gpus, cpu_offload=False)
    assert sum(terms[name] for name in names) == pytest.approx(expected, rel=1e-6)


def options(tmp_path, *words):
    return family.options(QWEN, "reproduce.qwen", "", [*words, "--out", str(tmp_path / "study")])


def test_a_plan_says_everything_before_anything_is_loaded(tmp_path, capsys):
    family.run_family(
        QWEN, "reproduce.qwen", "", ["0.5b", "--dry-run", "--slurm", "--seeds", "2", "--out", str(tmp_path)]
    )
    said = capsys.readouterr().out
    for words in (
        "15 cells",
        "lco_gsm8k (1 at T 0, 4 at T 1)",
        "vLLM: cache",
        "together",
        "hours",
        "of disk",
        "micro_batch",
    ):
        assert words in said
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["sha256"][:12] in said
    assert str(tmp_path) not in (tmp_path / "plan.json").read_text()
    assert "#SBATCH --array=1-15" in (tmp_path / "run.sbatch").read_text()
    assert "--dry-run" not in (tmp_path / "run.sbatch").read_text()
    assert not list(tmp_path.glob("*seed*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["qwen3-17b"], "there is no scale 'qwen3-17b'; did you mean 'qwen3-1.7b'"),
        (["0.5b", "--variant", "mth"], "0.5b has no variant 'mth'"),
        (["1.5b", "--variant", "mth"], "did you mean 'math'"),
        (["0.5b", "--methods", "gprpo"], "there is no method 'gprpo'; did you mean 'grpo'"),
        (["0.5b", "--tasks", "lco_gsm8"], "there is no task 'lco_gsm8'; did you mean 'lco_gsm8k'"),
        (["0.5b", "--seeds", "0"], "seeds is 0; give 1 or more"),
    ],
)
def test_mistakes_are_named_before_a_plan_is_written(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        family.run_family(QWEN, "reproduce.qwen", "", [*words, "--out", str(tmp_path / "study")])
    assert not (tmp_path / "study").exists()


def test_no_room_for_the_announced_checkpoints_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    words = ["0.5b", "--methods", "grpo", "--seeds", "2", "--out", str(tmp_path / "study")]
    with pytest.raises(UserError, match=r"no room for the checkpoints of 2 runs .* wanted in .*, but only .* are free"):
        family.run_family(QWEN, "reproduce.qwen", "", words)
    assert not (tmp_path / "study").exists()


def test_what_has_begun_needs_no_room_of_its_own_again(tmp_path, monkeypatch):
    chosen = options(tmp_path, "0.5b", "--methods", "grpo", "--seeds", "2")
    plan = plan_of_study.make_plan(QWEN, chosen)
    cells = family.cells_of(plan, chosen.out, chosen.records)
    one = memory.disk_of(memory.shape_of("qwen2", plan.scale.architecture))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**13, 0, int(1.5 * one)))
    with pytest.raises(UserError, match="checkpoints of 2 runs"):
        family.check_room(plan, cells, chosen.out)
    cells[1].folder.mkdir(parents=True)
    (cells[1].folder / "config.json").write_text("{}")
    family.check_room(plan, cells, chosen.out)


def test_a_lock_that_outlived_its_process_is_named_and_nothing_is_made(tmp_path):
    """The process that took it has ended; something of it (here: this test) holds it still."""
    study = counting.study([counting.cell(tmp_path, "first", 2)])
    (cell,) = study.cells
    cell.lock.parent.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    with FileLock(cell.lock):
        cell.owner.write_text(f"{ended.pid} {platform.node()}")
        with pytest.raises(
            UserError, match=rf"is held, but the process that took it \(pid {ended.pid}\) has ended.*goes on"
        ):
            take_lock(cell)
        assert family.status_of(cell).startswith(f"locked, but its process (pid {ended.pid}) has ended")
        cell.owner.write_text(f"{os.getpid()} {platform.node()}")
        assert take_lock(cell) is None
        assert family.status_of(cell) == "running"
        cell.owner.write_text(f"{ended.pid} another-machine")
        assert take_lock(cell) is None
    assert not cell.folder.exists()
    lock = take_lock(cell)  # the file alone is no obstacle
    assert lock is not None
    lock.release()


def test_an_empty_result_is_one_sentence_and_stays(tmp_path):
    plan = plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b", "--methods", "grpo"))
    file = tmp_path / "evals" / "lco_gsm8k-T0-n1.json"
    file.parent.mkdir()
    file.touch()
    with pytest.raises(UserError, match=r"lco_gsm8k-T0-n1\.json is not JSON .*make it again with `lco evaluate`"):
        family.evaluate_model("model", plan, plan.runs["grpo"], file.parent)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("made", ["folder", "empty file", "nothing"])
def test_results_with_nothing_in_them_make_no_table(tmp_path, made):
    place = tmp_path / "records"
    if made != "nothing":
        place.mkdir()
    if made == "empty file":
        (place / "start.json").touch()
    with pytest.raises(UserError, match=r"no result record below|not JSON|there is no folder"):
        family.print_tables(place, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_another_plan_under_the_same_records_is_refused_by_line(tmp_path):
    place = tmp_path / "study"
    plan_of_study.keep_plan(plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b")), place)
    plan_of_study.keep_plan(plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b")), place)
    before = (place / "plan.json").read_bytes()
    with pytest.raises(UserError, match=r"plan\.json plans seeds \[0, 1, 2\], and this call asks for \[0, 1\]"):
        plan_of_study.keep_plan(plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b", "--seeds", "2")), place)
    assert (place / "plan.json").read_bytes() == before


def test_a_setting_that_earlier_plans_did_not_have_changes_none_of_them(tmp_path):
    plan = plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b", "--methods", "grpo"))
    assert not {"reward", "track"} & set(plan.facts["methods"]["grpo"]["settings"])
    random = dataclasses.replace(plan.runs["grpo"], reward={"random": 1.0})
    assert dataclasses.replace(plan, runs={"grpo": random}).sha256 != plan.sha256


def test_a_scale_is_scored_on_what_it_is_trained_on(tmp_path):
    words = ["smollm2-135m", "--out", str(tmp_path / "study")]
    plan = plan_of_study.make_plan(LLAMA, family.options(LLAMA, "reproduce.llama", "", words))
    assert plan.runs["grpo"].problems == "addition"
    assert list(plan.tasks) == ["lco_addition"]


def test_a_short_study_is_one_budget_for_all_its_methods_and_minutes_by_its_plan(tmp_path):
    made = plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b", "--budget", "short", "--methods", "lco_lch", "grpo"))
    one, other = (plan_of_study.reuse.settings(run) for run in made.runs.values())
    assert {key for key in one if one[key] != other[key]} <= {"method", "hyper"}
    shape = memory.shape_of(made.scale.kind, made.scale.architecture)
    assert memory.hours_of(shape, made.runs["grpo"], 1, memory.Rate(), length=1.0) < 1 / 12
    assert (made.limit, list(made.tasks)) == (400, ["lco_gsm8k"])


def test_a_plan_is_of_the_method_that_takes_most_and_adds_up_what_each_takes(tmp_path):
    """GRPO's paper has a reference policy and longer responses; REINFORCE keeps the suite's budget."""
    words = ("0.5b", "--budget", "paper", "--methods", "reinforce", "grpo", "--seeds", "2")
    chosen = options(tmp_path, *words)
    made, rate = plan_of_study.make_plan(QWEN, chosen), memory.Rate()
    shape = memory.shape_of(made.scale.kind, made.scale.architecture)
    terms = {method: plan_of_study.terms_of(made, shape, method) for method in made.runs}
    assert "policies that do not learn" not in terms["reinforce"]
    assert terms["grpo"]["policies that do not learn"] == 2 * shape.parameters
    said = plan_of_study.describe_plan(made, family.cells_of(made, chosen.out, chosen.records), rate)
    assert "(grpo, which takes most)" in said
    assert "a run of reinforce: " in said
    assert "a run of grpo: " in said
    hours = sum(memory.hours_of(shape, run, made.scale.gpus, rate) for run in made.runs.values())
    assert f"all 4 runs: about {plan_of_study.in_hours(2 * hours)}" in said


def test_a_plan_says_under_what_it_trains_and_where_weights_come_from(tmp_path):
    def said(scale, *words):
        chosen = options(tmp_path, scale, "--methods", "grpo", *words)
        made = plan_of_study.make_plan(QWEN, chosen)
        return plan_of_study.describe_plan(made, family.cells_of(made, chosen.out, chosen.records), memory.Rate())

    one, eight, local = said("0.5b"), said("7b"), said("0.5b", "--model", str(tmp_path))
    assert re.search(r"engine +torch +one GPU", one)
    assert re.search(r"engine +deepspeed ", eight)
    assert re.search(r"processes +8 ", eight)
    assert re.search(r"stop +\[\] .* end token", one)
    for words in ("weights: Qwen/Qwen2.5-0.5B; from the hub", "HF_HUB_OFFLINE", "HF_ENDPOINT", "GGUF", "--data-dir"):
        assert words in one
    assert f"weights: {tmp_path}; of this machine" in local
    assert "not for commercial use" in said("3b")


def test_a_batch_script_is_the_same_call_whatever_stands_in_its_words(tmp_path):
    given = ["0.5b", "--dry-run", "--slurm", "--out", str(tmp_path / "a folder; $HOME")]
    script = plan_of_study.batch_script(
        "reproduce.qwen", given, plan_of_study.make_plan(QWEN, options(tmp_path, "0.5b")), 3
    )
    (line,) = (line for line in script.split("\n") if line.startswith("exec "))
    expected = [given[0], *given[3:], "--processes", "1"]
    assert shlex.split(line) == ["exec", ".venv/bin/python", "-m", "reproduce.qwen", *expected]


@pytest.mark.parametrize(
    ("hours", "words"), [(0.001, "1 minute"), (0.5, "30 minutes"), (2.0, "2.0 hours"), (26.04, "26.0 hours")]
)
def test_times_are_said_in_minutes_below_two_hours(hours, words):
    assert plan_of_study.in_hours(hours) == words


def record_of(method, hours, rollouts, peak=None, planned=None):
    cost = {"device_hours": hours, **({"peak_memory_gib": {"host": 1.0, "device": peak}} if peak is not None else {})}
    said = {"planned": {"device_hours": planned, "memory_gib": 20.0}} if planned else {}
    return {"method": method, "seed": 0, "budget": {"rollouts": rollouts}, "cost": cost, **said}


def test_hours_at_the_measured_rate_follow_what_was_recorded():
    """Two runs of 4 and 6 rollouts took 1 and 2 hours together with a start record that took none: 0.3 hours a rollout."""
    found = [record_of("start", 0.0, 0), record_of("grpo", 1.0, 4), record_of("ppo", 2.0, 6)]
    assert family.measured_hours(found, Experiment(steps=100)) == pytest.approx(30.0)
    assert family.measured_hours(found[:1], Experiment(steps=100)) is None


def test_what_a_run_took_stands_beside_what_its_plan_said():
    said = family.show_costs([record_of("grpo", 1.5, 4, peak=17.25, planned=1.0), record_of("ppo", 2.0, 4)])
    assert said == "grpo seed 0: 1.50 device hours, planned 1.00; 17.2 GiB of a GPU, planned 20.0"


def test_the_papers_own_settings_are_marked_as_such(tmp_path):
    plan = plan_of_study.make_plan(
        QWEN, options(tmp_path, "0.5b", "--budget", "paper", "--methods", "dapo", "reinforce")
    )
    assert "no settings of its paper are known" in plan.origins["reinforce"]
    assert "no settings" not in plan.origins["dapo"]
    assert plan.runs["dapo"].samples == 16


@pytest.mark.long
@pytest.mark.parametrize(("module", "scale"), [("reproduce.qwen", "qwen3-4b"), ("reproduce.llama", "1b")])
def test_the_whole_script_runs_on_a_stand_in_and_is_not_repeated(tmp_path, module, scale):
    command = [
        *(sys.executable, "-m", module, scale, "--smoke", "--methods", "grpo", "--seeds", "1", "--out", str(tmp_path)),
        *("--processes", "1"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 done" in done.stdout
    assert "| start model |" in (tmp_path / "report" / "table.md").read_text()
    found = read_all(tmp_path / "records")
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {record["method"] for record in found} == {"start", "grpo"}
    assert {record["plan_sha256"] for record in found} == {plan["sha256"]}
    before = {path: path.read_bytes() for path in (tmp_path / "records").rglob("*") if path.is_file()}
    again = subprocess.run([*command, "--status"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.stdout.count("done") == 3
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert {path: path.read_bytes() for path in (tmp_path / "records").rglob("*") if path.is_file()} == before
