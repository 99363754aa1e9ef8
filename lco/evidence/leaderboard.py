"""Result folders → leaderboard pages: one self-contained file a folder, or one of all, and an index over them.

A folder of results is one with a README.md, or the folder that was given; a record belongs to the nearest above it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lco.errors import UserError
from lco.evidence.boards import Board, board
from lco.evidence.folders import replacing
from lco.evidence.formats import Table, latex, tex_text
from lco.evidence.names import titles
from lco.evidence.opened import Opened, link, opened, shared_settings
from lco.evidence.records import read_records
from lco.evidence.render import page
from lco.evidence.rows import Column, Row
from lco.evidence.tables import Record, by_model, percent, points

IN_LATEX = ("rank", "95 %", "gain", "seeds")
"""Columns that are chosen beside the scores before anybody chooses."""


@dataclass(frozen=True)
class Study:
    """A folder of results.

    Attributes:
        records: (file, record).
        refused: why they make no board, or "".
    """

    name: str
    title: str
    folder: Path
    records: tuple[tuple[Path, Record], ...]
    refused: str = ""


@dataclass(frozen=True)
class Shown:
    """A board as the page has it, with what its rows open to."""

    id: str
    study: Study
    board: Board
    opened: Mapping[str, Opened]
    shared: Mapping[str, str]

    def row_id(self, row: Row) -> str:
        return f"{self.id}-m{self.board.all_rows.index(row)}"

    def title(self, method: str) -> str:
        return next(row.title for row in self.board.all_rows if row.method == method)

    @property
    def latex(self) -> str:
        """The columns that are chosen at first, of all rows."""
        kept = [i for i, column in enumerate(self.board.columns) if in_latex(column)]
        rows = tuple((row.title, *(row.cells[i].text for i in kept)) for row in self.board.all_rows)
        header = ("method", *(self.board.columns[i].title for i in kept))
        return latex(Table(self.board.model, header, rows))


def in_latex(column: Column) -> bool:
    return column.title in IN_LATEX or (column.better == 1 and bool(column.about.startswith("right answers")))


def find_studies(roots: Sequence[Path]) -> list[Study]:
    """The folders of results at and below `roots` that hold anything, in order of their paths.

    Raises:
        UserError: there is no such folder, or nothing in any of them.
    """
    homes: dict[Path, dict[Path, None]] = {}
    for root in dict.fromkeys(roots):
        if not root.is_dir():
            raise UserError(f"there is no folder {root}; give the folder of the records with --results")
        for file in sorted(root.rglob("*.json")):
            homes.setdefault(home_of(file, root), {})[file] = None
        for readme in sorted(root.rglob("README.md")):
            if readme.parent != root:
                homes.setdefault(readme.parent, {})
    found = [study(folder, list(kept)) for folder, kept in sorted(homes.items())]
    if not any(s.records or s.refused for s in found):
        where = ", ".join(map(str, roots))
        raise UserError(f"there is no result record below {where}; make one with `lco record RUN --out {roots[0]}`")
    return found


def home_of(file: Path, root: Path) -> Path:
    """The nearest folder above a file that has a README.md; without one, the root."""
    inside = [folder for folder in file.parents if folder.is_relative_to(root)]
    return next((folder for folder in inside if (folder / "README.md").is_file()), root)


def study(folder: Path, kept: Sequence[Path]) -> Study:
    """What a folder holds; records that cannot be read, or not side by side, are the reason why it has no board."""
    name = folder.name or folder.resolve().name
    try:
        return Study(name, heading(folder) or name, folder, tuple(read_records(kept)))
    except UserError as error:
        return Study(name, heading(folder) or name, folder, (), reason_of(error, folder))


def reason_of(error: UserError, folder: Path) -> str:
    """The sentence without the place of the folder, which is a machine's and would change the page's bytes."""
    return str(error).replace(f"{folder}{os.sep}", "")


def heading(folder: Path) -> str:
    """The first heading of the folder's README."""
    readme = folder / "README.md"
    lines = readme.read_text(encoding="utf-8", errors="replace").split("\n") if readme.is_file() else []
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")


def boards_of(found: Study, out: Path, first: int = 0) -> list[Shown]:
    """A board for every model of a folder.

    Raises:
        UserError: its records do not belong on one board.
    """
    records = [record for _, record in found.records]
    files_of = {id(record): file for file, record in found.records}
    names = titles(records)
    shown = []
    for number, (model, of_model) in enumerate(by_model(records).items(), first):
        made = board(model, of_model, names)
        shared = shared_settings(of_model)
        inside = {row.method: opened(made, row, shared, files_of, out) for row in made.all_rows}
        shown.append(Shown(f"b{number}", found, made, inside, shared))
    return shown


def build(roots: Sequence[Path], out: Path, title: str = "", together: bool = False) -> dict[str, list[str]]:
    """Writes the pages into `out`; returns {file: what it shows} and under "" what was refused.

    One folder of results, or all of them together, make index.html; several make a page each, by their names, and index.html
    lists them.

    Raises:
        UserError: there is no record, or none that makes a board, or the folder cannot be written.
    """
    made: list[tuple[Study, list[Shown]]] = []
    said: dict[str, list[str]] = {}
    for found in find_studies(roots):
        shown: list[Shown] = []
        try:
            shown = boards_of(found, out, sum(len(s) for _, s in made)) if found.records else []
        except UserError as error:
            found = replace(found, records=(), refused=reason_of(error, found.folder))
        if found.refused:
            said.setdefault("", []).append(f"{found.folder}: {found.refused}")
        made.append((found, shown))
    boards = [(found, shown) for found, shown in made if shown]
    if not boards:
        raise UserError(said[""][0])
    with replacing(out, "the leaderboard") as folder:
        if together or len(made) == 1:
            several = [s for _, shown in boards for s in shown]
            write(folder, "index.html", leaderboard(several, title or heading_of(boards), ""))
            said["index.html"] = [s.board.model for s in several]
            return said
        pages = file_names([found for found, _ in boards])
        for (_, shown), file in zip(boards, pages, strict=True):
            write(folder, file, leaderboard(shown, heading_of([(shown[0].study, shown)]), "index.html"))
            said[file] = [s.board.model for s in shown]
        entries = {id(found): file for (found, _), file in zip(boards, pages, strict=True)}
        made.sort(key=lambda one: not one[1])
        write(folder, "index.html", index(made, entries, title or "Leaderboards", out))
        said["index.html"] = [found.title for found, _ in made]
    return said


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def file_names(studies: Sequence[Study]) -> list[str]:
    """A page's file by the folder's name; a number tells folders of one name apart, and from the index."""
    taken, found = {"index.html"}, []
    for study_ in studies:
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in study_.name).strip(".") or "results"
        name = next(n for i in range(1, 10_000) if (n := f"{stem}{'' if i == 1 else f'-{i}'}.html") not in taken)
        taken.add(name)
        found.append(name)
    return found


def heading_of(boards: Sequence[tuple[Study, Sequence[Shown]]]) -> str:
    return boards[0][0].title if len(boards) == 1 else "Leaderboard"


@cache
def script() -> Markup:
    return Markup(files("lco.evidence").joinpath("templates", "leaderboard.js").read_text(encoding="utf-8"))


def script_hash() -> str:
    """What the page's policy lets run: this one script, and nothing that a slip of an escape would let in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()}"


def leaderboard(shown: Sequence[Shown], title: str, up: str) -> str:
    """The text of a page of boards; `up` is the index that it belongs to, or ""."""
    return page(
        "leaderboard.html", title=title, lead=LEAD, facts=facts(shown), boards=shown, choices=choices(shown), up=up,
        contents=[], script=script(), script_hash=script_hash(), percent=percent, points=points, tex=tex_text,
        in_latex=in_latex, several=len({s.study.name for s in shown}) > 1,
    )  # fmt: skip


LEAD = (
    "On one board stand runs that started from the same weights and were scored on the same problems; methods whose data or "
    "budget differ stand below it and are ranked with nobody. A range of ranks holds every place that the paired differences "
    "leave open.",
)


def facts(shown: Sequence[Shown]) -> list[tuple[str, str]]:
    runs = [record for s in shown for row in (*s.board.rows, *s.board.apart) for record in row.runs]
    tests = {(e["task"], e["problems"]) for record in runs for e in record["evaluations"]}
    return [
        ("methods", str(len({record["method"] for record in runs}))),
        ("models", str(len({s.board.model for s in shown}))),
        ("runs", str(len(runs))),
        ("benchmarks", ", ".join(sorted(f"{task.removeprefix('lco_')} ({n} problems)" for task, n in tests))),
    ]


def choices(shown: Sequence[Shown]) -> dict[str, list[Any]]:
    """What the filters offer, each value once."""
    rows = [row for s in shown for row in (*s.board.rows, *s.board.apart)]
    return {
        "family": sorted({s.board.family for s in shown}),
        "scale": sorted({s.board.scale for s in shown} - {""}),
        "benchmark": list(dict.fromkeys(task for s in shown for task in s.board.tasks)),
        "kind": list(dict.fromkeys(row.family for row in rows)),
        "source": list(dict.fromkeys(row.source for row in rows)),
        "seeds": sorted({len({r["seed"] for r in row.runs}) for row in rows}),
    }


@dataclass(frozen=True)
class Entry:
    """A line of the index. `links` are (words, address)."""

    title: str
    name: str
    file: str
    facts: tuple[tuple[str, str], ...]
    leaders: tuple[tuple[str, str, str], ...]
    links: tuple[tuple[str, str], ...]
    refused: str


def index(made: Sequence[tuple[Study, Sequence[Shown]]], entries: Mapping[int, str], title: str, out: Path) -> str:
    return page("folders.html", title=title, lead=INDEX_LEAD, facts=[], contents=[],
                entries=[entry(found, shown, entries.get(id(found), ""), out) for found, shown in made])  # fmt: skip


INDEX_LEAD = (
    "Every folder of results, what stands first on each of its boards, and the page with all of it. What is first is not always "
    "told apart from what follows; the page says so.",
)


def leading(found: Board) -> str:
    """What the first row says of itself: its score and the ranks that are open to it."""
    score, rank = found.rows[0].cells[:2]
    return f"{score.text} % {found.columns[0].title}, rank {rank.text} of {len(found.rows)}"


def entry(found: Study, shown: Sequence[Shown], file: str, out: Path) -> Entry:
    links = [
        (words, link(place, out))
        for words, place in (("README", found.folder / "README.md"), ("report", found.folder / "report" / "index.html"))
        if place.is_file()
    ]
    leaders = tuple(
        (s.board.model, s.board.rows[0].title, leading(s.board))
        for s in shown
        if s.board.rows and s.board.rows[0].strip
    )
    return Entry(
        found.title, found.name, file, tuple(facts(shown)) if shown else (), leaders, tuple(links), found.refused
    )
