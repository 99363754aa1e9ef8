"""Records: what a run becomes, and what is refused as one: broken, contradicting itself, or changed after it was written."""

import contextlib
import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lco.errors import UserError
from lco.evidence import records
from lco.evidence.check import SEAL, seal, validate
from lco.provenance import git_state
from tests.evidence.made import evaluation, finished, page_of, record, tables, write

LINE = {"rows": 4, "updates": 2, "tokens": 9, "accuracy": 0.5, "seconds": {"total": 1.0}, "updates_skipped": 0}
RESULTS = Path(__file__).parents[2] / "results"


def test_a_record_of_a_run_names_its_other_models_by_hash_and_no_folder(tmp_path):
    start, home = {"class": "C", "name": "start", "sha256": "a" * 64}, "/elsewhere/ann"
    config = {
        "method": "dpo", "seed": 0, "model": f"{home}/start", "data_dir": f"{home}/data", "out": f"{home}/run",
        "reference_model": f"{home}/models/ref", "verifier_model": "org/judge", "dpo_model": "",
        "critic_model": "../models/critic", "problems": f"{home}/data/mine.jsonl", "hyper": {"beta": 2},
    }  # fmt: skip
    others = {
        "fixed_models": {
            "reference": {**start, "name": "ref", "sha256": "b" * 64},
            "verifier": {**start, "name": "org/judge", "sha256": "c" * 64},
        },
        "critic_model": {**start, "name": "critic", "sha256": "d" * 64},
    }
    run = finished(tmp_path, [{"step": 1, **LINE}])
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "config.json").write_text(json.dumps(config))
    (run / "manifest.json").write_text(json.dumps({**manifest, **others}))
    found = records.distil(run)
    validate(records.sealed(found), "record")
    assert {key: found[key] for key in others} == others
    assert found["experiment"] == {
        "method": "dpo", "seed": 0, "reference_model": "ref", "verifier_model": "org/judge", "dpo_model": "",
        "critic_model": "critic", "problems": "mine.jsonl", "hyper": {"beta": 2},
    }  # fmt: skip
    assert "ann" not in json.dumps(found)
    # A manifest of an earlier version does not say what of a name is a folder: then the last part alone is kept.
    (run / "manifest.json").write_text(json.dumps(manifest))
    old = records.distil(run)["experiment"]
    assert [old[f"{name}_model"] for name in ("reference", "verifier", "critic")] == ["ref", "judge", "critic"]


def test_a_record_says_what_its_method_is_called_and_compared_as(tmp_path):
    said = {"title": "Mine, all mine", "family": "preference", "source": "pairs"}
    found = records.distil(finished(tmp_path / "new", [{"step": 1, **LINE}], "mine", said))
    assert {key: found[key] for key in said} == said
    # The manifest of an earlier run says nothing of it; then names.json does, or the name itself.
    old = records.distil(finished(tmp_path / "old", [{"step": 1, **LINE}], "sft"))
    assert (old["title"], old["family"], old["source"]) == ("SFT", "imitation", "demonstrations")
    unknown = records.distil(finished(tmp_path / "unknown", [{"step": 1, **LINE}], "mine"))
    assert (unknown["title"], unknown["family"], unknown["source"]) == ("mine", "baseline", "rollouts")


def test_skipped_updates_are_no_updates(tmp_path):
    lines = [{"step": 1, **LINE, "updates_skipped": 2, "gradient_norm": float("nan")}, {"step": 2, **LINE}]
    found = records.distil(finished(tmp_path, lines))
    assert (found["budget"]["updates"], found["budget"]["updates_skipped"]) == (2, 2)
    validate(records.sealed(found), "record")
    # Runs that were offered as many updates may be compared, and the table says whose moved nothing.
    for method, curve in (("grpo", [0, 0, 0, 0]), ("ppo", [3, 0, 0, 0])):
        run = record(method, 0, 5)
        run["curves"]["updates_skipped"] = curve
        run["budget"] |= {"updates": 8 - sum(curve), "updates_skipped": sum(curve)}
        records.write(tmp_path / "r" / f"{method}.json", run)
    records.write(tmp_path / "r" / "start.json", record("start", None, 2))
    notes = tables(tmp_path / "r")[0].notes
    assert "Updates that moved nothing, because their gradient was no number: LlamaForCausalLM ppo seed 0 (3)." in notes


def test_numbers_that_are_none_are_null_on_disk_and_in_the_record(tmp_path):
    bad = {
        "step": 1,
        **LINE,
        "entropy": float("inf"),
        "kl_old": float("nan"),
        "validation": {"pass@1": 0.5, "greedy": 1.0},
    }
    run = finished(tmp_path, [bad, {"step": 2, **LINE, "entropy": 0.5, "kl_old": 0.1}])

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0], parse_constant=refuse)["entropy"] is None
    found = records.distil(run)
    assert found["curves"]["entropy"] == [None, 0.5]
    assert found["curves"]["kl_old"] == [None, 0.1]
    # What an earlier version wrote is read as the same.
    (run / "metrics.jsonl").write_text("\n".join(lines).replace("null", "NaN"))
    assert records.distil(run)["curves"] == found["curves"]


def test_a_run_with_a_damaged_file_is_no_record(tmp_path):
    run = finished(tmp_path, [{"step": 1, **LINE}])
    (run / "metrics.jsonl").write_text('{"step": 1, "ro')
    with pytest.raises(UserError, match="not JSON"):
        records.distil(run)


def test_what_a_record_keeps_of_an_evaluation_gives_its_scores_again():
    problems = [
        {
            "id": str(i),
            "problem": "p",
            "answer": "1",
            "n": 4,
            "correct": c,
            "no_answer": n,
            "truncated": t,
            "majority": m,
            "answer_groups": g,
        }
        for i, (c, n, t, m, g) in enumerate([(4, 0, 0, 1.0, (4,)), (1, 2, 2, 0.5, (1, -1)), (0, 4, 4, 0.0, ())])
    ]
    scores = {"pass@1": 5 / 12, "interval": [0.0, 1.0], "pass@k": {"1": 5 / 12, "2": 0.5, "4": 2 / 3}, "maj@n": 0.5,
              "no_answer": 6 / 12, "truncated": 0.5}  # fmt: skip
    found = {"task": "t", "sampling": {"temperature": 1.0, "max_new_tokens": 9, "samples": 4}, "limit": None, "generated": False,
             "scores": scores, "problems": problems, "responses": []}  # fmt: skip
    whole = record("grpo", 0, 5)
    whole["evaluations"] = [records.distil_evaluation(found)]
    validate(whole, "record")
    assert whole["evaluations"][0]["answer_groups"] == [[4], [1, -1], []]
    for groups in (
        [[4], [1, -1]],
        [[4], [1, -1], [0]],
        [[4], [1, -2], []],
        [[4], [-1, -1], []],
        [[3, -1], [1, -1], []],
    ):
        broken = copy.deepcopy(whole)
        broken["evaluations"][0]["answer_groups"] = groups
        with pytest.raises(UserError, match="answer_groups"):
            validate(broken, "record")
    for score in ("maj@n", "no_answer", "truncated"):
        broken = copy.deepcopy(whole)
        broken["evaluations"][0]["scores"][score] += 0.01
        with pytest.raises(UserError, match=f"{score} is .*, its counts say"):
            validate(broken, "record")


def leaves(value, path=()):
    """(path, scalar) of everything inside."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def changed(value):
    if isinstance(value, bool) or value is None:
        return not value
    return value + 1 if isinstance(value, int | float) else value + "x"


def test_no_single_value_of_a_record_can_be_changed(tmp_path):
    whole = record("grpo", 0, 5)
    whole["experiment"] = {"method": "grpo", "seed": 0, "lr": 0.1}
    whole["curves"]["validation"] = {"step": [0, 4], "pass@1": [0.1, 0.5], "greedy": [0.5, 0.6]}
    whole["evaluations"][0]["scores"] |= {"no_answer": 0.1, "truncated": 0.2}
    records.write(tmp_path / "a.json", whole)
    written = json.loads((tmp_path / "a.json").read_text())
    count = 0
    for path, value in leaves(written):
        broken = copy.deepcopy(written)
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = changed(value)
        with pytest.raises(UserError, match=r"a\.json"):
            validate(broken, "a.json")
        count += 1
    assert count > 80
    for key in written.keys() - {SEAL}:
        with pytest.raises(UserError):
            validate({k: v for k, v in written.items() if k != key}, "a.json")
    validate(json.loads(json.dumps(written, sort_keys=True)), "another layout of the same content")


def places(value, path=()):
    """Paths of everything inside, objects and lists too."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.mark.parametrize("junk", [None, "x", -1, True, [], {}, [None], {"a": 1}], ids=repr)
def test_whatever_stands_in_a_record_is_read_or_refused_in_words(tmp_path, junk):
    """Without a hash, as a stranger's older record comes: every value replaced in turn; nothing ends in a traceback."""
    whole = record("grpo", 0, 5, samples=2)
    whole["curves"]["validation"] = {"step": [0, 4], "pass@1": [0.1, 0.5], "greedy": [0.5, 0.6]}
    whole["evaluations"][0]["examples"] = [{"problem": "p", "answer": "1", "response": "r", "correct": True}]
    whole["evaluations"] = [{**e, "correct": e["correct"][:4]} for e in whole["evaluations"]]
    for e, rate in zip(whole["evaluations"], (1.0, 1.0), strict=True):
        e |= {"problems": 4, "correct": [e["samples"]] * 4, "scores": {"pass@1": rate, "pass@k": {"1": rate}}}
    start = copy.deepcopy(whole) | {"method": "start", "seed": None}
    start["evaluations"].append({**start["evaluations"][0], "sampling": {"temperature": 0.5, "max_new_tokens": 32}})
    records.write(tmp_path / "start.json", start)
    read = 0
    for path in places(whole):
        broken = copy.deepcopy(whole)
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = copy.deepcopy(junk)
        (tmp_path / "grpo.json").write_text(json.dumps(broken))
        with contextlib.suppress(UserError):
            page_of(tmp_path)
            read += 1
    assert read > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(budget=[]), "budget is "),
        (lambda r: r["model"].pop("sha256"), "model: key 'sha256' is missing"),
        (lambda r: r["evaluations"][0].pop("limit"), r"evaluations\[0\]: key 'limit' is missing"),
        (lambda r: r["evaluations"][1]["correct"].pop(), r"9 counts \(correct\) for 10 problems"),
        (lambda r: r["evaluations"][0]["correct"].__setitem__(0, 9), "is not between 0 and 8"),
        (lambda r: r["evaluations"][0]["correct"].__setitem__(0, True), "is not between 0 and 8"),
        (lambda r: r["evaluations"][0]["scores"].update({"pass@1": 0.99}), "pass@1 is 0.99, its counts say 0.375"),
        (lambda r: r["evaluations"][0]["scores"].update({"pass@1": "0.99"}), 'pass@1 is "0.99"; expected a number'),
        (lambda r: r["evaluations"][0]["scores"]["pass@k"].update({"8": 0.9}), "pass@8 is 0.9, its counts say 0.6; restore"),
        (lambda r: r["evaluations"][0]["scores"]["pass@k"].update({"16": 1.0}), "pass@16 cannot be counted from 8 samples"),
        (lambda r: r["evaluations"][0]["scores"].update(interval=[0.5, 0.6]), "is outside its interval"),
        (lambda r: r["evaluations"][0]["scores"].update(interval="wide"), "expected two numbers"),
        (lambda r: r["evaluations"][0]["sampling"].update(samples=4), "samples is 8, its sampling says 4"),
        (lambda r: r["evaluations"][0].update(no_answer=[0] * 9), r"9 counts \(no_answer\)"),
        (lambda r: r["evaluations"][0].update(majority=[2] * 10), "majority samples is not between 0 and 1"),
        (lambda r: r["curves"]["entropy"].pop(), "curve 'entropy' has 3 values for 4 steps"),
        (lambda r: r["curves"].update(entropy=["1"] * 4), "curve 'entropy' is not a list of numbers"),
        (lambda r: r["curves"].update(validation={"step": [0]}), "validation: key 'pass@1' is missing"),
        (lambda r: r["curves"].update(validation={"step": [0], "pass@1": [0], "greedy": []}), "'greedy' has 0 values for 1"),
        (lambda r: r["curves"].update(accuracy=[0.5, 0.5, 2, 0.5]), "curve 'accuracy' has 2, which is no share from 0 to 1"),
        (
            lambda r: r["curves"].update(validation={"step": [0, 4], "pass@1": [0.1, -0.5], "greedy": [0.5, 0.6]}),
            "validation: curve 'pass@1' has -0.5, which is no share",
        ),
        (
            lambda r: r["curves"].update(validation={"step": [4, 0], "pass@1": [0.1, 0.5], "greedy": [0.5, 0.6]}),
            "validation: curve 'step' has steps that do not go up",
        ),
        (lambda r: r["curves"].update(step=[1, 2, 2, 4]), "curve 'step' has steps that do not go up"),
        (lambda r: r["curves"].update(step=[1, 2, 3, None]), "curve 'step' has steps that do not go up"),
        (lambda r: r["curves"].update(tokens=[1000, 1000, 1000, 999]), "response_tokens is 4000, its rollouts add up to 3999"),
        (lambda r: r["budget"].update(rollouts=5), "rollouts is 5, its rollouts add up to 4"),
        (lambda r: r["budget"].update(rows="16"), 'budget: rows is "16"; expected a number'),
        (lambda r: r.update(experiment={"seed": 3}), "seed is 0, its experiment says 3"),
        (lambda r: r.update(experiment={"method": "ppo"}), "method is 'grpo', its experiment says 'ppo'"),
        (lambda r: r.update(seed="0"), "expected a whole number or null"),
        (lambda r: r.update(title=["GRPO"]), "title is"),
        (lambda r: r["provenance"].update(git=None), "provenance: git: expected an object"),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_refused(change, words):
    """Also one of an earlier version, which carries no hash of its own."""
    broken = record("grpo", 0, 5)
    validate(broken, "a.json")
    change(broken)
    with pytest.raises(UserError, match=words):
        validate(broken, "a.json")


def test_a_table_says_which_records_carry_no_hash(tmp_path):
    folder = write(tmp_path / "r", ("start", None, 2), ("grpo", 0, 5), ("grpo", 1, 5))
    assert not any("hash" in note for note in tables(folder)[0].notes)
    (folder / "grpo" / "1.json").write_text(json.dumps(record("grpo", 1, 5)))
    said = [note for note in tables(folder)[0].notes if "hash" in note]
    assert said[0].startswith("1 of 3 records carry no hash of their own")


def test_every_committed_record_is_as_it_was_written():
    found = [path for path in RESULTS.rglob("*.json") if '"lco-result/' in path.read_text(encoding="utf-8")[:60]]
    assert len(found) > 300
    for path in found:
        whole = json.loads(path.read_text(encoding="utf-8"))
        assert whole[SEAL] == seal(whole), path
        validate(whole, str(path))


def test_broken_records_are_named(tmp_path):
    with pytest.raises(UserError, match="no result record"):
        records.read_all(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"run is the folder of a run; make its record with `lco record "):
        records.read_all(tmp_path)
    file = tmp_path / "a.json"
    whole = record("grpo", 0, 5)
    for change, words in (({"schema": "lco-result/9"}, "this version reads"), ({"seed": ...}, "key 'seed' is missing")):
        broken = {k: v for k, v in {**copy.deepcopy(whole), **change}.items() if v is not ...}
        file.write_text(json.dumps(broken))
        with pytest.raises(UserError, match=words):
            records.read_all(tmp_path)
    file.write_text(json.dumps({**whole, "seconds": {"update": float("nan")}}))
    with pytest.raises(UserError, match="NaN is no number in JSON"):
        records.read_all(tmp_path)
    file.write_text('{"schema":\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        records.read_all(tmp_path)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"a\.json cannot be read"):
        records.read_all(tmp_path)


def test_an_environment_inside_another_repository_is_not_that_repository(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    inside = tmp_path / "lib"
    inside.mkdir()
    assert git_state(inside) == {"commit": None, "dirty": None}
    assert git_state(tmp_path)["dirty"] is False
    assert len(git_state(tmp_path)["commit"]) == 40


def test_records_read_back_and_stay_small(tmp_path):
    whole = record("grpo", 0, 5)
    records.write(tmp_path / "a.json", whole)
    written = json.loads((tmp_path / "a.json").read_text())
    assert {key: value for key, value in written.items() if key != SEAL} == whole
    records.write(tmp_path / "b.json", written)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "\n" not in json.dumps(records.rounded(0.123456789))
    assert records.rounded({"a": [0.123456789]}) == {"a": [0.123457]}
    assert records.rounded([float("nan"), float("inf")]) == [None, None]


def test_a_record_keeps_the_curves_that_its_run_logged(tmp_path):
    """Also those whose name ends in a number; what no rollout logged is no curve, and a record without it is read."""
    common = {"accuracy": 0.5, "target_tv": 0.1, "target_kl": 0.02, "target_kl_per_sequence": 0.4, "kl_target": 0.01}
    lines = [
        {"step": 0, "validation": {"pass@1": 0.1, "greedy": 0.2}},
        {"step": 1, **common, "sampled_probability": 0.7, "outside_top/5": 0.25, "seconds": {}},
        {"step": 2, **common, "sampled_probability": 0.8, "outside_top/16": 0.0, "outside_topmost": 1.0},
    ]
    found = records.curves(lines)
    assert set(found) == {
        "step", "validation", "accuracy", "target_tv", "target_kl", "target_kl_per_sequence", "kl_target",
        "sampled_probability", "outside_top/5", "outside_top/16",
    }  # fmt: skip
    assert found["outside_top/5"] == [0.25, None]
    assert found["outside_top/16"] == [None, 0.0]
    assert found["sampled_probability"] == [0.7, 0.8]
    write(tmp_path / "r", ("grpo", 0, 5))
    short = record("lco_kld_reference", 0, 5)
    short["budget"]["rollouts"] = 2
    records.write(tmp_path / "r" / "lco_kld_reference.json", {**short, "curves": found})
    read = {r["method"]: r["curves"] for r in records.read_all(tmp_path / "r")}
    assert read["lco_kld_reference"] == found
    assert "outside_top/5" not in read["grpo"]


def test_evidence_and_verifier_never_import_torch():
    code = "import sys, lco.evidence.report, lco.provenance, lco.verifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_evaluation_of_unequal_samples_is_no_row(tmp_path):
    whole = record("grpo", 0, 5)
    whole["evaluations"][0] = {**evaluation(1.0, [1, 2], 4), "samples": None}
    records.write(tmp_path / "r" / "a.json", whole)
    records.write(tmp_path / "r" / "start.json", record("start", None, 2))
    with pytest.raises(UserError, match="not as many samples of each; evaluate it again"):
        tables(tmp_path / "r")
