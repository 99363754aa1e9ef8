"""The main job: eight methods on a miniature, both model classes, offline, on a CPU.

Two small models (0.45 M parameters, one Qwen2ForCausalLM, one LlamaForCausalLM) that solve short arithmetic word problems
about three times in ten are improved by reinforcement learning from a verifier's reward. Every method gets the same
prompts, samples, token limit, updates and seeds, and the knobs that `reproduce/search.py` chose for it on validation
problems; the test problems are read by lm-eval at the end of a run. What comes out:

    runs/miniature/<class>/<method>/seed-<n>/    the runs: configuration, metrics, samples, checkpoint, evaluations
    runs/miniature/records/                      one result record a run
    runs/miniature/report/                       table, learning curves, a page for the browser

    make reproduce                                   one seed, about ten minutes on two quiet cores
    python reproduce/miniature.py --seeds 5          more seeds
    python reproduce/miniature.py --methods all --seeds 5    twenty methods, about two hours
    python reproduce/miniature.py --methods grpo lco_kld --classes qwen
    python reproduce/miniature.py --methods lco_mse --wider    with the best knobs of more than four tries (`search.py --wider`)
    python reproduce/miniature.py --from-scratch     also rebuilds the start models

Finished runs are not repeated: an interrupted call continues where it stopped, and Ctrl-C lets the rollouts in progress
end first. What an earlier call left under other knobs or from other start weights is refused by name, not taken over. Two
processes, one per class, one thread each. It leaves out what a miniature cannot show: long responses, real language, models
that know the test set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from lco.errors import UserError  # noqa: E402
from reproduce import kept, setting  # noqa: E402
from reproduce.worker import become_worker  # noqa: E402

EVALUATION_UNITS = 4
"""A run's test evaluation takes about as long as this many rollouts; for the progress bar only."""
PATIENCE = 120.0
"""Seconds after Ctrl-C for a rollout, its validation and its checkpoint to end; they take five on a quiet machine."""


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


def refuse_others(
    families: Sequence[str],
    presets: Mapping[str, dict[str, Any]],
    seeds: int,
    out: Path,
    records: Path,
    with_weights: bool = True,
) -> None:
    """Compares what this call would take over of an earlier one with what it would make itself.

    Raises:
        UserError: a record or a run folder is of other knobs, or from other start weights.
    """
    for family in families:
        runs = {
            Path(family, method, f"seed-{seed}"): setting.experiment(family, method, seed, knobs, out)
            for seed in range(seeds)
            for method, knobs in presets.items()
        }
        recorded = {name: records / f"{name}.json" for name in (Path(family, "start"), *runs)}
        there = {name: path for name, path in recorded.items() if path.exists()}
        begun = [name for name in runs if name not in there and (out / name / "config.json").exists()]
        if not there and not begun:
            continue
        start = {kept.WEIGHTS: kept.start_sha256(family)} if with_weights else {}
        wanted = {name: {**kept.settings(run), **start} for name, run in runs.items()}
        for name, path in there.items():
            remedy = "give another --out or --records, or remove this file and its run folder"
            kept.refuse_another(path, kept.of_record(path), wanted.get(name, start), remedy)
        for name in begun:
            remedy = "give another --out, or remove this folder"
            kept.refuse_another(out / name, kept.of_run(out / name), wanted[name], remedy)


def run_class(
    family: str,
    presets: Mapping[str, dict[str, Any]],
    seeds: int,
    out: Path,
    records: Path,
    progress: Queue[Any],
    stopping: Event,
) -> None:
    """One process: the start model's scores, then every seed of every method of one class, with these knobs."""
    # The terminal's Ctrl-C goes to a whole group; out of it, this process gets the parent's alone, exactly once. A
    # second one would end `train` before its checkpoint.
    os.setpgrp()
    quiet(out / f"{family}.log")
    try:
        answer_ctrl_c()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        become_worker()
        from reproduce.miniature_runs import start_record, train_and_score

        start_record(family, records)
        progress.put(("units", EVALUATION_UNITS, f"{family} start"))
        for seed in range(seeds):
            for method, knobs in presets.items():
                if (
                    stopping.is_set()
                ):  # Ctrl-C came in a run's last rollout: the run is complete, the next must not begin
                    raise KeyboardInterrupt
                train_and_score(family, method, knobs, seed, out, records, progress, EVALUATION_UNITS)
        progress.put(("done", 0, family))
    except KeyboardInterrupt:
        progress.put(("interrupted", 0, family))
    except UserError as error:
        progress.put(("failed", 0, f"{family}: {error}"))
    except Exception:
        # The parent shows it and stops the other class; a child must not die in silence.
        progress.put(("failed", 0, f"{family}:\n{traceback.format_exc()}"))


def quiet(log: Path) -> None:
    """Sends everything that libraries print in this process to a file; the parent's progress bar stays readable."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def watch(processes: Sequence[BaseProcess], progress: Queue[Any], total: int) -> None:
    """One progress bar for both classes until both are done.

    Raises:
        SystemExit: a class failed.
        KeyboardInterrupt: Ctrl-C here, or a class alone was interrupted.
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
            if kind == "interrupted":
                raise KeyboardInterrupt
            left -= kind == "done"
            bar.update(units)
            bar.set_postfix_str(text)


def start(processes: Sequence[BaseProcess]) -> None:
    """Starts them with Ctrl-C held back until they can answer it; one during their imports would be a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for process in processes:
        process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt(processes: Sequence[BaseProcess], stopping: Event) -> None:
    """Passes Ctrl-C on and waits until every class has saved its run; a second Ctrl-C or the deadline ends them at once."""
    print("\nstopping after the rollouts in progress; press Ctrl-C again to stop at once", file=sys.stderr)
    try:
        stopping.set()
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        print("\nstopped at once: the runs in progress go back to their last checkpoints", file=sys.stderr)
    for process in processes:
        process.terminate()


def run(chosen: argparse.Namespace) -> None:
    """
    Raises:
        UserError: what an earlier call left is not what this one makes.
    """
    records = chosen.records or chosen.out / "records"
    report = chosen.report or chosen.out / "report"
    begun = time.perf_counter()
    known = setting.presets(setting.WIDER_PRESETS if chosen.wider else setting.PRESETS)
    presets = {method: known[method] for method in chosen.methods}
    if chosen.from_scratch:
        # Knobs before minutes of pretraining; the weights of the start models are known only after it.
        refuse_others(chosen.classes, presets, chosen.seeds, chosen.out, records, with_weights=False)
        subprocess.run([sys.executable, str(HERE / "start_models.py")], check=True)
    refuse_others(chosen.classes, presets, chosen.seeds, chosen.out, records)
    context = multiprocessing.get_context("spawn")
    progress: Queue[Any] = context.Queue()
    stopping = context.Event()
    total = len(chosen.classes) * (
        EVALUATION_UNITS + chosen.seeds * len(chosen.methods) * (setting.COMMON["steps"] + EVALUATION_UNITS)
    )
    shared = (presets, chosen.seeds, chosen.out, records, progress, stopping)
    processes = [context.Process(target=run_class, args=(family, *shared), daemon=True) for family in chosen.classes]
    try:
        start(processes)
        watch(processes, progress, total)
    except KeyboardInterrupt:
        interrupt(processes, stopping)
        raise
    from reproduce.miniature_report import build_report

    build_report(records, report)
    print(f"\n{(time.perf_counter() - begun) / 60:.1f} minutes")


def answer_ctrl_c() -> None:
    """Python leaves SIGINT ignored where it was at the start, as a shell starts `make reproduce &`; `kill -INT` counts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    chosen = options()
    answer_ctrl_c()
    try:
        run(chosen)
    except UserError as error:
        raise SystemExit(f"miniature.py: {error}") from None
    except KeyboardInterrupt:
        print("miniature.py: interrupted; the same command continues where it stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
