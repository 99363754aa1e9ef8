"""A new method is one file and one line: tables, figures and pages take its name, family and colour from its record."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lco.evidence import names, plots, records
from lco.evidence.report import build
from lco.evidence.styles import COLOURS, styles
from lco.methods import METHODS
from tests.evidence.made import record, tables, write

EVIDENCE = Path(names.__file__).parent


def test_a_method_that_nobody_knows_stands_in_tables_figures_and_page(tmp_path):
    folder = write(
        tmp_path / "r", ("start", None, 2), ("grpo", 0, 5), ("grpo", 1, 5), ("lco_kld", 0, 4), ("lco_kld", 1, 4)
    )
    for name, family, source in (("my_loss", "lco", "rollouts"), ("my_rival", "baseline", "rollouts"),
                                 ("my_teacher", "imitation", "demonstrations")):  # fmt: skip
        for seed in (0, 1):
            said = {"title": f"{name} of mine", "family": family, "source": source}
            records.write(folder / name / f"{seed}.json", {**record(name, seed, 7), **said})
    compared, between = build(folder, tmp_path / "out")
    assert {"my_loss of mine", "my_rival of mine", "my_teacher of mine *"} <= {row[0] for row in compared.rows}
    pairs = {row[0] for row in between.rows}
    assert pairs == {f"{a} − {b}" for a in ("LCO-KLD", "my_loss of mine") for b in ("GRPO", "my_rival of mine")}
    svg = (tmp_path / "out" / "learning_curves.svg").read_text(encoding="utf-8")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for name in ("my_loss of mine", "my_rival of mine", "my_teacher of mine"):
        assert f"<!-- {name} -->" in svg  # matplotlib writes a comment over every text
        assert name in page
    drawn = set(re.findall(r"stroke: (#[0-9a-f]{6})", svg))
    assert {look.colour.lower() for look in styles(range(5)).values()} <= drawn


def test_a_method_without_a_word_of_it_is_called_by_its_name(tmp_path):
    folder = write(tmp_path / "r", ("start", None, 2), ("grpo", 0, 5), ("unheard_of", 0, 7))
    assert [row[0] for row in tables(folder)[0].rows][3:] == ["unheard_of", "GRPO"]


def test_two_methods_are_never_printed_alike():
    """Otherwise a record could pass for another method's."""
    found = names.titles(
        [{"method": "mine", "title": "GRPO"}, {"method": "b", "title": "B"}, {"method": "c", "title": "B"}]
    )
    assert (found["grpo"], found["mine"], found["b"], found["c"]) == ("GRPO", "GRPO (mine)", "B (b)", "B (c)")


def test_no_method_is_named_in_the_code_of_the_evidence():
    for file in EVIDENCE.glob("*.py"):
        words = set(re.findall(r"""["']([a-z_0-9]+)["']""", file.read_text(encoding="utf-8")))
        # "lco" is a family, and the word for the suite.
        assert not words & (METHODS.keys() - {"lco"}), file.name


def test_what_earlier_records_meant_is_what_the_registry_says():
    """The committed records carry no names of their own; the registry may grow, but must not rename what stands in them."""
    for method, said in names.earlier().items():
        known = METHODS[method]
        assert said == {"title": known.title, "family": known.family, "source": known.source}
    results = EVIDENCE.parents[1] / "results"
    used = {json.loads(path.read_text(encoding="utf-8")).get("method") for path in results.rglob("seed-*.json")}
    assert used - {None} <= names.earlier().keys()


def test_demonstrations_have_no_accuracy(tmp_path):
    """Rows that are right by definition are no accuracy of a policy, so no line is drawn of them."""
    import matplotlib.axes

    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.axes.Axes, "plot", lambda axis, *a, **k: lines.append((axis, k.get("label"))))
        patch.setattr(plots, "save", lambda figure, stem: [])
        found = [record("grpo", 0, 5), record("sft", 0, 8), {**record("mine", 0, 5), "source": "pairs"}]
        plots.learning_curves(found, names.titles(found), tmp_path / "c")
    panels = list(dict.fromkeys(axis for axis, _ in lines))
    shown = [{label for axis, label in lines if axis is panel and label} for panel in panels]
    assert shown == [{"GRPO"}, {"GRPO", "SFT", "mine"}, {"GRPO", "SFT", "mine"}, {"GRPO", "SFT", "mine"}]


def test_forty_methods_have_forty_lines():
    assert styles("abc")["b"] == styles("xbc")["b"]  # by place, whatever the others are called
    found = styles(map(str, range(40)))
    assert len({(look.colour, look.dashes) for look in found.values()}) == 40
    assert styles(map(str, range(40))) == found


# Severity 1.0 in linear RGB; Machado, Oliveira and Fernandes (2009), doi 10.1109/TVCG.2009.113.
SIGHT = {
    "common": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear RGB, D65."""
    x = TO_XYZ @ rgb.clip(0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_kind_of_sight(sight):
    """A difference of 2.3 is just seen side by side; lines that cross need several times that."""
    seen = {colour: lab(SIGHT[sight] @ linear(colour)) for colour in COLOURS}
    for a, b in itertools.combinations(COLOURS, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 15, (a, b)


def test_colours_stand_out_from_paper_in_the_light_and_in_the_dark():
    for colour in COLOURS:
        luminance = float(TO_XYZ[1] @ linear(colour))
        assert 1.05 / (luminance + 0.05) > 2.2, colour
