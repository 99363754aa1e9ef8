"""Records, tables, figures, page: pure functions, the same bytes for the same records, unlike things refused."""

import copy
import json
import subprocess
import sys

import pytest

from lco.errors import UserError
from lco.evidence import records
from lco.evidence.report import build
from lco.evidence.tables import Table, comparable, latex, markdown
from lco.provenance import git_state


def evaluation(temperature, correct, samples):
    rate = sum(correct) / samples / len(correct)
    return {
        "task": "t", "limit": None, "problems": len(correct), "samples": samples, "ids_sha256": "x", "correct": correct,
        "sampling": {"temperature": temperature, "max_new_tokens": 32, "samples": samples},
        "scores": {"pass@1": rate, "pass@k": {"1": rate, **({"8": 1.0} if samples == 8 else {})}},
    }  # fmt: skip


def record(method, seed, right, samples=8):
    evaluations = [evaluation(1.0, [right] * 6 + [0] * 4, samples), evaluation(0.0, [1] * 8 + [0] * 2, 1)]
    if method == "start":
        evaluations.append(evaluation(0.4, [samples] * 9 + [0], samples))
    curves = {"step": [1, 2, 3, 4], "accuracy": [0.1 * (seed or 0)] * 4, "entropy": [1.0, 0.5, None, 0.2],
              "gradient_norm": [1, 2, 1, 1], "kl_old": [0.1, 0.1, 0.2, 0.1]}  # fmt: skip
    return {
        "schema": records.SCHEMA, "experiment": {}, "method": method, "seed": seed,
        "model": {"class": "LlamaForCausalLM", "name": "llama", "sha256": "ab" * 32},
        "budget": {"rollouts": 4, "rows": 16, "updates": 8, "response_tokens": 4000},
        "curves": {} if seed is None else curves,
        "evaluations": evaluations, "seconds": {"update": 1.0},
        "provenance": {"git": {"commit": "c", "dirty": False}, "packages": {"torch": "2"}, "torch_wheel_sha256": None,
                       "python": "3.11", "hardware": {"processor": "p", "cores": 2, "memory_gib": 8, "gpu": None}},
        "problems_sha256": "y", "source_sha256": {},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for method, seed, right in (("start", None, 2), ("grpo", 0, 5), ("grpo", 1, 7), ("sft", 0, 8)):
        records.write(tmp_path / "r" / method / f"{seed}.json", record(method, seed, right))
    return tmp_path


def test_the_report_is_the_same_byte_for_byte(folder):
    build(folder / "r", folder / "one")
    build(folder / "r", folder / "two")
    names = sorted(p.name for p in (folder / "one").iterdir())
    assert names == ["index.html", "learning_curves.png", "learning_curves.svg", "one_by_one.png", "one_by_one.svg",
                     "table.md", "table.tex", "validation.png", "validation.svg"]  # fmt: skip
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_the_table_shows_gains_beyond_sharpening_and_every_seed(folder):
    table = build(folder / "r", folder / "out")[0]
    row = next(r for r in table.rows if r[0] == "GRPO")
    # Seeds: 6 of 10 problems with 5 and 7 of 8 right: 37.5 and 52.5; start 15, greedy 80, cooled 90.
    assert row[1] == "45.0 ± 10.6"
    assert row[3] == "+30.0"
    assert row[4] == "-45.0"
    assert row[8] == "37.5, 52.5"
    assert row[11:] == ("", "")  # older records have no such rates
    assert any(r[0] == "SFT *" for r in table.rows)
    assert "GRPO" in markdown(table)
    assert r"\pm" in latex(table)


def test_the_rates_that_explain_a_score_stand_beside_it(tmp_path):
    """Mean over seeds at T = 1; the start's greedy and cooled rows have their own."""
    for method, seed, missing, cut in (("start", None, 0.5, 0.25), ("grpo", 0, 0.1, 0.0), ("grpo", 1, 0.2, 0.01)):
        whole = record(method, seed, 5)
        for e in whole["evaluations"]:
            shift = 0.2 * (1 - e["sampling"]["temperature"])
            e["scores"] |= {"no_answer": missing + shift, "truncated": cut + shift}
        records.write(tmp_path / "r" / f"{method}-{seed}.json", whole)
    table = build(tmp_path / "r", tmp_path / "out")[0]
    assert table.header[11:] == ("no answer", "cut")
    assert [row[11:] for row in table.rows] == [("50.0", "25.0"), ("70.0", "45.0"), ("62.0", "37.0"), ("15.0", "0.5")]
    for file in ("table.md", "table.tex", "index.html"):
        text = (tmp_path / "out" / file).read_text()
        assert "no answer" in text
        assert "15.0" in text


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
    provenance = {"git": {}, "packages": {}, "torch_wheel_sha256": None, "python": "3.11", "hardware": {}}
    line = {"step": 1, "rows": 4, "updates": 1, "tokens": 9, "accuracy": 0.5, "seconds": {"total": 1.0}}
    for name, value in (
        ("config.json", config),
        ("manifest.json", {"model": start, "problems_sha256": "p", **provenance, **others}),
        ("metrics.jsonl", line),
    ):
        (tmp_path / name).write_text(json.dumps(value))
    found = records.distil(tmp_path)
    records.validate(found, "record")
    assert {key: found[key] for key in others} == others
    assert found["experiment"] == {
        "method": "dpo", "seed": 0, "reference_model": "ref", "verifier_model": "org/judge", "dpo_model": "",
        "critic_model": "critic", "problems": "mine.jsonl", "hyper": {"beta": 2},
    }  # fmt: skip
    assert "ann" not in json.dumps(found)
    # A manifest of an earlier version does not say what of a name is a folder: then the last part alone is kept.
    (tmp_path / "manifest.json").write_text(json.dumps({"model": start, "problems_sha256": "p", **provenance}))
    old = records.distil(tmp_path)["experiment"]
    assert [old[f"{name}_model"] for name in ("reference", "verifier", "critic")] == ["ref", "judge", "critic"]


def test_the_page_needs_no_network_and_escapes_what_it_shows(folder):
    bad = record("ppo", 0, 3)
    bad["model"] = {**bad["model"], "name": "<script>alert(1)</script>"}
    records.write(folder / "r" / "ppo" / "0.json", bad)
    build(folder / "r", folder / "out")
    page = (folder / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["evaluations"][0].update(limit=5), "limit is None and 5"),
        (lambda r: r["evaluations"][0].update(ids_sha256="z"), "test problems is"),
        (lambda r: r["budget"].update(updates=9), "updates is 8 and 9"),
        (lambda r: r["model"].update(sha256="cd" * 32), "start weights of LlamaForCausalLM is abab"),
        (lambda r: r["evaluations"][0]["sampling"].update(top_p=0.7), "top_p is None and 0.7"),
        (lambda r: r["evaluations"][1].update(limit=5), "limit of the greedy evaluation is None and 5"),
    ],
)
def test_unlike_results_are_refused_by_name(change, words):
    one, other = record("grpo", 0, 5), record("ppo", 1, 5)
    change(other)
    with pytest.raises(UserError, match=words):
        comparable([one, other])


def test_broken_records_are_named(tmp_path):
    with pytest.raises(UserError, match="no result record"):
        records.read_all(tmp_path)
    file = tmp_path / "a.json"
    whole = record("grpo", 0, 5)
    for change, words in (({"schema": "lco-result/9"}, "this version reads"), ({"seed": ...}, "key 'seed' is missing")):
        broken = {k: v for k, v in {**copy.deepcopy(whole), **change}.items() if v is not ...}
        file.write_text(json.dumps(broken))
        with pytest.raises(UserError, match=words):
            records.read_all(tmp_path)
    file.write_text('{"schema":\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        records.read_all(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(budget=[]), "budget is "),
        (lambda r: r["model"].pop("sha256"), "model: key 'sha256' is missing"),
        (lambda r: r["evaluations"][0].pop("limit"), r"evaluations\[0\]: key 'limit' is missing"),
        (lambda r: r["evaluations"][1]["correct"].pop(), "9 counts for 10 problems"),
        (lambda r: r["evaluations"][0]["correct"].__setitem__(0, 9), "is not between 0 and 8"),
        (lambda r: r["evaluations"][0]["scores"].update({"pass@1": 0.99}), "pass@1 is 0.99, its counts say 0.375"),
        (lambda r: r["curves"]["entropy"].pop(), "curve 'entropy' has 3 values for 4 steps"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, words):
    broken = record("grpo", 0, 5)
    change(broken)
    with pytest.raises(UserError, match=words):
        records.validate(broken, "a.json")


def test_a_run_counts_once(tmp_path):
    for name in ("a", "b"):
        records.write(tmp_path / f"{name}.json", record("grpo", 0, 5))
    with pytest.raises(UserError, match=r"b\.json and .*a\.json are both grpo seed 0 on LlamaForCausalLM"):
        records.read_all(tmp_path)


def test_fewer_samples_than_eight_leave_a_gap_in_the_table(tmp_path):
    for method, seed in (("start", None), ("ppo", 0)):
        records.write(tmp_path / "r" / f"{method}.json", record(method, seed, 2, samples=4))
    row = build(tmp_path / "r", tmp_path / "out")[0].rows[-1]
    assert row[0] == "PPO"
    assert row[7] == ""


def test_differences_are_paired_and_corrected(folder):
    for method, rights in (("lco_kld", (6, 8)), ("lco_mse", (5, 7))):
        for seed, right in enumerate(rights):
            records.write(folder / "r" / method / f"{seed}.json", record(method, seed, right))
    table = build(folder / "r", folder / "out")[1]
    better, equal = table.rows
    # One right sample of eight more on 6 of 10 problems, for both seeds: +7.5 points; the other runs are GRPO's twins.
    assert better[:2] == ("LCO-KLD − GRPO", "+7.5")
    assert equal == ("LCO-MSE − GRPO", "+0.0", "[+0.0, +0.0]", "1.0000", "1.0000", "2")
    assert float(better[4]) == pytest.approx(2 * float(better[3]))
    assert "$-$ GRPO" in latex(table)


def test_latex_escapes_what_it_would_read():
    table = Table("t", ("a_b",), ((r"50 % & {x} \y ~ ^ $1 #",),))
    escaped = r"50 \% \& \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} \$1 \# \\"
    assert escaped in latex(table)
    assert r"a\_b" in latex(table)


def test_the_page_shows_what_models_write(folder):
    shown = record("start", None, 2)
    shown["evaluations"][0]["examples"] = [
        {"problem": "1 < 2 ?", "answer": "yes", "response": "<b>no</b>", "correct": False}
    ]
    records.write(folder / "r" / "start" / "None.json", shown)
    build(folder / "r", folder / "out")
    page = (folder / "out" / "index.html").read_text()
    assert "1 &lt; 2 ?" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page


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
    assert json.loads((tmp_path / "a.json").read_text()) == whole
    assert "\n" not in json.dumps(records.rounded(0.123456789))
    assert records.rounded({"a": [0.123456789]}) == {"a": [0.123457]}
    assert records.rounded([float("nan"), float("inf")]) == [None, None]


def test_a_record_keeps_the_curves_that_its_run_logged(folder):
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
    records.write(folder / "r" / "lco_kld_reference.json", {**record("lco_kld_reference", 0, 5), "curves": found})
    read = {r["method"]: r["curves"] for r in records.read_all(folder / "r")}
    assert read["lco_kld_reference"] == found
    assert "outside_top/5" not in read["grpo"]


def test_evidence_and_verifier_never_import_torch():
    code = "import sys, lco.evidence.report, lco.provenance, lco.verifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_best_method_stands_first_and_what_stands_apart_last(folder):
    records.write(folder / "r" / "ppo" / "0.json", record("ppo", 0, 8))
    names = [row[0] for row in build(folder / "r", folder / "out")[0].rows if not row[0].startswith("start")]
    assert names == ["PPO", "GRPO", "SFT *"]
