"""Records → report folder: table.md, table.tex, learning_curves, validation, one_by_one, index.html. Byte for byte repeatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lco.evidence import page, plots, records
from lco.evidence.benchmarks import benchmark_tables, has_several_tasks
from lco.evidence.differences import differences
from lco.evidence.folders import replacing
from lco.evidence.formats import Table, latex, markdown
from lco.evidence.kinds import kind_of
from lco.evidence.names import titles
from lco.evidence.pairs import places_of
from lco.evidence.styles import styles
from lco.evidence.tables import Record, by_model, comparison, runs_of, sampled, standings

LEAD = (
    "Every run of a model starts from the same weights and has the same prompts, samples, token limit and updates; rows marked * "
    "differ in their data. How the knobs were chosen is not in the records: the README beside them says it.",
    "Sampling at a lower temperature lifts the start model without any training, so “beyond sharpening” says what is left of a "
    "gain after that. What is measured here holds for these models on these problems, and ranks no method for others.",
)

BENCHMARKS = (
    "Every run of a model starts from the same weights. Methods with another budget than most, or other data, stand last and are "
    "marked *. What is measured here holds for these models and budgets, and ranks no method for others.",
)


def build(source: Path, out: Path, title: str = "", beside: Sequence[Path] = ()) -> list[Table]:
    """Reads all records below `source` and those beside it, and writes the report into `out`; returns its tables.

    Args:
        title: of the page; by default what the records' README is headed.

    Raises:
        UserError: the records cannot be read or do not belong into one table, or the folder cannot be written.
    """
    found = records.read_all(source, *beside)
    names = titles(found)
    if has_several_tasks(found):
        return build_benchmarks(found, names, out, title or heading(source, found))
    parts = sections(found, names)
    tables = [table for part in parts for table in (part.table, part.differences) if table is not None]
    with replacing(out, "the report") as folder:
        (folder / "table.md").write_text("\n".join(map(markdown, tables)), encoding="utf-8")
        (folder / "table.tex").write_text("\n".join(map(latex, tables)), encoding="utf-8")
        figures = draw(found, names, folder)
        text = page.build(title or heading(source, found), LEAD, parts, figures, found, names)
        (folder / "index.html").write_text(text, encoding="utf-8")
    return tables


def build_benchmarks(found: Sequence[Record], names: Mapping[str, str], out: Path, title: str) -> list[Table]:
    """The tables of records with several tasks, methods by benchmarks for each model, and a page of them."""
    tables = benchmark_tables(found, names)
    with replacing(out, "the report") as folder:
        (folder / "table.md").write_text("\n".join(map(markdown, tables)), encoding="utf-8")
        (folder / "table.tex").write_text("\n".join(map(latex, tables)), encoding="utf-8")
        (folder / "index.html").write_text(page.build_benchmarks(title, BENCHMARKS, tables, found), encoding="utf-8")
    return tables


def sections(found: Sequence[Record], names: Mapping[str, str]) -> list[page.Section]:
    """What is said of each class of models.

    Raises:
        UserError: the records do not belong into one table.
    """
    looks, parts = styles(runs_of(found)), []
    for model_class, runs in by_model(found).items():
        ranked = standings(runs)
        compared = {standing.method: standing.runs for standing in ranked if not standing.apart}
        places = places_of(compared, [kind_of(sampled(ranked[0].runs[0]))]) if compared else {}
        tables = comparison(model_class, runs, names, ranked, places), differences(model_class, runs, names)
        parts.append(page.section(model_class, runs, ranked, tables, names, looks))
    return parts


def heading(source: Path, found: Sequence[Record]) -> str:
    """The first heading of the README beside the records; without one, the tasks and the models."""
    readme = source / "README.md"
    lines = readme.read_text(encoding="utf-8", errors="replace").split("\n") if readme.is_file() else []
    said = next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")
    tasks = dict.fromkeys(str(e["task"]) for record in found for e in record["evaluations"])
    return said or f"{', '.join(tasks)}: {', '.join(by_model(found))}"


def draw(found: Sequence[Record], names: Mapping[str, str], out: Path) -> list[tuple[str, Path]]:
    curves = plots.learning_curves(found, names, out / "learning_curves")[0]
    watched = plots.validation_curves(found, names, out / "validation")[0]
    each = plots.one_by_one(found, names, out / "one_by_one")[0]
    return [
        ("Training: right answers, entropy, gradient norm before clipping, and KL from the sampling policy to the policy "
         "of the last update, by rollout. Thin lines, where few methods are shown, are seeds. Methods that learn from reference "
         "solutions or from another policy's pairs have no rollout whose answers could be right.", curves),
        ("Validation problems during training.", watched),
        ("Every method by itself: pass@1 at T = 1 on validation problems, one line a seed; grey are the other methods' means.",
         each),
    ]  # fmt: skip
