"""The page and the numbers of `lco lab`, with few inner steps: complete, self-contained, repeatable."""

import dataclasses
import json
import re

import pytest
import torch

from lco.cli import main
from lco.lab import laboratory
from lco.lab.page import build
from lco.lab.position import subjects
from lco.methods import METHODS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out, threads = tmp_path_factory.mktemp("lab"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        found = laboratory.measure(steps=2)
        patch.setattr(laboratory, "measure", lambda: found)
        assert main(["lab", "--out", str(out)]) == 0
    torch.set_num_threads(threads)  # `lco lab` takes one for its process
    return out, found


def test_every_method_is_in_every_table_of_the_page(folder):
    page = (folder[0] / "index.html").read_text(encoding="utf-8")
    tables = re.findall(r"<table>.*?</table>", page, re.DOTALL)
    assert len(tables) == 4
    for method in METHODS.values():
        assert all(f"<th>{method.title}" in table for table in tables)


def test_the_page_needs_nothing_else(folder):
    page = (folder[0] / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|@import|url\(|https?://", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', page))
    assert sorted(file.name for file in folder[0].iterdir()) == ["index.html", "lab.json"]


def test_verdicts_are_shown_whether_or_not_they_support_the_paper(folder):
    page = (folder[0] / "index.html").read_text(encoding="utf-8")
    verdicts = [v for group in folder[1].verdicts.values() for v in group]
    assert page.count("<b>supported</b>") == sum(v.supported for v in verdicts)
    assert page.count("<b>not supported</b>") == sum(not v.supported for v in verdicts) > 0


def test_numbers_are_plain_json_and_complete(folder):
    numbers = json.loads((folder[0] / "lab.json").read_text(encoding="utf-8"))
    assert set(numbers) == {field.name for field in dataclasses.fields(laboratory.Laboratory)}
    assert {name for _, name, _ in numbers["methods"]} == set(METHODS)
    assert numbers["rays"][0]["outcome"] == "stops exactly"


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
    assert "<th>Pair" in build(found)
