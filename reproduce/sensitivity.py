"""What the paper leaves open about LCO, as an ablation and a sweep on the miniature's Llama class.

    python reproduce/sensitivity.py              both, and the tables (about twenty minutes on two quiet cores)
    python reproduce/sensitivity.py support      what is kept of π_old: all of it, five tokens and the rest, five tokens
    python reproduce/sensitivity.py beta         β × the weight of negative advantages
    python reproduce/sensitivity.py tables       tables from the committed records, nothing is run

support  LCO-KLD with the whole of π_old (this suite), with its five likeliest tokens and everything else as one cell, and
         with those five alone, as the released code fills them; all else equal.
beta     Three losses × β ∈ {0.5, 1, 2, 5, 10} × β of negative advantages multiplied by {1, 100}. The released code has 2 and
         100; what the paper's runs had is unknown.

Learning rate and the rest are the presets', scores are of validation problems. Records land one by one in
results/sensitivity/, seed by seed; what is there is not repeated, an interrupted call goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from lco.config import Experiment  # noqa: E402
from lco.disk import write_json, write_text  # noqa: E402
from lco.errors import UserError  # noqa: E402
from lco.methods import METHODS  # noqa: E402
from reproduce import kept, setting  # noqa: E402
from reproduce.stability_report import scores, verdict  # noqa: E402
from reproduce.worker import become_worker, side_by_side, trained  # noqa: E402

RECORDS = HERE.parent / "results" / "sensitivity"
FAMILY = "llama"
SEEDS = (0, 1, 2)
SUPPORTS = ("full", "top_rest", "top_filled")
LOSSES = ("lco_kld", "lco_mse", "lco_lch")
BETAS = (0.5, 1.0, 2.0, 5.0, 10.0)
NEGATIVE = (1.0, 100.0)

PARTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "support": {f"lco_kld-{support}": ("lco_kld", {"support": support}) for support in SUPPORTS},
    "beta": {
        f"{method}-beta{beta:g}-negative{scale:g}": (method, {"beta": beta, "beta_negative_scale": scale})
        for method in LOSSES
        for beta in BETAS
        for scale in NEGATIVE
    },
}
"""part → name → (method, what differs from its preset)"""


def experiment(part: str, name: str, seed: int, folder: Path) -> Experiment:
    method, changes = PARTS[part][name]
    preset = setting.presets()[method]
    knobs = {**preset, "hyper": {**preset.get("hyper", {}), **changes}}
    return setting.experiment(FAMILY, method, seed, knobs, folder)


def file_of(part: str, name: str, seed: int) -> Path:
    return RECORDS / part / f"{name}-seed{seed}.json"


def defined(run: Experiment) -> dict[str, Any]:
    """The part of a record that is known before it runs."""
    return {"method": run.method, "class": setting.CLASSES[FAMILY], "lr": run.lr, "seed": run.seed, "hyper": run.hyper}


def learn(task: tuple[str, str, int, str]) -> str:
    """One run; writes its record."""
    part, name, seed, out = task
    become_worker()
    from lco.evidence.records import curves, rounded
    from lco.provenance import collect

    run = experiment(part, name, seed, Path(out) / part / f"{name}-seed{seed}")
    lines = trained(run)
    record = {
        "schema": "lco-sensitivity/1",
        "name": name,
        **defined(run),
        "curves": curves(lines),
        "provenance": collect(),
    }
    path = file_of(part, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rounded(record))
    return f"{name} seed {seed}: pass@1 {lines[-1]['validation']['pass@1']:.1%}"


def refuse_others(part: str, out: Path) -> None:
    """
    Raises:
        UserError: a record or run folder that is there is of other knobs than this call would give it.
    """
    for seed in SEEDS:
        for name in PARTS[part]:
            run = experiment(part, name, seed, out / part / f"{name}-seed{seed}")
            kept.refuse_another_run(file_of(part, name, seed), defined(run), run)


def read(part: str) -> dict[str, list[Mapping[str, Any]]]:
    """name → the records of its seeds."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for path in sorted((RECORDS / part).glob("*.json")):
        record = kept.read(path)
        found[record["name"]].append(record)
    return found


def note(records: Iterable[Mapping[str, Any]]) -> str:
    records = list(records)
    start = 100 * sum(scores(dict(r))[0] for r in records) / len(records)
    return (
        f"pass@1 (T = 1, per cent) on 128 validation problems after the last rollout, {len(records)} runs: mean ± standard "
        f"deviation [lowest, highest] over seeds; the start has {start:.0f}. Collapsed: ended below half of its best."
    )


def support_table(found: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """One row for each support."""
    lines = [
        note(r for seeds in found.values() for r in seeds),
        "",
        "| LCO-KLD with | pass@1 | entropy at the end |",
        "|---|---|---|",
    ]
    titles = {
        "full": "all of π_old",
        "top_rest": "its 5 likeliest and the rest as one cell",
        "top_filled": "its 5 likeliest alone",
    }
    for name in (n for n in PARTS["support"] if n in found):
        seeds = found[name]
        entropy = sum(r["curves"]["entropy"][-1] for r in seeds) / len(seeds)
        support = PARTS["support"][name][1]["support"]
        lines.append(f"| {titles[support]} (`support={support}`) | {verdict(seeds)} | {entropy:.3f} |")
    return "\n".join(lines)


def beta_table(found: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """One row for each loss and scale, one column for each β."""
    lines = [note(r for seeds in found.values() for r in seeds), ""]
    lines += [
        "| loss | β × , A < 0 | " + " | ".join(f"β = {beta:g}" for beta in BETAS) + " |",
        "|---" * (2 + len(BETAS)) + "|",
    ]
    for method in LOSSES:
        for scale in NEGATIVE:
            names = [f"{method}-beta{beta:g}-negative{scale:g}" for beta in BETAS]
            cells = [verdict(found[name]) if name in found else "" for name in names]
            lines.append(f"| {METHODS[method].title} | {scale:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def build() -> str:
    """Writes report.md; returns its text."""
    parts = ["# How sensitive is LCO?", ""]
    support, beta = read("support"), read("beta")
    if support:
        parts += ["## What is kept of π_old", "", support_table(support), ""]
    if beta:
        parts += ["## β, and the weight of negative advantages", "", beta_table(beta), ""]
    text = "\n".join(parts)
    write_text(RECORDS / "report.md", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="support, beta, tables (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/sensitivity"), help="where the runs go")
    parser.add_argument(
        "--seeds", type=int, default=len(SEEDS), choices=range(1, len(SEEDS) + 1), help="the first N seeds"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    for part in options.parts:
        if part not in {*PARTS, "tables"}:
            parser.error(f"there is no part {part!r}; give support, beta or tables")
    wanted = [part for part in PARTS if part in (options.parts or PARTS)]
    try:
        for part in wanted:
            refuse_others(part, options.out)
    except UserError as error:
        raise SystemExit(f"sensitivity.py: {error}") from None
    for part in wanted:
        runs = [(name, seed) for seed in SEEDS[: options.seeds] for name in PARTS[part]]
        left = [(part, name, seed, str(options.out)) for name, seed in runs if not file_of(part, name, seed).exists()]
        side_by_side(learn, left, options.processes, part)
    print(build())


if __name__ == "__main__":
    main()
