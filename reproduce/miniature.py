"""The main job: eight methods on a miniature, both model classes, offline, on a CPU.

Two small models (0.45 M parameters, one Qwen2ForCausalLM, one LlamaForCausalLM) that solve short arithmetic word problems
about three times in ten are improved by reinforcement learning from a verifier's reward. Every method gets the same
prompts, samples, token limit, updates and seeds, and the knobs that `reproduce/search.py` chose for it on validation
problems; the test problems are read once, at the end, by lm-eval. What comes out:

    runs/miniature/<class>/<method>/seed-<n>/    the runs: configuration, metrics, samples, checkpoint, evaluations
    runs/miniature/records/                      one result record a run
    runs/miniature/report/                       table, learning curves, a page for the browser

    make reproduce                                   one seed, about ten minutes on two quiet cores
    python reproduce/miniature.py --seeds 5          more seeds
    python reproduce/miniature.py --methods all --seeds 5    twenty methods, about two hours
    python reproduce/miniature.py --methods grpo lco_kld --classes qwen
    python reproduce/miniature.py --methods lco_mse --wider    with the best knobs of more than four tries (`search.py --wider`)
    python reproduce/miniature.py --from-scratch     also rebuilds the start models

Finished runs are not repeated: an interrupted call continues where it stopped. Two processes, one per class, one thread
each. It leaves out what a miniature cannot show: long responses, real language, models that know the test set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reproduce import setting  # noqa: E402
from reproduce.worker import become_worker  # noqa: E402

EVALUATION_UNITS = 4
"""A run's test evaluation takes about as long as this many rollouts; for the progress bar only."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="training seeds 0 … N−1 for every method (default: 1)")
    parser.add_argument(
        "--methods", nargs="+", default=list(setting.METHODS), choices=["all", *setting.TRIES], metavar="METHOD"
    )
    parser.add_argument("--classes", nargs="+", default=list(setting.CLASSES), choices=list(setting.CLASSES))
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"), help="where runs, records and report go")
    parser.add_argument("--records", type=Path, help="where records go (default: OUT/records)")
    parser.add_argument("--report", type=Path, help="where table, figure and page go (default: OUT/report)")
    parser.add_argument("--wider", action="store_true", help="knobs from more tries than four, see search.py --wider")
    parser.add_argument("--from-scratch", action="store_true", help="pretrain the start models again first")
    chosen = parser.parse_args()
    if "all" in chosen.methods:
        chosen.methods = [*setting.METHODS, *setting.BASELINES]
    unknown = set(chosen.methods) - setting.WIDER.keys() if chosen.wider else ()
    if unknown:
        parser.error(f"--wider has knobs for {', '.join(setting.WIDER)}, not for {', '.join(sorted(unknown))}")
    return chosen


def run_class(
    family: str, presets: Mapping[str, dict[str, Any]], seeds: int, out: Path, records: Path, progress: Queue[Any]
) -> None:
    """One process: the start model's scores, then every seed of every method of one class, with these knobs."""
    quiet(out / f"{family}.log")
    try:
        become_worker()
        from reproduce.miniature_runs import start_record, train_and_score

        start_record(family, records)
        progress.put(("units", EVALUATION_UNITS, f"{family} start"))
        for seed in range(seeds):
            for method, knobs in presets.items():
                train_and_score(family, method, knobs, seed, out, records, progress, EVALUATION_UNITS)
        progress.put(("done", 0, family))
    except KeyboardInterrupt:
        progress.put(("failed", 0, f"{family}: interrupted; the same command continues"))
    except Exception:
        # The parent shows it and stops the other class; a child must not die in silence.
        progress.put(("failed", 0, f"{family}:\n{traceback.format_exc()}"))


def quiet(log: Path) -> None:
    """Sends everything that libraries print in this process to a file; the parent's progress bar stays readable."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def watch(processes: list[multiprocessing.Process], progress: Queue[Any], total: int) -> None:
    """One progress bar for both classes until both are done.

    Raises:
        SystemExit: a class failed or was interrupted.
    """
    from tqdm import tqdm

    left = len(processes)
    with tqdm(total=total, unit="unit", bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}") as bar:
        while left:
            kind, units, text = progress.get()
            if kind == "failed":
                for process in processes:
                    process.terminate()
                raise SystemExit(f"\n{text}")
            left -= kind == "done"
            bar.update(units)
            bar.set_postfix_str(text)


def main() -> None:
    chosen = options()
    records = chosen.records or chosen.out / "records"
    report = chosen.report or chosen.out / "report"
    begun = time.perf_counter()
    if chosen.from_scratch:
        subprocess.run([sys.executable, str(HERE / "start_models.py")], check=True)
    context = multiprocessing.get_context("spawn")
    progress: Queue[Any] = context.Queue()
    total = len(chosen.classes) * (
        EVALUATION_UNITS + chosen.seeds * len(chosen.methods) * (setting.COMMON["steps"] + EVALUATION_UNITS)
    )
    known = setting.presets(setting.WIDER_PRESETS if chosen.wider else setting.PRESETS)
    presets = {method: known[method] for method in chosen.methods}
    processes = [
        context.Process(target=run_class, args=(f, presets, chosen.seeds, chosen.out, records, progress), daemon=True)
        for f in chosen.classes
    ]
    for process in processes:
        process.start()
    watch(processes, progress, total)  # type: ignore[arg-type]
    from reproduce.miniature_report import build_report

    build_report(records, report)
    print(f"\n{(time.perf_counter() - begun) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
