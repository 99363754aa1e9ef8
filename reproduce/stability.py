"""How stable are the methods? Inner steps on one frozen batch, and a grid of learning rates and updates a rollout.

    python reproduce/stability.py              all, and the figures (about three quarters of an hour on two quiet cores)
    python reproduce/stability.py frozen       inner steps alone (about three minutes)
    python reproduce/stability.py grid         the grid alone
    python reproduce/stability.py small_beta   the grid of the LCO losses at a smaller β alone
    python reproduce/stability.py figures      tables and figures from the committed records, nothing is run

frozen   The start model samples one rollout. Every method takes 40 optimizer steps on that batch alone, and after the
         last one we ask of every step before: what was the gradient's norm, and did its negative point to where the
         parameters ended, cos(−∇L(θ_k), θ_K − θ_k)? For a linear head and fixed hidden states a convex loss must give a
         positive cosine; for the whole network it is a measurement.
grid     Seven methods × 3 learning rates × {1, 8} updates a rollout × 3 seeds on the miniature's Llama class, scored on
         validation problems: which still learns, which collapses? Rates are the same for all methods, so it shows how
         wide a method's working range is, not which method is best.
small_beta
         The same grid for the three LCO losses at β = 0.1, with which two of them learn faster (`search.py --wider`): is
         that bought with their stability?

Every record lands in results/stability/ as it is made; what is there is not repeated, an interrupted call goes on. What
is there of other knobs than this call has is refused by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from lco.config import Experiment  # noqa: E402
from lco.disk import write_json  # noqa: E402
from lco.errors import UserError  # noqa: E402
from reproduce import kept, setting  # noqa: E402
from reproduce.worker import become_worker, side_by_side, trained  # noqa: E402

RECORDS = HERE.parent / "results" / "stability"
FAMILY = "llama"
FROZEN_METHODS = ("lco_kld", "lco_mse", "lco_lch", "ppo", "grpo", "reinforce", "sft")
FROZEN_STEPS = 40
GRID_METHODS = ("lco_kld", "lco_mse", "lco_lch", "ppo", "grpo", "reinforce", "rft")
RATES = (1e-4, 5e-4, 2.5e-3)
UPDATES = {1: {"minibatches": 1, "epochs": 1}, 8: {"minibatches": 4, "epochs": 2}}
GRID_SEEDS = (0, 1, 2)
SMALL_BETA = 0.1
SMALL_BETA_METHODS = ("lco_kld", "lco_mse", "lco_lch")


def frozen(task: tuple[str, str]) -> str:
    """Inner steps of one method; writes its record."""
    method, out = task
    become_worker()
    from reproduce.frozen_batch import inner_steps

    record = inner_steps(FAMILY, method, FROZEN_STEPS, Path(out) / "frozen" / method)
    write_json(file_of("frozen", method), record)
    cosines = record["cosine_to_the_end"]
    return f"frozen {method}: median cosine {sorted(cosines)[len(cosines) // 2]:.2f}"


def grid_name(method: str, rate: float, updates: int, seed: int) -> str:
    return f"{method}-lr{rate:g}-u{updates}-seed{seed}"


def grid_experiment(part: str, method: str, rate: float, updates: int, seed: int, folder: Path) -> Experiment:
    knobs = {**setting.presets()[method], "lr": rate, **UPDATES[updates]}
    if part == "small_beta":
        knobs["hyper"] = {**knobs.get("hyper", {}), "beta": SMALL_BETA}
    return setting.experiment(FAMILY, method, seed, knobs, folder)


def grid_defined(run: Experiment, updates: int) -> dict[str, Any]:
    """The part of a grid record that is known before it runs."""
    return {
        "method": run.method,
        "class": setting.CLASSES[FAMILY],
        "lr": run.lr,
        "updates_per_rollout": updates,
        "seed": run.seed,
        "hyper": run.hyper,
    }


def refuse_others(part: str, out: Path) -> None:
    """Compares this part's records and run folders that are there with what this call would make.

    Raises:
        UserError: one is of other knobs.
    """
    if part == "frozen":
        remedy = "remove it to have it made again"
        for method in (m for m in FROZEN_METHODS if file_of(part, m).exists()):
            path, wanted = file_of(part, method), {"steps": FROZEN_STEPS, "lr": setting.presets()[method]["lr"]}
            kept.refuse_another(path, kept.read(path), wanted, remedy)
        return
    for method, rate, updates, seed in grid_runs(part):
        name = grid_name(method, rate, updates, seed)
        run = grid_experiment(part, method, rate, updates, seed, out / part / name)
        kept.refuse_another_run(file_of(part, name), grid_defined(run, updates), run)


def grid(task: tuple[str, str, float, int, int, str]) -> str:
    """One run of the grid, or of the one at a small β; writes its record."""
    part, method, rate, updates, seed, out = task
    become_worker()
    from lco.evidence.records import curves, rounded
    from lco.provenance import collect

    name = grid_name(method, rate, updates, seed)
    run = grid_experiment(part, method, rate, updates, seed, Path(out) / part / name)
    lines = trained(run)
    record = {
        "schema": "lco-grid/1",
        **grid_defined(run, updates),
        "curves": curves(lines),
        "tokens": sum(line.get("tokens", 0) for line in lines),
        "provenance": collect(),
    }
    write_json(file_of(part, name), rounded(record))
    return f"{part} {name}: pass@1 {lines[-1]['validation']['pass@1']:.1%}"


def file_of(part: str, name: str) -> Path:
    folder = RECORDS / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def grid_runs(part: str) -> list[tuple[str, float, int, int]]:
    """Seeds go round last, so that an interrupted grid is complete for the seeds it has."""
    return [
        (method, rate, updates, seed)
        for seed in GRID_SEEDS
        for rate in RATES
        for updates in UPDATES
        for method in (SMALL_BETA_METHODS if part == "small_beta" else GRID_METHODS)
    ]


def tasks(part: str, out: Path) -> list[Any]:
    """What has no record yet."""
    if part == "frozen":
        return [(m, str(out)) for m in FROZEN_METHODS if not file_of(part, m).exists()]
    return [(part, *run, str(out)) for run in grid_runs(part) if not file_of(part, grid_name(*run)).exists()]


def read(part: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RECORDS / part).glob("*.json"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="frozen, grid, small_beta, figures (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/stability"), help="where the runs go")
    parser.add_argument("--report", type=Path, default=RECORDS / "report", help="where tables and figures go")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    known = {"frozen": frozen, "grid": grid, "small_beta": grid}
    for part in options.parts:
        if part not in {*known, "figures"}:
            parser.error(f"there is no part {part!r}; give frozen, grid, small_beta or figures")
    wanted = [part for part in known if part in (options.parts or known)]
    try:
        for part in wanted:
            refuse_others(part, options.out)
    except UserError as error:
        raise SystemExit(f"stability.py: {error}") from None
    for part in wanted:
        side_by_side(known[part], tasks(part, options.out), options.processes, part)
    from reproduce.stability_report import build

    print(build(read("frozen"), read("grid"), read("small_beta"), options.report))


if __name__ == "__main__":
    main()
