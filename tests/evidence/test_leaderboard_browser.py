"""The leaderboard as a browser runs it: sorted, filtered, opened, read on a telephone, without script, in the dark."""

import html
import json
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from lco.evidence import records
from lco.evidence.leaderboard import build
from tests.evidence.made import record
from tests.evidence.test_browser import POLICY, show

pytestmark = pytest.mark.long

RIGHT = {
    "grpo": (5, 7),
    "ppo": (7, 8),
    "rloo": (5, 7),
    "lco_kld": (2, 3),
    "lco_mse": (8, 8),
    "reinforce": (3,),
    "sft": (8, 8),
}
"""Right samples of eight on six of ten problems, a seed each: GRPO and RLOO are level, REINFORCE has one seed."""
PROBE = Path(__file__).with_name("leaderboard_probe.js").read_text(encoding="utf-8")
LONG = "A method whose name is longer than a telephone is wide"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaderboard")
    records.write(folder / "r" / "start.json", record("start", None, 2))
    for method, seeds in RIGHT.items():
        for seed, right in enumerate(seeds):
            found = record(method, seed, right)
            found["budget"]["response_tokens"] = (
                9000 if method == "lco_kld" else 40_000 + right
            )  # sorted as numbers, not words
            found["evaluations"][0]["examples"] = [
                {"problem": f"{method}?", "answer": "4", "response": "it is 4", "correct": right > 4}
            ]
            if method == "lco_kld":
                found["title"] = LONG
            records.write(folder / "r" / method / f"{seed}.json", found)
    build([folder / "r"], folder / "out")
    return folder / "out" / "index.html"


def does(browser, page, folder, acts, shows, width=1366):
    """What the expression `shows` is in the page after the statements `acts`, in a window of this width.

    A browser has no window narrower than 500 pixels, so the page stands in a frame, and says by message what it shows.
    """
    probe = f"<script>{PROBE.replace('ACTS', acts).replace('SHOWS', shows)}</script>"
    copy, frame = folder / "probed.html", folder / "frame.html"
    copy.write_text(
        POLICY.sub("", page.read_text(encoding="utf-8")).replace("</body>", f"{probe}</body>"), encoding="utf-8"
    )
    frame.write_text(
        f'<body><iframe src="{copy.as_uri()}" style="width:{width}px;height:844px;border:0"></iframe><script>'
        'addEventListener("message", event => document.body.setAttribute("data-probe", event.data));</script></body>',
        encoding="utf-8",
    )
    dom = show(browser, frame, folder / "profile", "--dump-dom", "--window-size=1600,900", "--virtual-time-budget=5000")
    return json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', dom)[1]))


SHOWN = ["start model", "LCO-MSE", "PPO", "GRPO", "RLOO", "REINFORCE", LONG, "SFT *"]


def test_a_click_on_a_head_sorts_by_numbers_and_keeps_the_order_of_equals(browser, page, tmp_path):
    """The start model stays above, what stands apart below; 9 k comes before 40 k."""
    acts = "const seen = [names()]; "
    acts += "for (const head of ['tokens', 'tokens', 'rank', 'method']) { click(head); seen.push(names()); }"
    first, falling, rising, ranked, named = does(browser, page, tmp_path, acts, "seen")
    assert first == SHOWN
    assert falling == ["start model", "LCO-MSE", "PPO", "GRPO", "RLOO", "REINFORCE", LONG, "SFT *"]
    assert rising == ["start model", LONG, "REINFORCE", "GRPO", "RLOO", "PPO", "LCO-MSE", "SFT *"]
    assert [ranked.index(name) for name in ("GRPO", "RLOO")] == sorted(ranked.index(name) for name in ("GRPO", "RLOO"))
    assert named == ["start model", LONG, "GRPO", "LCO-MSE", "PPO", "REINFORCE", "RLOO", "SFT *"]


def test_the_direction_is_told_to_who_cannot_see_it(browser, page, tmp_path):
    acts = "const said = () => [...document.querySelectorAll('th[aria-sort]')].map(h => h.ariaSort); const seen = []; "
    acts += "for (const head of ['gain', 'gain', 'tokens']) { click(head); seen.push(said()); }"
    assert does(browser, page, tmp_path, acts, "seen") == [["descending"], ["ascending"], ["descending"]]


def test_filters_hide_rows_and_the_best_of_what_is_left_is_marked(browser, page, tmp_path):
    acts = """const seen = [[names(), marked("best")]];
      for (const [name, value] of [["kind", "lco"], ["kind", "baseline"], ["seeds", "2"], ["name", "gr"]]) {
        choose(name, value); seen.push([names(), marked("best"), document.getElementById("count").textContent]);
      }
      filters.reset();"""
    start, own, others, seeds, named = does(browser, page, tmp_path, acts, "seen")
    assert start == [SHOWN, ["LCO-MSE"]]
    assert own == [["start model", "LCO-MSE", LONG], ["LCO-MSE"], "2 of 7 rows"]
    assert others == [["start model", "PPO", "GRPO", "RLOO", "REINFORCE"], ["PPO"], "4 of 7 rows"]
    assert seeds[:2] == [["start model", "PPO", "GRPO", "RLOO"], ["PPO"]]
    assert named[:2] == [["start model", "GRPO"], []]  # of one there is no best


def test_what_the_pairs_do_not_tell_apart_from_the_best_is_underlined(browser, page, tmp_path):
    """Of GRPO and RLOO, which answer alike, one is marked as best and so is the other; LCO-KLD is far below."""
    acts = 'choose("name", "o"); const both = [marked("best"), marked("level")]'
    best, level = does(browser, page, tmp_path, acts, "both")
    assert best == ["LCO-MSE"]
    assert "PPO" in level
    assert LONG not in level


def test_no_match_is_said_and_reset_brings_all_back(browser, page, tmp_path):
    acts = 'choose("name", "zzz"); const nothing = document.querySelector(".nothing"); '
    acts += "const before = [nothing.hidden, names().length]; "
    acts += 'filters.elements.name.value = ""; filter();'
    assert does(browser, page, tmp_path, acts, "[before, nothing.hidden, names().length]") == [[False, 1], True, 8]


def test_a_row_opens_to_curves_knobs_records_and_a_sample_with_its_verdict(browser, page, tmp_path):
    acts = """const ppo = row("PPO"); ppo.cells[3].click(); const more = ppo.nextElementSibling;
      const seen = {opened: more.classList.contains("more") && more.clientHeight > 300,
        expanded: ppo.querySelector("a").ariaExpanded,
        panels: more.querySelectorAll("svg.panel").length, bands: more.querySelectorAll(".band").length,
        records: [...more.querySelectorAll(".runs a")].map(a => a.getAttribute("href"))};
      const sample = more.querySelector(".sample"); sample.open = true; seen.sample = sample.innerText;
      click("tokens"); seen.followed = row("PPO").nextElementSibling === more;
      ppo.querySelector("a.name").click(); seen.closed = more.hidden;"""
    found = does(browser, page, tmp_path, acts, "seen")
    assert found["opened"]
    assert found["expanded"] == "true"
    assert (
        found["panels"] == found["bands"] == 4
    )  # accuracy, entropy, gradient norm, KL: each with a band over two seeds
    assert found["records"] == ["../r/ppo/0.json", "../r/ppo/1.json"]
    assert re.search(r"right.*ppo\?.*it is 4.*verdict\s+right", found["sample"], re.DOTALL)
    assert found["followed"]
    assert found["closed"]


def test_one_method_is_brought_forward_and_a_filter_takes_its_line_away(browser, page, tmp_path):
    acts = """
      const chip = [...document.querySelectorAll(".chip")].find(c => c.textContent === "PPO"); chip.click();
      const seen = [lines().filter(l => l.classList.contains("front")).length];
      seen.push(Number(getComputedStyle(lines()[0]).opacity) < 0.5);
      choose("kind", "lco"); seen.push(lines().filter(l => getComputedStyle(l).display !== "none").length, chip.hidden);"""
    assert does(browser, page, tmp_path, acts, "seen") == [4, True, 8, True]


def test_a_cell_of_the_map_says_its_interval_and_its_p_value(browser, page, tmp_path):
    acts = 'const cell = document.querySelector(".heat td[data-p]"); cell.click()'
    said = does(browser, page, tmp_path, acts, 'document.querySelector(".said").textContent')
    assert re.fullmatch(r"LCO-MSE − PPO: \+3\.7 \[\+?-?\d.*\], p 0\.\d{4}, corrected \d\.\d{4}", said)


def test_latex_has_the_chosen_columns_of_the_rows_that_are_shown(browser, page, tmp_path):
    acts = "choose('kind', 'lco'); pick('t avg@8', 'seeds')"
    text = does(browser, page, tmp_path, acts, 'document.querySelector(".latex pre").textContent')
    assert text.splitlines() == [
        r"\begin{tabular}{lrr}", r"\toprule", r"method & t avg@8 & seeds \\", r"\midrule",
        r"start model & 15.0 &  \\", r"\midrule",
        r"LCO-MSE & \textbf{60.0} & 2 \\", rf"{LONG} & 18.8 & 2 \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [390, 1366])
def test_the_score_is_seen_without_scrolling_sideways_and_the_first_column_stays(browser, page, tmp_path, width):
    acts = """const box = document.querySelector(".scroll"), cells = rows().map(found => found.cells);
      const seen = {window: innerWidth, wide: document.documentElement.scrollWidth,
        scores: Math.max(...cells.map(of => right(of[1].querySelector("b")))),
        heights: Math.max(...cells.map(of => of[0].clientHeight))};
      row("PPO").querySelector("a").click(); document.querySelector(".legend .chip").click();
      seen.opened = document.documentElement.scrollWidth; seen.inside = right(document.querySelector("tr.more .inside"));
      box.scrollLeft = 9999; seen.scrolled = box.scrollLeft; seen.first = left(cells[2][0]) - left(box);"""
    found = does(browser, page, tmp_path, acts, "seen", width)
    assert found["window"] == width
    assert found["wide"] <= width
    assert found["scores"] <= width
    assert found["opened"] <= width
    assert found["inside"] <= width
    assert found["scrolled"] > 50
    assert found["first"] == pytest.approx(0, abs=1)
    assert found["heights"] < 200  # a long name is broken between words, not letter by letter


def test_without_script_everything_can_be_read(browser, page, tmp_path):
    """Nothing is hidden but the filters, and a link to a method opens its part."""
    bare = re.sub(r"<script>.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    copy = tmp_path / "bare.html"
    copy.write_text(bare, encoding="utf-8")
    acts = "document.querySelector('.ranking a.name[href=\"#b0-m2-in\"]').click()"
    shows = """{names: names(), filters: filters.clientHeight, each: document.querySelectorAll(".each > details").length,
      seen: document.querySelector(".each").clientHeight > 100,
      latex: document.querySelector(".latex pre").textContent.length > 200}"""
    found = does(browser, copy, tmp_path, acts, shows)
    assert found == {"names": SHOWN, "filters": 0, "each": 8, "seen": True, "latex": True}


def test_what_a_slip_of_an_escape_lets_in_does_not_run(browser, page, tmp_path):
    """The page's own script runs under its policy, and no other."""
    slipped = '<script>document.title = "ran"</script><img src="x.png" onerror="document.title = 1"></body>'
    copy = tmp_path / "slipped.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", slipped), encoding="utf-8")
    dom = show(browser, copy, tmp_path / "profile", "--dump-dom")
    assert "<title>t: " not in dom
    assert "<title>r</title>" in dom
    assert 'aria-expanded="false"' in dom  # which the page's script writes
    assert "7 rows" in dom


@pytest.mark.parametrize("dark", [False, True])
def test_a_screenshot_shows_a_table_on_its_paper(browser, page, tmp_path, dark):
    picture = tmp_path / "page.png"
    scheme = ["--force-dark-mode", "--enable-features=WebContentsForceDark:none"] if dark else []
    show(browser, page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1366,900", *scheme)
    colours = matplotlib.image.imread(picture)[..., :3]
    grey = colours.mean(-1)
    background = np.median(grey)
    assert (background < 0.3) == dark
    assert 0.01 < (np.abs(grey - background) > 0.3).mean() < 0.4
    assert (np.ptp(colours, axis=-1) > 0.3).sum() > 200  # the methods' colours
