"""One self-contained HTML page: tables, figures, provenance. No script, no network, light and dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from lco.evidence.tables import Record, Table, by_class, html_table, runs_of, sampled

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 76rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; } thead th { font-weight: 600; } tbody th { font-weight: 500; }
.note { font-size: .85rem; opacity: .75; margin: .25rem 0; } img { width: 100%; height: auto; background: #fff; }
td.text { white-space: pre-wrap; text-align: left; min-width: 24rem; } details { margin: .4rem 0; }
code { font-size: .9em; } dt { font-weight: 600; } dd { margin: 0 0 .5rem 0; }
"""


def build(
    title: str, lead: str, tables: Sequence[Table], figures: Sequence[tuple[str, Path]], records: Sequence[Record],
    titles: Mapping[str, str],
) -> str:  # fmt: skip
    """The page's text; `figures` are (caption, PNG file)."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(p)}</p>" for p in lead.split("\n\n"))]
    parts += ["<h2>Results</h2>", *(html_table(table) for table in tables), "<h2>Curves</h2>"]
    for caption, file in figures:
        data = base64.b64encode(file.read_bytes()).decode()
        text = html.escape(caption)
        image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption class=note>{text}</figcaption></figure>")
    shown = examples(records, titles)
    if shown:
        parts += ["<h2>What the models write</h2>", shown]
    parts += ["<h2>Where the numbers come from</h2>", provenance(records)]
    body = "\n".join(parts)
    head = (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\n"
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
    )
    return f"{head}<body>\n{body}\n</body></html>\n"


def examples(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """The first response at T = 1 to the first test problems, start and first seed of each method; "" if none is kept."""
    parts = []
    for model_class, found in by_class(records).items():
        start = [record for record in found if record["method"] == "start"]
        writers = [*start, *(runs[0] for runs in runs_of(found).values())]
        kept = [(record["method"], sampled(record).get("examples", [])) for record in writers]
        asked = {example["problem"]: example["answer"] for _, shown in kept for example in shown}
        for problem, answer in asked.items():
            answered = [(method, e) for method, shown in kept for e in shown if e["problem"] == problem]
            rows = "".join(
                f"<tr><th>{html.escape(titles.get(method, method))}</th><td class=text>{html.escape(e['response'])}</td>"
                f"<td>{'right' if e['correct'] else 'wrong'}</td></tr>"
                for method, e in answered
            )
            ask = f"{html.escape(problem)} <b>{html.escape(answer)}</b>"
            parts.append(
                f"<details><summary>{html.escape(model_class)}: {ask}</summary><div class=scroll><table>{rows}</table>"
                "</div></details>"
            )
    note = "<p class=note>The first sample at T = 1 on the first test problems, picked by nobody.</p>"
    return note + "\n".join(parts) if parts else ""


def provenance(records: Sequence[Record]) -> str:
    """What the records say of code, packages, machine and models, each distinct value once."""
    facts: dict[str, list[str]] = {}

    def add(name: str, value: object) -> None:
        text = str(value)
        if text not in facts.setdefault(name, []):
            facts[name].append(text)

    for record in records:
        source = record["provenance"]
        commit = source["git"]["commit"]
        add(
            "commit",
            f"{commit}{' with uncommitted changes' if source['git']['dirty'] else ''}" if commit else "not a checkout",
        )
        add("packages", ", ".join(f"{name} {version}" for name, version in source["packages"].items()))
        hardware = source["hardware"]
        add(
            "machine",
            f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, GPU {hardware['gpu']}",
        )
        add(
            "models",
            f"{record['model']['class']} ({record['model']['name']}), weights {record['model']['sha256'][:16]}…",
        )
    items = "".join(
        f"<dt>{html.escape(name)}</dt>" + "".join(f"<dd><code>{html.escape(value)}</code></dd>" for value in values)
        for name, values in facts.items()
    )
    return f"<p class=note>{len(records)} records.</p><dl>{items}</dl>"
