"""Names come from whoever wrote a record: in no format may one of them write markup, a row, or a sign that nobody sees."""

import html
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.mathtext import MathTextParser

from lco.cli import main
from lco.evidence.formats import SIGNS, Table, latex, markdown, markdown_text, tex_text, visible
from tests.evidence.made import page_of, record

HOSTILE = [
    "a | b", "one\ntwo", "| new | row |\n|---|---|", "a\r\n\r\n# heading", "<script>alert(1)</script>", "<b>bold</b>",
    "<img src=x onerror=alert(1)>", "<!-- comment", "&lt;i&gt; &#106;", "[link](javascript:alert(1))", "![i](http://x/y.png)",
    "[a]: http://x", "**strong** _em_ ~~gone~~ `code`", "\\| escaped already", "trailing \\", "$x^2$ and $\\frac$", "_hidden",
    "\\input{/etc/passwd}", "{}%&#~^\"", "[2pt] in front", "* a star", "\x00nul \x1b[31mred\x1b[0m \x07", "\u202eevil\u2066",
    "zero\u200bwidth \ufeff", "line\u2028separator\u0085", "# heading", "1. list", "- item", "lone \ud800 surrogate",
]  # fmt: skip
SEEN_BY_NOBODY = ("Cc", "Cf", "Cs", "Zl", "Zp")


def unseen(text, kept="\n\t"):
    return [c for c in text if unicodedata.category(c) in SEEN_BY_NOBODY and c not in kept]


def rendered(text):
    """The tables of a Markdown text as a reader of GitHub's dialect sees them: rows of cells; anything but text is refused."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    rows, inside = [], False
    for token in tokens:
        inside = token.type != "table_close" and (inside or token.type == "table_open")
        assert token.type not in ("html_block", "fence", "code_block", "bullet_list_open", "hr"), token
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special", "hardbreak", "softbreak"}, (kinds, token.content)
            if inside:
                rows[-1].append("".join(child.content for child in token.children))
    return rows


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_writes_markdown_or_tex(name):
    table = Table(name, ("method", name), ((name, "+1.0"), ("b", name)), (name, f"{name} and more"))
    # A reader of Markdown drops the spaces around a cell.
    shown = visible(name).strip()
    rows = rendered(markdown(table))
    assert rows[:3] == [["method", shown], [shown, "+1.0"], ["b", shown]]
    assert not unseen(markdown(table))
    lines = latex(table).split("\n")
    assert len(lines) == 10  # title, begin, three rules, header, two rows, end, and the end of the last line
    assert lines[0].startswith("% ")
    assert all(line.endswith(r" \\") for line in (lines[3], lines[5], lines[6]))
    assert all(line.count(" & ") == 1 for line in (lines[3], lines[5], lines[6]))
    assert not re.match(r"[\[*]", lines[5])  # what stands after a row's end would be its argument
    assert not unseen(latex(table))


def test_latex_escapes_what_it_would_read():
    table = Table("t", ("a_b",), ((r"50 % & {x} \y ~ ^ $1 #",), ("ρ < π − 1 ± 2",)))
    escaped = r"50 \% \& \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} \$1 \# \\"
    assert escaped in latex(table)
    assert r"a\_b" in latex(table)
    assert r"$\rho$ \textless{} $\pi$ $-$ 1 $\pm$ 2" in latex(table)


MACROS = {
    "toprule", "midrule", "bottomrule", "begin", "end", "textbf", "textbackslash", "textasciitilde", "textasciicircum",
    "textless", "textgreater", "textbar", "textquotedbl",
}  # fmt: skip
DECLARED = set("–—×“”‘’")
"""Signs beyond ASCII that LaTeX's own encodings print."""


def check_tex(text):
    """Raises where LaTeX would stop: a macro that booktabs and LaTeX do not have, a sign that it cannot print, braces that do
    not close, a formula that matplotlib's parser does not take, a row of more or fewer cells than the table has columns."""
    lines = [line for line in text.split("\n") if not line.startswith("%")]
    whole = "\n".join(lines)
    assert {c for c in whole if ord(c) > 126} <= DECLARED
    bare = re.sub(r"\\[\\{}$&%#_]", "", whole)
    outside = re.sub(r"\$[^$]+\$", "", bare)
    assert set(re.findall(r"\\([A-Za-z]+)", outside)) <= MACROS
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for formula in re.findall(r"\$[^$]+\$", bare):
        MathTextParser("path").parse(formula)
    columns = 0
    for line in lines:
        if begun := re.fullmatch(r"\\begin\{tabular\}\{(lr*)\}", line):
            columns = len(begun[1])
        elif line.endswith(r" \\"):
            assert re.sub(r"\\[\\&]", "", line[:-3]).count("&") == columns - 1, line


@pytest.mark.parametrize("file", sorted(Path("results").glob("*/report/table.tex")), ids=lambda file: file.parts[1])
def test_committed_tables_hold_nothing_that_latex_would_stop_at(file):
    text = file.read_text(encoding="utf-8")
    assert r"\begin{tabular}" in text
    check_tex(text)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=127) | st.sampled_from([*SIGNS, "–"])), min_size=2, max_size=2))
def test_whatever_a_cell_holds_latex_would_not_stop_at_it(cells):
    check_tex(latex(Table("t", ("a", "b"), (tuple(cells),), bold=frozenset({(0, 1)}))))


@pytest.mark.parametrize(
    "broken", [r"a & b & c \\", r"\unknown & b \\", "文 & b", "{ & b", r"$\rho & b", r"$\nosuchsign$ & b \\"]
)
def test_the_check_of_latex_sees_what_is_broken(broken):
    with pytest.raises((AssertionError, ValueError)):
        check_tex("\n".join([r"\begin{tabular}{lr}", broken, r"\end{tabular}"]))


def test_a_bold_cell_is_escaped_inside_its_marks():
    table = Table("t", ("a", "b"), (("x", "1_*y"), ("z", "2")), bold=frozenset({(0, 1)}))
    assert r"| x | **1\_\*y** |" in markdown(table)
    assert r"x & \textbf{1\_*y} \\" in latex(table)
    assert "z & 2 " in latex(table)


@given(st.text(max_size=40))
def test_any_text_is_one_cell_of_what_can_be_seen(text):
    assert rendered(markdown(Table("t", ("h", "i"), ((text, "x"),)))) == [["h", "i"], [visible(text).strip(), "x"]]
    assert not unseen(visible(text), kept="")
    assert "\n" not in tex_text(text)
    # Nothing that acts is left: every sign of TeX stands behind a backslash or in one of the replacements.
    assert not re.search(r"(?<!\\)[%&#_]", tex_text(text))


@pytest.mark.parametrize(
    "plain", ["LCO-KLD", "Dr. GRPO", "REINFORCE++-baseline", "SFT *", "[93.9, 95.5]", "+1.2", "lco_miniature"]
)
def test_plain_names_and_numbers_stay_as_they_are(plain):
    assert markdown_text(plain) == plain


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def test_no_value_of_a_record_writes_a_page(tmp_path):
    """Every name, text and fact that a record holds, all at once."""
    folder, everything = tmp_path / "r", " / ".join(HOSTILE)
    folder.mkdir()
    for i, name in enumerate(["start", *HOSTILE]):
        run = record(name, 0 if i else None, 5)
        run["model"] |= {"class": everything, "name": everything}
        run["provenance"] |= {"git": {"commit": name, "dirty": True}, "packages": {name: name}}
        run["provenance"]["hardware"]["processor"] = name
        run |= {"title": name, "family": "lco", "source": name}
        for e in run["evaluations"]:
            e |= {
                "task": everything,
                "examples": [{"problem": name, "answer": name, "response": name, "correct": True}],
            }
        (folder / f"{i}.json").write_text(json.dumps(run))
    (folder / "README.md").write_text(f"# {everything}".replace("\ud800", ""))
    page = Page(page_of(folder))
    assert page.tags <= set(
        "html head meta title style body header h1 h2 h3 p dl div dt dd nav a main section span i svg path table thead tbody "
        "tr th td details summary b code".split()
    )
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value for name, value in page.attributes if name in ("src", "href", "data", "action", "srcset")]
    assert all(value.startswith("#") for value in sources)
    assert not unseen(page.text)
    words = " ".join(page.text.split())
    for name in HOSTILE:
        assert words.count(" ".join(visible(name, kept="\n\t").split())) >= 8, name


@pytest.mark.parametrize("name", ["_$x^2$ and $\\frac$", "\x1b[31mred\u202e \ud800\n| a | b |"])
def test_no_name_stops_or_leaves_the_figures(tmp_path, capsys, name):
    """A dollar begins a formula, a leading underline hides a line from the legend; the terminal prints the table too."""
    for seed, run in ((None, record("start", None, 2)), (0, record("m", 0, 5) | {"title": name})):
        run["model"]["class"] = name
        (tmp_path / f"{seed}.json").write_text(json.dumps(run))
    assert main(["table", "--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert not unseen(capsys.readouterr().out)
    # matplotlib writes a comment over every text: the class at the axis, the title in the legend.
    svg = html.unescape((tmp_path / "out" / "learning_curves.svg").read_text(encoding="utf-8"))
    assert len(re.findall(f"<!--  ?{re.escape(visible(name))} -->", svg)) == 2
