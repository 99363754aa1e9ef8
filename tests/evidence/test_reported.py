"""Published numbers: each with source and confidence, beside what is measured, and in none of its means."""

import pytest

from lco.cli import main
from lco.errors import UserError
from lco.evidence import records
from lco.evidence.names import earlier
from lco.evidence.report import build
from lco.evidence.reported import CONFIDENCE, ledger, read_ledger
from tests.evidence.made import evaluation, record

ENTRY = """[[reported]]
paper = "P"
source = "its table 1"
confidence = "high"
metric = "avg@16"
setting = "s"
benchmarks = ["aime24", "aime25"]
rows = [["M", "GRPO", 1.5, 2.25]]
"""


def test_every_published_number_has_a_source_and_a_confidence():
    found = ledger()
    assert len(found) > 90
    for entry in found:
        assert entry.source, entry
        assert entry.paper, entry
        assert entry.confidence in CONFIDENCE, entry
        assert "arXiv" in entry.paper, entry


def test_what_a_ledger_calls_a_method_is_one_of_the_suites_or_none_of_it():
    known = {entry.known_as for entry in ledger()} - {"", "start"}
    assert {"grpo", "cispo"} <= known
    assert known - set(earlier()) <= {"minpro", "dppo", "bapo", "cppo"}


def test_means_of_the_reported_table_are_those_that_its_paper_prints():
    """A slip in copying three columns would move a mean: CPPO's own, by model and method."""
    printed = {
        ("Qwen3-1.7B", "GRPO"): 27.91, ("Qwen3-1.7B", "CPPO"): 31.88, ("Qwen3-1.7B-Base", "MinPRO"): 11.04,
        ("Qwen3-8B-Base", "DPPO"): 28.89, ("Qwen3-8B-Base", "TRM-Avg"): 27.98, ("Qwen3-30B-A3B-Base", "TRM-Max"): 20.27,
        ("Qwen3-30B-A3B-Base", "CPPO"): 54.79, ("Qwen3-1.7B-Base", "TRM-Avg"): 11.70, ("Qwen3-8B-Base", "CISPO"): 29.58,
    }  # fmt: skip
    for (model, method), mean in printed.items():
        values = [float(e.value) for e in ledger() if (e.model, e.method) == (model, method) and "CPPO" in e.paper]
        assert sum(values) / 3 == pytest.approx(mean, abs=0.011)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('source = "its table 1"\n', "", r"entry 1 \(P\) has no source"),
        ('confidence = "high"\n', "", "has no confidence"),
        ('"high"', '"certain"', "confidence is 'certain'; give one of high, medium, low"),
        (", 2.25", "", "has not one value for each of"),
    ],
)
def test_a_number_without_source_or_confidence_is_refused(old, new, words):
    assert [(e.benchmark, e.value) for e in read_ledger(ENTRY)] == [("aime24", "1.5"), ("aime25", "2.25")]
    with pytest.raises(UserError, match=words):
        read_ledger(ENTRY.replace(old, new))


def test_reported_numbers_stand_beside_measured_ones_and_in_none_of_their_means(tmp_path):
    for method, seed, right in (("start", None, 2), ("grpo", 0, 8), ("grpo", 1, 4)):
        run = record(method, seed, 5)
        run["model"]["name"] = "Qwen3-1.7B-Base"
        run["evaluations"] = [
            {**evaluation(1.0, [2 * right] * 6 + [0] * 4, 16), "task": "lco_aime24"},
            {**evaluation(0.0, [1] * 8 + [0] * 2, 1), "task": "lco_gsm8k"},
        ]
        records.write(tmp_path / f"{method}-{seed}.json", run)
    tables = {table.title: table for table in build(tmp_path, tmp_path / "report")}
    beside = tables["LlamaForCausalLM: reported beside measured"]
    rows = {(row[0], row[1]): row for row in beside.rows}
    grpo = rows["GRPO", "aime24"]
    assert (grpo[3], grpo[5]) == ("11.25", "high")
    assert grpo[4].startswith("45.0 [")  # 8/8 and 4/8 on six of ten problems
    assert rows["GRPO", "aime25"][3:5] == ("6.87", "not run")
    assert rows["CPPO", "aime24"][3:5] == ("15.21", "not run")
    own = tables["LlamaForCausalLM"]
    assert [row[0] for row in own.rows] == ["start model", "GRPO"]
    assert not {"11.25", "11.2", "15.21"} & {cell for row in own.rows for cell in row}
    assert "reported" in (tmp_path / "report" / "table.md").read_text()


def test_the_ledger_is_printed_whole(capsys):
    assert main(["table", "--reported"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n| ") >= len(ledger())
    assert "| unstated | LCO, variant unstated | math500 | pass@1 | 73.2 | low |" in said
    assert main(["table", "--reported", "--format", "latex"]) == 0
    assert r"\begin{tabular}" in capsys.readouterr().out
