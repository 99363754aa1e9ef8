"""`lco record`: any run becomes a record, and a stranger's record is taken for nothing that it does not show."""

import json
import re
import shutil

import psutil
import pytest

from lco.cli import main
from lco.evidence import records
from lco.evidence.check import seal
from lco.evidence.samples import choose_samples
from tests.conftest import START, small, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two rollouts, evaluated greedily and with samples."""
    folder = train(small(tmp_path_factory.mktemp("record") / "runs" / "a", steps=2))
    for flags in (["--temperature", "0"], ["--temperature", "1", "--samples", "4"]):
        command = ["evaluate", "--model", str(folder / "checkpoints" / "final"), "--tasks", "lco_miniature", *flags]
        assert main([*command, "--limit", "12", "--device", "cpu", "--out", str(folder / "evals")]) == 0
    return folder


@pytest.fixture
def place(run, tmp_path, capsys):
    """The record's file."""
    assert main(["record", str(run), "--out", str(tmp_path / "records")]) == 0
    capsys.readouterr()
    return next((tmp_path / "records").rglob("*.json"))


def test_a_run_becomes_a_record_that_holds_against_it(run, place, capsys):
    record = json.loads(place.read_text())
    assert record["schema"] == "lco-result/2"
    assert (place.parent.name, place.name) == (record["model"]["name"], "lco_kld-seed-0.json")
    assert [e["sampling"]["temperature"] for e in record["evaluations"]] == [0.0, 1.0]
    greedy, sampled = record["evaluations"]
    assert "answer_groups" not in greedy
    sizes = [
        sum(map(abs, groups)) + silent
        for groups, silent in zip(sampled["answer_groups"], sampled["no_answer"], strict=True)
    ]
    assert sizes == [4] * 12
    assert record["cost"]["device_hours"] == pytest.approx(record["seconds"]["total"] / 3600, rel=1e-4)
    peak = record["cost"]["peak_memory_gib"]
    assert 0.05 < peak["host"] < psutil.virtual_memory().total / 2**30
    assert peak["device"] == 0
    assert str(run.parent) not in place.read_text()
    assert main(["record", "--check", str(place)]) == 0
    assert "unverified, for its run is not at hand" in capsys.readouterr().out
    assert main(["record", "--check", str(place), "--runs", str(run.parent)]) == 0
    assert f"verified against {run}" in capsys.readouterr().out
    assert main(["record", str(run), "--out", str(place.parents[1])]) == 0  # the same again


def test_own_records_make_a_table_with_and_without_the_start_models(run, place, tmp_path, capsys):
    """As README says it: evaluate, record, table."""
    out, evals = place.parents[1], tmp_path / "start-evals"
    assert main(["table", "--results", str(out)]) == 0
    assert "start, not evaluated" in capsys.readouterr().out
    for flags in (["--temperature", "0"], ["--temperature", "1", "--samples", "4"]):
        command = ["evaluate", "--model", str(START / "llama"), "--tasks", "lco_miniature", *flags]
        assert main([*command, "--limit", "12", "--device", "cpu", "--out", str(evals)]) == 0
    results = [str(file) for file in sorted(evals.glob("*.json"))]
    assert main(["record", "--start", *results, "--out", str(out)]) == 0
    start = out / "llama" / "start.json"
    assert capsys.readouterr().out.endswith(f"{start}\n")
    assert main(["record", "--check", str(start)]) == 0
    assert main(["record", "--start", *results, "--out", str(out)]) == 0  # the same again
    capsys.readouterr()
    assert main(["table", "--results", str(out)]) == 0
    said = capsys.readouterr().out
    assert "| start, T = 1 |" in said
    assert "not evaluated" not in said
    trained = [str(file) for file in sorted((run / "evals").glob("*.json"))]
    assert main(["record", "--start", results[0], trained[1], "--out", str(tmp_path / "mixed")]) == 2
    assert "are of two models, or of two dtypes of one; record them one by one" in capsys.readouterr().err
    assert main(["record", "--start", *trained, "--out", str(tmp_path / "other")]) == 0
    (tmp_path / "other" / "final").rename(tmp_path / "other" / "llama")
    assert main(["record", "--start", *results, "--out", str(tmp_path / "other")]) == 2
    assert "holds another record; give another --out" in capsys.readouterr().err


def test_samples_are_right_and_wrong_ones_and_the_same_every_time(run, place):
    found = [json.loads(file.read_text()) for file in sorted((run / "evals").glob("*.json"))]
    lines = place.with_suffix(".samples.jsonl").read_text()
    assert lines == choose_samples(found)
    parsed = [json.loads(line) for line in lines.splitlines()]
    for evaluation in found:
        right = sum(response["correct"] for response in evaluation["responses"])
        mine = [x["correct"] for x in parsed if x["temperature"] == evaluation["sampling"]["temperature"]]
        assert (mine.count(True), mine.count(False)) == (min(8, right), min(8, len(evaluation["responses"]) - right))
    published = [{**evaluation, "generated": False} for evaluation in found]
    assert not any("problem" in json.loads(line) for line in choose_samples(published).splitlines())


def edited(change):
    """An edit by somebody who makes the hash of the content anew."""

    def edit(place):
        record = json.loads(place.read_text())
        change(record)
        place.write_text(json.dumps({**record, "sha256": seal(record)}))

    return edit


def set_correct(record):
    evaluation = record["evaluations"][0]
    evaluation["correct"] = [1 for _ in evaluation["correct"]]


def forge(record):
    """All answers right, true to itself."""
    evaluation = record["evaluations"][0]
    problems, samples = evaluation["problems"], evaluation["samples"]
    evaluation |= {"correct": [samples] * problems, "no_answer": [0] * problems, "truncated": [0] * problems}
    evaluation["majority"] = [1.0] * problems
    evaluation["scores"] |= {"pass@1": 1.0, "interval": [1.0, 1.0], "maj@n": 1.0, "no_answer": 0.0, "truncated": 0.0}
    evaluation["scores"]["pass@k"] = dict.fromkeys(evaluation["scores"]["pass@k"], 1.0)


DAMAGES = {
    "a cut file": (lambda place: place.write_text(place.read_text()[:-40]), "not JSON"),
    "NaN": (lambda place: place.write_text(place.read_text().replace('"seed": 0', '"seed": NaN')), "NaN is no number"),
    "no record": (lambda place: place.write_text("{}"), "is no result record"),
    "a later schema": (edited(lambda r: r.update(schema="lco-result/9")), "this version reads"),
    "an edited value": (
        lambda place: place.write_text(place.read_text().replace('"rollouts": 2', '"rollouts": 3')), "add up to 2"
    ),
    "a missing key": (edited(lambda r: r.pop("cost")), "'cost' is a required property"),
    "a value of another kind": (edited(lambda r: r["model"].update(sha256="none")), r"model\.sha256: 'none' does not match"),
    "a negative cost": (edited(lambda r: r["cost"].update(device_hours=-1)), r"cost\.device_hours: -1 is less than"),
    "hours": (edited(lambda r: r["cost"].update(device_hours=0.0)), "device_hours is 0.0, the rollouts' seconds give"),
    "an interval": (
        edited(lambda r: r["evaluations"][0]["scores"].update(interval=[0.0, 1.0])), r"interval is \[0.0, 1.0\], its counts give"
    ),
    "fewer rollouts asked for": (edited(lambda r: r["experiment"].update(steps=1)), "rollouts is 2, its experiment asks for 1"),
    "counts that give another score": (edited(set_correct), "pass@1 is .*, its counts say 1"),
    "a score that its counts do not give": (
        edited(lambda r: r["evaluations"][1]["scores"].update({"maj@n": 2.0})), "maj@n is 2.0, its counts say"
    ),
    "other samples": (lambda place: place.with_suffix(".samples.jsonl").write_text("{}\n"), "is not the one"),
    "no samples": (lambda place: place.with_suffix(".samples.jsonl").unlink(), "is missing beside it"),
    "a curve, consistently": (edited(lambda r: r["curves"].update(entropy=[0.5, 0.5])), "curves is not what"),
    "an evaluation, consistently": (edited(forge), r"evaluations\[0\] is none of the results"),
    "a device, consistently": (edited(lambda r: r["cost"].update(device="H200")), "cost is not what"),
    "a commit, consistently": (edited(lambda r: r["provenance"]["git"].update(commit="0" * 40)), "provenance is not what"),
    "a peak of memory, consistently": (
        edited(lambda r: r["cost"].update(peak_memory_gib={"host": 0.1, "device": 0.0})), "cost is not what"
    ),
    "a plan's figure of no meaning": (edited(lambda r: r.update(planned={"device_hours": -1})), "planned"),
    "a title, consistently": (edited(lambda r: r.update(title="Best")), "title is not what"),
    "a knob, consistently": (edited(lambda r: r["experiment"].update(lr=0.1)), "experiment is not what"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_and_edited_records_are_refused_by_name(run, place, kind, capsys):
    change, words = DAMAGES[kind]
    change(place)
    assert main(["record", "--check", str(place), "--runs", str(run.parent)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("refused: ")
    assert str(place) in said
    assert re.search(words, said), said


def test_what_does_not_belong_together_makes_no_record(run, tmp_path, capsys):
    other = tmp_path / "runs" / "b"
    shutil.copytree(run, other)
    file = other / "evals" / "lco_miniature-T0-n1.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "model": {**found["model"], "sha256": "0" * 64}}))
    assert main(["record", str(other), "--out", str(tmp_path / "r")]) == 2
    assert "is of another model than" in capsys.readouterr().err
    file.write_text(json.dumps(found))
    shutil.copy(file, file.with_name("again.json"))
    assert main(["record", str(other), "--out", str(tmp_path / "r")]) == 2
    assert "are the same task with the same sampling values" in capsys.readouterr().err
    for folder, words in ((tmp_path, "there is no run in"), (tmp_path / "absent", "there is no run in")):
        assert main(["record", str(folder), "--out", str(tmp_path / "r")]) == 2
        assert words in capsys.readouterr().err
    file.with_name("again.json").unlink()
    assert main(["record", str(other), "--out", str(tmp_path / "r")]) == 0
    assert main(["record", str(other), "--evaluations", str(file), "--out", str(tmp_path / "r")]) == 2
    assert "holds another record; give another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "family", "scale"),
    [
        ("Qwen2.5-0.5B-Instruct", "Qwen2.5", "0.5B"), ("Llama-3.2-1B", "Llama-3.2", "1B"),
        ("SmolLM2-135M-Instruct", "SmolLM2", "135M"), ("OctoThinker-3B-Hybrid-Base", "OctoThinker", "3B"),
        ("Qwen2.5-Math-7B", "Qwen2.5-Math", "7B"), (START.name, START.name, ""), ("llama", "llama", ""),
    ],
)  # fmt: skip
def test_two_sizes_of_a_family_are_told_apart(name, family, scale):
    assert records.naming_of_model(name) == {"family": family, "scale": scale}
