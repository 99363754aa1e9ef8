"""Tables, figures, page: pure functions of records, the same bytes for the same records, unlike things refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lco.cli import main
from lco.errors import UserError
from lco.evidence import records
from lco.evidence.formats import latex, markdown
from lco.evidence.report import build
from lco.evidence.tables import comparable
from tests.evidence.made import page_of, record, tables, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "r", ("start", None, 2), ("grpo", 0, 5), ("grpo", 1, 7), ("sft", 0, 8))
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
    table = tables(folder / "r")[0]
    row = next(r for r in table.rows if r[0] == "GRPO")
    # Seeds: 6 of 10 problems with 5 and 7 of 8 right: 37.5 and 52.5; start 15, greedy 80, cooled 90.
    assert row[1] == "45.0 ± 10.6"
    assert row[3] == "+30.0"
    assert row[4] == "-45.0"
    assert row[8] == "37.5, 52.5"
    assert row[11:13] == ("", "")  # older records have no such rates
    assert any(r[0] == "SFT *" for r in table.rows)
    assert "GRPO" in markdown(table)
    assert r"\pm" in latex(table)


def test_a_loss_has_one_sign_and_zero_none(tmp_path):
    """A start model that its own greedy and cooled answers make worse: seldom, but then `+-20.0` would be printed."""
    start = record("start", None, 8)  # 60 % at T = 1
    start["evaluations"][1] = {**start["evaluations"][1], "correct": [1] * 4 + [0] * 6}
    start["evaluations"][1]["scores"] = {"pass@1": 0.4, "pass@k": {"1": 0.4}}
    start["evaluations"][2]["correct"] = [8] * 6 + [0] * 4
    start["evaluations"][2]["scores"] = {"pass@1": 0.6, "pass@k": {"1": 0.6, "8": 0.6}}
    records.write(tmp_path / "r" / "start.json", start)
    same = record("grpo", 0, 8)
    same["evaluations"][0]["correct"][0] = 7  # less by 1.25 points
    same["evaluations"][0]["scores"] |= {"pass@1": 0.5875, "pass@k": {"1": 0.5875, "8": 0.6}}
    records.write(tmp_path / "r" / "grpo.json", same)
    rows = build(tmp_path / "r", tmp_path / "out")[0].rows
    assert [row[3] for row in rows] == ["", "-20.0", "+0.0", "-1.2"]
    for file in ("table.md", "table.tex", "index.html"):
        text = (tmp_path / "out" / file).read_text(encoding="utf-8")
        assert "-20.0" in text
        assert not re.search(r"\+[-−]|-0\.0|--\d", text)


def test_the_rates_that_explain_a_score_stand_beside_it(tmp_path):
    """Mean over seeds at T = 1; the start's greedy and cooled rows have their own."""
    for method, seed, missing, cut in (("start", None, 0.5, 0.25), ("grpo", 0, 0.1, 0.0), ("grpo", 1, 0.2, 0.01)):
        whole = record(method, seed, 5)
        for e in whole["evaluations"]:
            shift = 0.2 * (1 - e["sampling"]["temperature"])
            e["scores"] |= {"no_answer": missing + shift, "truncated": cut + shift}
        records.write(tmp_path / "r" / f"{method}-{seed}.json", whole)
    table = build(tmp_path / "r", tmp_path / "out")[0]
    assert table.header[11:13] == ("no answer", "cut")
    assert [row[11:13] for row in table.rows] == [("50.0", "25.0"), ("70.0", "45.0"), ("62.0", "37.0"), ("15.0", "0.5")]
    for file in ("table.md", "table.tex", "index.html"):
        text = (tmp_path / "out" / file).read_text(encoding="utf-8")
        assert "no answer" in text
        assert "15.0" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["evaluations"][0].update(limit=5), "limit is None and 5"),
        (lambda r: r["evaluations"][0].update(ids_sha256="z"), "test problems is"),
        (lambda r: r["budget"].update(updates=9), "updates is 8 and 9; give records that differ in this a folder"),
        (lambda r: r["model"].update(sha256="cd" * 32, name="large"),
         r"start weights of LlamaForCausalLM is llama \(abababab…\) and large \(cdcdcdcd…\); give records that differ"),
        (lambda r: r["evaluations"][0]["sampling"].update(top_p=0.7), "top_p is None and 0.7"),
        (lambda r: r["evaluations"][1].update(limit=5), "limit of the greedy evaluation is None and 5"),
    ],
)  # fmt: skip
def test_unlike_results_are_refused_by_name(change, words):
    one, other = record("grpo", 0, 5), record("ppo", 1, 5)
    change(other)
    with pytest.raises(UserError, match=words):
        comparable([one, other])


def test_records_that_make_no_table_are_refused_with_a_remedy(tmp_path):
    grpo = record("grpo", 0, 5)
    records.write(tmp_path / "r" / "grpo.json", grpo)
    second = {**grpo["evaluations"][0], "task": "lco_gsm8k"}
    records.write(tmp_path / "r" / "grpo.json", {**grpo, "evaluations": [*grpo["evaluations"], second]})
    with pytest.raises(UserError, match=r"2 evaluations at T = 1 \(t, lco_gsm8k\).*one task each, a folder a task"):
        tables(tmp_path / "r")
    records.write(tmp_path / "r" / "grpo.json", {**grpo, "evaluations": grpo["evaluations"][1:]})
    with pytest.raises(
        UserError, match=r"grpo seed 0 has no evaluation at T = 1.*--tasks TASK --temperature 1 --samples 8"
    ):
        tables(tmp_path / "r")
    records.write(tmp_path / "r" / "grpo.json", grpo)
    start = record("start", None, 2)
    records.write(tmp_path / "r" / "start.json", {**start, "evaluations": start["evaluations"][:1]})
    with pytest.raises(
        UserError, match=r"start has no evaluation at T = 0.*--model START .*then `lco record --start START-e"
    ):
        tables(tmp_path / "r")
    assert not (tmp_path / "out").exists()


def test_without_the_start_models_record_a_table_has_no_gains_and_says_how_they_come(tmp_path):
    folder = write(tmp_path / "r", ("grpo", 0, 5), ("lco_kld", 0, 4))
    table = tables(folder)[0]
    shown = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert list(shown) == ["start, not evaluated", "GRPO", "LCO-KLD"]
    assert {shown["GRPO"][name] for name in ("gain", "beyond sharpening", "greedy gain")} == {""}
    assert shown["GRPO"]["pass@1, T = 1"] == "37.5"
    assert any("`lco record --start`" in note for note in table.notes)
    assert "The start model was not evaluated." in page_of(folder)


def test_a_start_model_that_was_not_cooled_is_sharpened_by_greedy_answers_alone(tmp_path):
    folder = write(tmp_path / "r", ("grpo", 0, 5))
    start = record("start", None, 2)
    records.write(folder / "start.json", {**start, "evaluations": start["evaluations"][:2]})
    rows = tables(folder)[0].rows
    assert [row[0] for row in rows] == ["start, T = 1", "start, greedy", "GRPO"]
    assert rows[2][4] == "-42.5"  # 37.5 against 80 greedily


def test_fewer_samples_than_eight_leave_a_gap_in_the_table(tmp_path):
    for method, seed in (("start", None), ("ppo", 0)):
        records.write(tmp_path / "r" / f"{method}.json", record(method, seed, 2, samples=4))
    row = tables(tmp_path / "r")[0].rows[-1]
    assert row[0] == "PPO"
    assert row[7] == ""


def test_ranks_are_shared_where_no_test_tells_methods_apart(folder):
    """LCO-KLD is above both in either seed on all problems that differ; GRPO is above PPO in one seed and below in the other."""
    write(folder / "r", ("lco_kld", 0, 7), ("lco_kld", 1, 8), ("ppo", 0, 6), ("ppo", 1, 6))
    rows = {row[0]: row[13] for row in tables(folder / "r")[0].rows}
    assert rows["LCO-KLD"] == "1"
    assert rows["GRPO"] == rows["PPO"] == "2–3"  # 5 and 7 against 6 and 6
    assert rows["SFT *"] == ""


def test_greedy_runs_are_paired_by_problem_within_a_seed(tmp_path):
    """Seven problems against one are 0.039 of the paper; the other seed's runs agree."""
    for method, of_seed in (("start", {None: 8}), ("lco_kld", {0: 9, 1: 8}), ("grpo", {0: 3, 1: 8})):
        for seed, right in of_seed.items():
            run = record(method, seed, 5)
            correct = [0] + [1] * right + [0] * (9 - right) if right == 9 else [1] * right + [0] * (10 - right)
            run["evaluations"][1] |= {"correct": correct, "scores": {"pass@1": right / 10, "pass@k": {"1": right / 10}}}
            records.write(tmp_path / "r" / f"{method}-{seed}.json", run)
    assert tables(tmp_path / "r")[1].rows[0][7] == "0.039–1.000"


def test_differences_are_paired_and_corrected(folder):
    write(folder / "r", ("lco_kld", 0, 6), ("lco_kld", 1, 8), ("lco_mse", 0, 5), ("lco_mse", 1, 7))
    table = tables(folder / "r")[1]
    better, equal = table.rows
    # One right sample of eight more on 6 of 10 problems, for both seeds: +7.5 points; the other runs are GRPO's twins.
    assert better[:2] == ("LCO-KLD − GRPO", "+7.5")
    assert equal == ("LCO-MSE − GRPO", "+0.0", "[+0.0, +0.0]", "1.0000", "1.0000", "2", "0.50", "1.000")
    assert better[6:] == ("0.75", "1.000")  # of the four pairs of runs two are won, one is even, one is lost
    assert float(better[4]) == pytest.approx(2 * float(better[3]))
    assert "$-$ GRPO" in latex(table)


def test_one_seed_has_no_p_value(folder):
    """Nor has it a part in the correction of the others."""
    write(folder / "r", ("lco_kld", 0, 6), ("lco_mse", 0, 5), ("lco_mse", 1, 8))
    compared, table = tables(folder / "r")
    single, double = table.rows
    assert single[0] == "LCO-KLD − GRPO"
    assert single[3:6] == ("one seed", "one seed", "1")
    assert double[3] == double[4]
    assert any("corrected over 1 pairs" in note for note in table.notes)
    assert any(note.startswith("one seed: no p-value") for note in table.notes)
    assert any(
        note.startswith("One seed: LCO-KLD, SFT. The interval resamples problems alone") for note in compared.notes
    )
    write(folder / "single", ("start", None, 2), ("grpo", 0, 5), ("lco_kld", 0, 6))
    table = tables(folder / "single")[1]
    assert not re.search(r"0\.0001|10 001", markdown(table))


def test_the_best_method_stands_first_and_what_stands_apart_last(folder):
    write(folder / "r", ("ppo", 0, 8))
    names = [row[0] for row in tables(folder / "r")[0].rows if not row[0].startswith("start")]
    assert names == ["PPO", "GRPO", "SFT *"]


def test_a_method_that_drew_more_than_it_learnt_from_stands_apart_whatever_its_name(folder):
    for seed in (0, 1):
        run = record("grpo", seed, 8)
        run["method"], run["title"] = "mine", "Mine"
        run["curves"]["generation_multiplier"] = [1.0, 1.0, 2.5, None]
        run["budget"]["rows"] = 40  # more than the others', and yet it may stand below them
        records.write(folder / "r" / "mine" / f"{seed}.json", run)
    table = tables(folder / "r")[0]
    assert [row[0] for row in table.rows][3:] == ["GRPO", "Mine *", "SFT *"]
    assert ("* sorted last and not compared, because the data differ: more prompts drawn than learnt from (Mine), right "
            "answers alone (SFT).") in table.notes  # fmt: skip
    assert "Mine" not in str(tables(folder / "r")[1:])


def test_a_control_has_a_row_of_its_own_that_is_compared_with_nothing(folder):
    """Random rewards of a method are not that method, whatever they score."""
    for seed in (0, 1):
        control = record("grpo", seed, 8)
        control["experiment"] = {"reward": {"random": 1.0}}
        records.write(folder / "r" / "control" / f"{seed}.json", control)
        records.write(folder / "r" / "lco_kld" / f"{seed}.json", record("lco_kld", seed, 7))
    compared, between = tables(folder / "r")
    assert [row[0] for row in compared.rows][3:] == ["LCO-KLD", "GRPO", "GRPO, random rewards *", "SFT *"]
    assert any("rewards dealt out by chance, a control (GRPO, random rewards)" in note for note in compared.notes)
    assert [row[0] for row in between.rows] == ["LCO-KLD − GRPO"]


def test_the_page_shows_what_models_write(folder):
    shown = record("start", None, 2)
    shown["evaluations"][0]["examples"] = [
        {"problem": "1 < 2 ?", "answer": "yes", "response": "<b>no</b>\nreally", "correct": False}
    ]
    records.write(folder / "r" / "start" / "None.json", shown)
    page = page_of(folder / "r")
    assert "1 &lt; 2 ?" in page
    assert "&lt;b&gt;no&lt;/b&gt;\nreally" in page


def test_the_page_needs_no_network_and_escapes_what_it_shows(folder):
    bad = record("ppo", 0, 3)
    bad["model"] = {**bad["model"], "name": "<script>alert(1)</script>"}
    records.write(folder / "r" / "ppo" / "0.json", bad)
    page = page_of(folder / "r")
    assert "<script" not in page
    assert not re.search(r"https?://|url\(|@import|<link|<iframe", page)
    assert "default-src 'none'" in page  # a browser would refuse to load, whatever the text says


def test_every_part_of_the_page_is_linked_to(folder):
    page = page_of(folder / "r")
    targets = set(re.findall(r'id="([^"]+)"', page))
    linked = re.findall(r'href="#([^"]+)"', page)
    assert len(linked) >= 3
    assert targets == set(linked)


def test_a_page_is_headed_by_its_records(folder):
    assert "<h1>t: LlamaForCausalLM</h1>" in page_of(folder / "r")
    (folder / "r" / "README.md").write_text("Words\n\n# Seven billion & more\n\n## Not this\n")
    page = page_of(folder / "r")
    assert "<h1>Seven billion &amp; more</h1>" in page
    assert "miniature" not in page.lower()
    assert main(["table", "--results", str(folder / "r"), "--out", str(folder / "out"), "--title", "Mine"]) == 0
    assert "<title>Mine</title>" in (folder / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("made", ["file", "under a file", "kernel's"])
def test_a_report_that_cannot_be_written_is_one_sentence(folder, capsys, made):
    (folder / "file").write_text("mine")
    out = {"file": folder / "file", "under a file": folder / "file" / "out", "kernel's": Path("/proc/report")}[made]
    assert main(["table", "--results", str(folder / "r"), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"lco: the report cannot be written into {out} \(.*\); give another --out, .*\n", said)
    assert (folder / "file").read_text() == "mine"


def test_a_full_disk_leaves_the_old_report_whole(folder):
    """The files may not grow beyond a few KiB, which is what a full disk looks like to the writer."""
    build(folder / "r", folder / "out")
    before = {file.name: file.read_bytes() for file in (folder / "out").iterdir()}
    write(folder / "r", ("ppo", 0, 8))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); from lco.cli import main; "
    )
    code += "sys.exit(main(['table', '--results', sys.argv[1], '--out', sys.argv[2]]))"
    command = [sys.executable, "-c", code, str(folder / "r"), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("lco: ")]
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert "Traceback" not in done.stderr
    assert {file.name: file.read_bytes() for file in (folder / "out").iterdir()} == before


def test_a_killed_table_does_not_stand_in_the_next_ones_way(folder):
    (folder / "out" / ".partial").mkdir(parents=True)
    (folder / "out" / ".partial" / "index.html").write_text("half of")
    build(folder / "r", folder / "out")
    assert (folder / "out" / "index.html").read_text(encoding="utf-8").endswith("</html>\n")
    assert not (folder / "out" / ".partial").exists()
