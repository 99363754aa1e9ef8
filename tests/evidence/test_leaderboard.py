"""Leaderboards: paired differences of all methods, ranges of ranks, what stands apart, pages that are the same every time."""

import base64
import hashlib
import html
import json
import re
import shutil

import numpy as np
import pytest

from lco.cli import main
from lco.errors import UserError
from lco.evidence import records
from lco.evidence.boards import board
from lco.evidence.leaderboard import build
from lco.evidence.names import titles
from lco.evidence.pairs import Pair, open_ranks, pairs_of
from lco.evidence.panels import drawn, number, thin
from lco.evidence.statistics import hierarchical_difference, holm
from lco.evidence.tables import rates, runs_of
from tests.evidence.made import record, tables, write

KIND = ("t", 1.0, 8)
HOSTILE = "</script><b>\x00\u202e\"'&{{ 7 * 7 }}"


@pytest.fixture
def folder(tmp_path):
    return write(
        tmp_path / "r", ("start", None, 2), ("grpo", 0, 5), ("grpo", 1, 7), ("ppo", 0, 4), ("ppo", 1, 3), ("sft", 0, 8)
    )


def made(*runs):
    found = [record(method, seed, right) for method, seed, right in runs]
    return board("llama", found, titles(found))


def page(folder, out=None):
    out = out or folder.parent / "out"
    build([folder], out)
    return (out / "index.html").read_text(encoding="utf-8")


def scattered(method, seed, right):
    """A record whose problems have these numbers of right samples of eight."""
    found = record(method, seed, 5)
    rate = sum(right) / 8 / len(right)
    found["evaluations"][0] |= {"correct": right, "problems": len(right)}
    found["evaluations"][0]["scores"] = {"pass@1": rate, "pass@k": {"1": rate}}
    return found


def test_pairs_are_the_paired_bootstrap_of_each_two_and_corrected_together():
    """One resampling a method, against the resampling of every difference by itself."""
    rng = np.random.default_rng(3)
    found = [scattered(m, s, rng.integers(0, 9, 12).tolist()) for m in ("a", "b", "c") for s in (0, 1, 2)]
    runs = runs_of(found)
    pairs = pairs_of(runs, [KIND])
    assert [(p.a, p.b) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in pairs:
        expected = hierarchical_difference(rates(runs[pair.a]), rates(runs[pair.b]))
        assert (pair.mean, pair.low, pair.high, pair.p) == pytest.approx(expected, abs=1e-12)
    assert [p.holm for p in pairs] == holm([p.p for p in pairs])


def test_pairs_are_of_the_seeds_that_both_have_and_one_seed_has_no_p_value():
    runs = runs_of([record("a", 0, 5), record("a", 1, 7), record("b", 1, 4), record("c", 2, 4)])
    (pair,) = pairs_of(runs, [KIND])
    assert (pair.seeds, pair.p, pair.holm) == (1, None, None)
    assert pair.mean == pytest.approx(0.6 * 3 / 8)  # seed 1 alone: 7 and 4 of 8 on 6 of 10 problems
    assert not pair.told_apart


def test_a_range_of_ranks_holds_what_the_pairs_leave_open():
    sure, open_ = {"p": 0.001, "holm": 0.002, "seeds": 5}, {"p": 0.2, "holm": 0.2, "seeds": 5}
    pairs = [
        Pair("a", "b", 0.1, 0.0, 0.2, **open_),
        Pair("a", "c", 0.3, 0.2, 0.4, **sure),
        Pair("b", "c", 0.2, 0.1, 0.3, **sure),
    ]
    assert open_ranks(["a", "b", "c"], pairs) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert open_ranks(["a", "b", "c"], [p.mirrored for p in pairs]) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert open_ranks(["a", "b"], []) == {"a": (1, 2), "b": (1, 2)}


def test_a_table_and_a_board_of_the_same_records_leave_the_same_ranks_open(tmp_path):
    """Four methods, of which two are alike and the others are told apart."""
    rng = np.random.default_rng(5)
    found = [
        scattered(method, seed, np.clip(rng.integers(0, 5, 40) + lift, 0, 8).tolist())
        for method, lift in {"a": 0, "b": 0, "c": 1, "d": 2}.items()
        for seed in (0, 1, 2)
    ]
    found.append(scattered("start", None, [1] * 40))
    for r in found:
        records.write(tmp_path / r["method"] / f"{r['seed']}.json", r)
    table = tables(tmp_path)[0]
    of_table = {row[0]: row[table.header.index("ranks")] for row in table.rows if row[-2]}
    made_ = board("llama", found, titles(found))
    rank = [column.title for column in made_.columns].index("rank")
    of_board = {row.title: row.cells[rank].text for row in made_.rows}
    assert of_table == of_board
    assert (of_board["a"], of_board["b"], of_board["d"]) == ("3–4", "3–4", "1")


def test_the_best_stands_first_and_another_budget_apart_unranked():
    small = record("ppo", 0, 8)
    small["budget"] |= {"rollouts": 2, "rows": 8, "updates": 4}
    found = [record("start", None, 2), record("grpo", 0, 5), record("rloo", 0, 6), small, record("sft", 0, 8)]
    made_ = board("llama", found, titles(found))
    assert [row.title for row in made_.rows] == ["RLOO", "GRPO"]
    assert {row.title: row.apart for row in made_.apart} == {
        "PPO": "another budget: 2 × 4, 4 (rollouts × rows, updates)",
        "SFT": "right answers alone",
    }
    assert {pair.a for pair in made_.pairs} | {pair.b for pair in made_.pairs} == {"grpo", "rloo"}
    rank = [column.title for column in made_.columns].index("rank")
    assert [row.cells[rank].text for row in made_.apart] == ["", ""]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["evaluations"][0].update(ids_sha256="z"), "problems of t avg@8 is x and z"),
        (lambda r: r["evaluations"][0]["sampling"].update(top_p=0.7), "top_p of t avg@8 is None and 0.7"),
        (lambda r: r["model"].update(sha256="cd" * 32), "start weights is"),
        (lambda r: r["evaluations"][0].update(samples=None), "has no problem, or not as many samples"),
        (lambda r: r["evaluations"].append(r["evaluations"][0]), "has t avg@8 twice"),
    ],
)
def test_what_cannot_stand_on_one_board_is_refused_by_name(change, words):
    one, other = record("grpo", 0, 5), record("ppo", 0, 5)
    change(other)
    with pytest.raises(UserError, match=re.escape(words)):
        board("llama", [one, other], {})


def test_what_was_not_run_is_no_zero():
    other = record("ppo", 0, 5)
    other["evaluations"] = other["evaluations"][1:]  # greedy alone
    made_ = board("llama", [record("grpo", 0, 5), other], {})
    assert [(row.method, row.cells[0].text, row.cells[0].value) for row in made_.rows][1:] == [("ppo", "not run", None)]
    assert made_.pairs == ()


def test_a_page_is_the_same_byte_for_byte_wherever_it_is_made(folder, tmp_path, monkeypatch):
    first = page(folder)
    shutil.copytree(folder, tmp_path / "elsewhere" / "r")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["leaderboard", "--results", "r", "--out", "out"]) == 0
    assert (tmp_path / "elsewhere" / "out" / "index.html").read_text(encoding="utf-8") == first


def test_every_record_is_linked_from_its_row(folder):
    text = page(folder)
    links = {html.unescape(link) for link in re.findall(r'href="([^"#]+)"', text)}
    assert len(links) == 6
    assert all((folder.parent / "out" / link).resolve().is_file() for link in links)


def test_without_script_every_method_has_its_part_and_its_numbers(folder):
    text = re.sub(r"<script>.*</script>", "", page(folder), flags=re.DOTALL)
    for method in ("start model", "GRPO", "PPO", "SFT *"):
        assert f"<span>{method}</span>" in text
    targets = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= targets
    assert ">45.0<" in text  # GRPO's mean: 37.5 and 52.5
    assert "GRPO & 45.0 & " in html.unescape(text)
    assert "GRPO − PPO" in text
    assert text.count("hidden>") == len(
        re.findall(r'class="[^"]*scripted[^"]*"[^>]* hidden>|class="nothing" hidden>', text)
    )


def test_only_the_pages_own_script_may_run(folder):
    text = page(folder)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in text
    assert not re.search(r"https?://|url\(|@import|<link|<iframe|\son\w+=", text.replace(script, ""))
    assert not re.search(r"\beval\b|innerHTML|insertAdjacentHTML|document\.write|fetch\(", script)


def hostile(folder):
    """A record in which every word that a stranger chooses writes HTML, a formula of the template, or unseen signs."""
    found = record("grpo", 0, 5)
    found["schema"] = "lco-result/1"
    found["title"] = found["source"] = HOSTILE
    found["model"]["name"] = HOSTILE
    found["experiment"] = {"hyper": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE}
    found["provenance"]["git"]["commit"] = found["provenance"]["hardware"]["processor"] = HOSTILE
    found["provenance"]["packages"]["torch"] = HOSTILE
    found["seconds"] |= {HOSTILE: 1.0}
    for e in found["evaluations"]:
        e["task"] = HOSTILE
        e["examples"] = [{"problem": HOSTILE, "answer": HOSTILE, "response": HOSTILE, "correct": True}]
    records.write(folder / "r" / "javascript:#?%.json", found)
    return folder / "r"


def test_no_word_of_a_record_writes_the_leaderboard(tmp_path):
    folder = hostile(tmp_path)
    (folder / "README.md").write_text(f"# {HOSTILE}\n", encoding="utf-8")
    build([folder], tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert text.count("</script>") == text.count("<script>") == 1
    assert not re.search("[\x00\u202e]", text)
    assert "<b>&lt;" not in text
    assert "49" not in re.findall(r"<h1>(.*)</h1>", text)[0]
    assert "&lt;U+0000&gt;&lt;U+202E&gt;" in text
    (link,) = set(re.findall(r'href="([^"#]+)"', text))
    assert link == "../r/javascript%3A%23%3F%25.json"


def with_samples(folder, lines):
    """A record with a file of samples beside it."""
    found = record("grpo", 0, 5)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    found["samples_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    records.write(folder / "grpo.json", found)
    (folder / "grpo.samples.jsonl").write_text(text)
    return folder


SAMPLE = {"task": "lco_gsm8k", "temperature": 1.0, "id": "gsm8k-7", "response": "so 4\nperhaps 5", "extracted": "5",
          "correct": False, "reason": "numbers differ", "truncated": True}  # fmt: skip


def test_samples_are_shown_with_the_verifiers_verdict(tmp_path):
    right = {**SAMPLE, "correct": True, "reason": "equal numbers", "truncated": False, "response": "r" * 5000}
    text = page(with_samples(tmp_path / "r", [SAMPLE] * 5 + [right]))
    assert text.count("wrong: numbers differ") == 3  # of five; the rest lie beside the record
    assert text.count("right: equal numbers") == 1
    assert "so 4\nperhaps 5" in text
    assert "cut by the token limit" in text
    assert "r" * 1500 + " …" in text
    assert "r" * 1501 not in text
    assert 'href="../r/grpo.samples.jsonl"' in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.write_text("{}\n"), "is not the file of samples that the record of seed 0 was made with"),
        (lambda file: file.unlink(), "beside the record of seed 0, is missing"),
    ],
)
def test_samples_that_are_not_the_records_own_are_not_shown(tmp_path, change, words):
    folder = with_samples(tmp_path / "r", [SAMPLE])
    change(folder / "grpo.samples.jsonl")
    text = page(folder)
    assert words in text
    assert "numbers differ" not in text


@pytest.mark.parametrize("line", ["no JSON", "[" * 100_000, '"text"', '{"task": 1, "response": []}'])
def test_a_line_that_is_no_sample_stops_no_page(tmp_path, line):
    folder = with_samples(tmp_path / "r", [])
    (folder / "grpo.samples.jsonl").write_text(line + "\n")
    found = records.read_json(folder / "grpo.json")
    found["samples_sha256"] = hashlib.sha256((line + "\n").encode()).hexdigest()
    records.write(folder / "grpo.json", found)
    assert "holds a line that is no sample" in page(folder)


def test_several_folders_make_a_page_each_and_an_index_that_names_what_is_refused(folder, tmp_path, capsys):
    root = tmp_path / "results"
    for name in ("one", "two", "twins", "words"):
        (root / name).mkdir(parents=True)
        (root / name / "README.md").write_text(f"# The {name}\n")
    write(root / "one", ("start", None, 2), ("grpo", 0, 5))
    write(root / "two" / "deep", ("ppo", 0, 5))
    for name in ("a", "b"):
        write(root / "twins" / name, ("ppo", 0, 5))
    assert main(["leaderboard", "--results", str(root), "--out", str(tmp_path / "out")]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["index.html", "one.html", "two.html"]
    index = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(?:<a[^>]*>)?(.*?)(?:</a>)?</h2>", index) == [
        "The one",
        "The two",
        "The twins",
        "The words",
    ]
    assert "No board: b/ppo/0.json and a/ppo/0.json are both ppo seed 0" in index
    assert "GRPO" in index
    assert str(tmp_path) not in index
    assert "twins: b/ppo/0.json and a/ppo/0.json are both ppo seed 0" in capsys.readouterr().out
    assert 'href="index.html"' in (tmp_path / "out" / "one.html").read_text(encoding="utf-8")
    assert main(["leaderboard", "--results", str(root), "--out", str(tmp_path / "all"), "--together"]) == 0
    whole = (tmp_path / "all" / "index.html").read_text(encoding="utf-8")
    assert whole.count('class="board"') == 2
    assert sorted(file.name for file in (tmp_path / "all").iterdir()) == ["index.html"]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_with_nothing_in_it_is_one_sentence(tmp_path, capsys, there):
    empty = tmp_path / "empty"
    if there:
        empty.mkdir()
        (empty / "other.json").write_text("{}")
    assert main(["leaderboard", "--results", str(empty)]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"lco: there is no (result record below|folder) \S+empty; [^\n]+\n", said)
    assert not (empty / "leaderboard").exists()


def test_a_broken_record_alone_is_a_refusal(tmp_path, capsys):
    write(tmp_path / "r", ("grpo", 0, 5))
    file = tmp_path / "r" / "grpo" / "0.json"
    file.write_text(file.read_text().replace('"pass@1": 0.375', '"pass@1": 0.5'))
    assert main(["leaderboard", "--results", str(tmp_path / "r"), "--out", str(tmp_path / "out")]) == 2
    assert "pass@1 is 0.5, its counts say 0.375" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_benchmarks_are_columns_and_their_mean_the_score():
    found = []
    for method, right in (("grpo", 4), ("ppo", 8)):
        whole = record(method, 0, right)
        second = {**whole["evaluations"][0], "task": "lco_second"}
        found.append({**whole, "evaluations": [*whole["evaluations"][:1], second]})
    found[0]["evaluations"][1] = {**scattered("grpo", 0, [8] * 10)["evaluations"][0], "task": "lco_second"}
    made_ = board("llama", found, {})
    assert [column.title for column in made_.columns][:1] == ["mean of 2"]
    at = [column.title for column in made_.columns].index("second avg@8")
    assert [(row.method, row.cells[0].text, row.cells[at].text) for row in made_.rows] == [
        ("grpo", "65.0", "100.0"),  # (30 + 100) / 2
        ("ppo", "60.0", "60.0"),
    ]
    assert made_.columns[at].task == "lco_second"


def test_curves_are_lines_through_their_points_and_a_band_around_them():
    steps = np.array([0.0, 1.0, 2.0])
    panel = drawn("h", {"a": [(steps, np.array([0.0, 0.0, 1.0])), (steps, np.array([0.0, 1.0, 1.0]))]}, False)
    assert panel.lines["a"].mean == "M36 120L139 64L242 8"  # through a half in the middle
    assert panel.lines["a"].band == "M36 120L139 8L242 8L242 8L139 120L36 120Z"
    gap = drawn("h", {"a": [(steps, np.array([0.0, np.nan, 1.0]))], "b": [(steps, steps)]}, False)
    assert gap.lines["a"].mean.count("M") == 1
    assert drawn("h", {"a": [(steps, np.full(3, np.nan))]}, False) is None
    assert drawn("h", {"a": [(steps, np.zeros(3))]}, True) is None  # no logarithm of zero


def test_long_curves_are_means_of_their_parts():
    x, y = thin(list(range(1000)), [1.0] * 999 + [161.0])
    assert len(x) == len(y) == 160
    assert y[0] == 1
    assert y[-1] == pytest.approx(1 + 160 / 6)  # the last part has six of the thousand points


@pytest.mark.parametrize(("value", "text"), [(36.0, "36"), (36.04, "36"), (100.0, "100"), (-0.5, "-0.5")])
def test_places_have_one_decimal_and_none_that_says_nothing(value, text):
    assert number(value) == text
