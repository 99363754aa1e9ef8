"""Records, tables, figures, page: pure functions, the same bytes for the same records, unlike things refused."""

import copy
import json
import subprocess
import sys

import pytest

from lco.errors import UserError
from lco.evidence import records
from lco.evidence.report import build
from lco.evidence.tables import comparable, latex, markdown


def evaluation(temperature, correct, samples):
    rate = sum(correct) / samples / len(correct)
    return {
        "task": "t", "limit": None, "problems": len(correct), "samples": samples, "ids_sha256": "x", "correct": correct,
        "sampling": {"temperature": temperature, "max_new_tokens": 32, "samples": samples},
        "scores": {"pass@1": rate, "pass@k": {"1": rate, "8": 1.0}},
    }  # fmt: skip


def record(method, seed, right):
    evaluations = [evaluation(1.0, [right] * 6 + [0] * 4, 8), evaluation(0.0, [1] * 8 + [0] * 2, 1)]
    if method == "start":
        evaluations.append(evaluation(0.4, [6] * 10, 8))
    steps = list(range(1, 5))
    return {
        "schema": records.SCHEMA, "experiment": {}, "method": method, "seed": seed,
        "model": {"class": "LlamaForCausalLM", "name": "llama", "sha256": "ab" * 32},
        "budget": {"rollouts": 4, "rows": 16, "updates": 8, "response_tokens": 4000},
        "curves": {"step": steps, "accuracy": [0.1 * seed for _ in steps] if seed is not None else [],
                   "entropy": [1.0, 0.5, None, 0.2], "gradient_norm": [1, 2, 1, 1], "kl_old": [0.1, 0.1, 0.2, 0.1]},
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
    assert names == ["index.html", "learning_curves.png", "learning_curves.svg", "table.md", "table.tex",
                     "validation.png", "validation.svg"]  # fmt: skip
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_the_table_shows_gains_beyond_sharpening_and_every_seed(folder):
    table = build(folder / "r", folder / "out")[0]
    row = next(r for r in table.rows if r[0] == "GRPO")
    # Seeds: 6 of 10 problems with 5 and 7 of 8 right: 37.5 and 52.5; start 15, greedy 80.
    assert row[1] == "45.0 ± 10.6"
    assert row[3] == "+30.0"
    assert row[4] == "-35.0"
    assert row[8] == "37.5, 52.5"
    assert any(r[0] == "SFT *" for r in table.rows)
    assert "GRPO" in markdown(table)
    assert r"\pm" in latex(table)


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


def test_records_read_back_and_stay_small(tmp_path):
    whole = record("grpo", 0, 5)
    records.write(tmp_path / "a.json", whole)
    assert json.loads((tmp_path / "a.json").read_text()) == whole
    assert "\n" not in json.dumps(records.rounded(0.123456789))
    assert records.rounded({"a": [0.123456789]}) == {"a": [0.123457]}


def test_evidence_and_verifier_never_import_torch():
    code = "import sys, lco.evidence.report, lco.evidence.provenance, lco.verifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
