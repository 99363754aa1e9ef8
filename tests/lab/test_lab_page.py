"""The page and the numbers of `lco lab`, with few inner steps: complete, self-contained, repeatable."""

import dataclasses
import html
import json
import re

import pytest
import torch

from lco.cli import main
from lco.lab import laboratory
from lco.lab.claims import CLAIMS, judged
from lco.lab.page import build
from lco.lab.position import subjects
from lco.methods import METHODS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        found = laboratory.measure(steps=2)
        patch.setattr(laboratory, "measure", lambda: found)
        assert main(["lab", "--out", str(out)]) == 0
    return out, found


@pytest.fixture(scope="module")
def page(folder):
    return (folder[0] / "index.html").read_text(encoding="utf-8")


def test_every_method_is_in_every_table_of_the_page(page):
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(tables) == 4
    for method in METHODS.values():
        assert all(f'<th scope="row">{method.title}' in table for table in tables)


def test_the_page_needs_nothing_else(folder, page):
    assert not re.search(r"<script|<link|@import|url\(|https?://", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', page))
    assert sorted(file.name for file in folder[0].iterdir()) == ["index.html", "lab.json"]


def test_verdicts_are_shown_whether_or_not_they_support_the_paper(folder, page):
    """Once in the overview and once with what would have refuted them, each with its number."""
    findings = [finding for _, finding in judged(folder[1])]
    assert page.count(">supported</span>") == 2 * sum(f.supported for f in findings)
    assert page.count(">not supported</span>") == 2 * sum(not f.supported for f in findings) > 0
    text = html.unescape(page)
    for claim, finding in judged(folder[1]):
        assert text.count(claim.words) == 2
        assert text.count(finding.number) >= 2
        assert claim.refutes in text
        assert all(case in text for case in (*finding.cases, *finding.apart))


def test_every_link_leads_somewhere_and_every_part_is_linked(page):
    targets = re.findall(r'id="([^"]+)"', page)
    assert len(targets) == len(set(targets)) >= len(CLAIMS) + 5
    assert set(targets) == set(re.findall(r'href="#([^"]+)"', page))


def test_numbers_are_plain_json_and_complete(folder):
    numbers = json.loads((folder[0] / "lab.json").read_text(encoding="utf-8"))
    assert set(numbers) == {field.name for field in dataclasses.fields(laboratory.Laboratory)} | {"verdicts"}
    assert {name for _, name, _ in numbers["methods"]} == set(METHODS)
    assert numbers["rays"][0]["outcome"] == "stops exactly"
    assert [verdict["claim"] for verdict in numbers["verdicts"]] == [claim.words for claim in CLAIMS]


def test_the_terminal_has_every_verdict_with_its_number(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(laboratory, "measure", lambda: folder[1])
    record = tmp_path / "records" / "lab.json"
    assert main(["lab", "--out", str(tmp_path / "page"), "--record", str(record)]) == 0
    kept = json.loads(record.read_text(encoding="utf-8"))
    assert [(v["claim"], v["supported"]) for v in kept["lab"]] == [(c.words, f.supported) for c, f in judged(folder[1])]
    printed = " ".join(capsys.readouterr().out.split())
    for claim, finding in judged(folder[1]):
        verdict = "supported" if finding.supported else "NOT supported"
        assert f"{verdict} {claim.words} {' '.join(finding.number.split())}" in printed


def test_a_page_that_cannot_be_written_is_one_sentence_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(laboratory, "measure", lambda: pytest.fail("two minutes for nothing"))
    (tmp_path / "file").write_text("")
    assert main(["lab", "--out", str(tmp_path / "file")]) == 2
    assert re.search(r"lco: the page cannot be written into .*; give another --out", capsys.readouterr().err)


def test_a_new_method_of_another_scope_needs_no_change_here():
    """One preference loss over pairs, by itself: every group of methods but its own is empty."""

    def loss(hyper):
        def per_pair(s, x):
            margins = (s["logprob"] - s["old_logprob"]).view(-1, 2)
            return -torch.nn.functional.logsigmoid(0.1 * (margins[:, 0] - margins[:, 1]))

        return per_pair

    pair = dataclasses.replace(METHODS["grpo"], name="pair", title="Pair", scope="pair", loss=loss)
    found = laboratory.measure(subjects([pair]), steps=2)
    assert found.methods == (("Pair", "pair", "open"),)
    assert '<th scope="row">Pair' in build(found)
