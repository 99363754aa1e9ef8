"""The result page as a browser shows it: headless Chromium renders it from committed records, and asks nobody for anything."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from lco.evidence.report import build

RECORDS = Path(__file__).parents[2] / "results" / "miniature" / "llama"
CHOSEN = ["start.json", "grpo/seed-0.json", "lco_kld/seed-0.json"]
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage").split()  # fmt: skip
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Appended to a copy, whose own policy would not let it run: what the browser itself knows of the page once all is loaded.
PROBE = """<script>addEventListener("load", () => {
  const facts = {
    images: [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth]),
    rows: [...document.querySelectorAll("tbody tr")].filter(r => r.closest("details") === null).map(r => r.clientHeight),
    asked: performance.getEntriesByType("resource").map(r => r.name).filter(name => !name.startsWith("data:")),
    wide: document.documentElement.scrollWidth, window: innerWidth,
    scores: [...document.querySelectorAll("table:not(.plain) tbody td:nth-child(2)")].map(c => c.getBoundingClientRect().right),
  };
  document.body.setAttribute("data-probe", JSON.stringify(facts));
});</script>"""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name in CHOSEN:
        copy = folder / "records" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RECORDS / name, copy)
    build(folder / "records", folder / "report")
    return folder / "report" / "index.html"


def show(browser, file, profile, *flags):
    command = [browser, *FLAGS, f"--user-data-dir={profile}", *flags, file.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def probed(browser, text, folder, width=1200):
    """What PROBE finds in a page of this text."""
    copy = folder / "probed.html"
    copy.write_text(POLICY.sub("", text).replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    dom = show(browser, copy, folder / "profile", "--dump-dom", f"--window-size={width},900")
    return json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', dom)[1]))


class Shown(HTMLParser):
    """Row heads and addresses of a rendered page."""

    def __init__(self):
        super().__init__()
        self.path, self.rows, self.addresses, self.scripts = [], [], [], 0

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "srcset", "href", "data", "poster")]
        self.scripts += tag == "script"
        if tag not in ("img", "meta", "br", "link"):
            self.path.append(tag)
        if self.path[-3:] == ["tbody", "tr", "th"] and "details" not in self.path:
            self.rows.append("")

    def handle_endtag(self, tag):
        while self.path and self.path.pop() != tag:
            pass

    def handle_data(self, data):
        if {"tbody", "th"} <= set(self.path) and "details" not in self.path:
            self.rows[-1] += data


def test_the_rendered_page_has_every_method_and_only_inline_figures(browser, page, tmp_path):
    shown = Shown()
    shown.feed(show(browser, page, tmp_path / "profile", "--dump-dom"))
    start = ["start, T = 1", "start, greedy", "start, T = 0.2 (chosen on validation)"]
    assert shown.rows == [*start, "GRPO", "LCO-KLD"]  # the differences stand below, in a part that opens
    images = [address for address in shown.addresses if not address.startswith("#")]
    assert len(images) == 3
    assert all(address.startswith("data:image/png;base64,") for address in images)
    assert not shown.scripts


def test_figures_are_decoded_rows_are_visible_and_nothing_is_loaded(browser, page, tmp_path):
    """On a desk and on a telephone."""
    for width in (1200, 500):
        found = probed(browser, page.read_text(encoding="utf-8"), tmp_path, width)
        assert found["window"] == width
        assert len(found["images"]) == 3
        assert all(complete and natural > 500 and client > 500 for complete, natural, client in found["images"])
        assert len(found["rows"]) == 5
        assert min(found["rows"]) > 10
        assert found["asked"] == []
        # Wide tables and figures scroll by themselves; the page does not.
        assert found["wide"] <= found["window"]
        # Without scrolling a table, the first score is seen.
        assert max(found["scores"]) <= found["window"]


def test_the_probe_sees_an_address_and_a_figure_that_is_broken(browser, page, tmp_path):
    """The control."""
    broken = '<img src="http://127.0.0.1:9/figure.png"></body>'
    found = probed(browser, page.read_text(encoding="utf-8").replace("</body>", broken), tmp_path)
    assert found["asked"] == ["http://127.0.0.1:9/figure.png"]
    assert found["images"][-1][1] == 0


def test_the_page_itself_lets_nothing_run_and_nothing_load(browser, page, tmp_path):
    """Its policy, as the browser understands it: what a slip of an escape would let in does not act."""
    slipped = '<script>document.title = "ran"</script><img src="http://127.0.0.1:9/x.png" onerror="document.title = 1"></body>'
    copy = tmp_path / "slipped.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", slipped), encoding="utf-8")
    dom = show(browser, copy, tmp_path / "profile", "--dump-dom")
    assert "<title>lco_miniature: LlamaForCausalLM</title>" in dom


@pytest.mark.parametrize("dark", [False, True])
def test_a_screenshot_shows_text_on_a_page(browser, page, tmp_path, dark):
    picture = tmp_path / "page.png"
    scheme = ["--force-dark-mode", "--enable-features=WebContentsForceDark:none"] if dark else []
    show(browser, page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1200,900", *scheme)
    grey = matplotlib.image.imread(picture)[..., :3].mean(-1)
    assert grey.shape == (900, 1200)
    background = np.median(grey)
    assert (background < 0.3) == dark
    written = np.abs(grey - background) > 0.3
    assert 0.01 < written.mean() < 0.4
    # From the title to the last line of the window, not one block of it.
    assert (written.reshape(9, 100, 1200).mean((1, 2)) > 0.001).sum() >= 7
