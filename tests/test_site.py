"""The documentation as a site: every page is reached, every link between pages leads somewhere, and it builds."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
MKDOCS = ROOT / ".venv-site" / "bin" / "mkdocs"


def listed(part):
    """The pages of a navigation tree."""
    if isinstance(part, str):
        return [part]
    items = part if isinstance(part, list) else list(part.values())
    return [page for item in items for page in listed(item)]


def test_the_navigation_has_every_page_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed(config["nav"])) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_to_a_page_of_the_site(page):
    """A link out of docs/ would be dead in the site."""
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = {target.partition("#")[0] for target in targets if not re.match(r"https?://|#|mailto:", target)}
    assert inside <= set(PAGES), sorted(inside - set(PAGES))


def test_what_builds_the_site_is_one_version_in_both_places():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = (ROOT / "requirements" / "site.txt").read_text(encoding="utf-8").splitlines()
    assert extras["site"] == [line for line in asked if not line.startswith("#")]


def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs"):
        command = [sys.executable, "-m", "mkdocs"]
    elif MKDOCS.exists():
        command = [str(MKDOCS)]
    else:
        pytest.skip("mkdocs is not installed; `make site` makes .venv-site, which has it")
    done = subprocess.run(
        [*command, "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in (tmp_path / "site").glob("*.html") if path.stem != "404") == [
        page.removesuffix(".md") for page in PAGES
    ]
    methods = (tmp_path / "site" / "methods.html").read_text(encoding="utf-8")
    assert 'id="lco_kld"' in methods
