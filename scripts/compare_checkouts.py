"""Trains the same small runs in two checkouts of the suite, and says where their numbers are not the same bits.

    python scripts/compare_checkouts.py BEFORE AFTER                  every case, under every engine
    python scripts/compare_checkouts.py BEFORE AFTER --only grpo lco_kld --engines torch
    python scripts/compare_checkouts.py BEFORE AFTER --keep FOLDER    keep the runs, and use those that FOLDER holds already

This is how a change is checked that is meant to move code and no number. Floating-point sums depend on the order of their
terms, so two runs agree to the last bit only where every operation is the same one; "close" would let a changed constant
pass that four rollouts do not carry far.

Each case of compare_cases.txt is a run of 4 rollouts × 4 minibatches on the miniature's start models. It is started by the
checkout's own `lco train` with the same flags: nothing else is asked of a checkout, so its modules may look as they like.
Compared are metrics.jsonl without the times, where the texts of the numbers must be equal (NaN equals NaN, null does not),
and the tensors of checkpoints/final/model.safetensors, byte by byte; neither holds a path, a date or a version. Some cases
run under DeepSpeed too, on two ranks with ZeRO-2 and ZeRO-3. Where a case reads a model that another case trains (LCO's
verifier and DPO models), both checkouts get the one that BEFORE trained.

Every process has one thread. With more, a matrix product or a sum is cut into as many parts as there are threads, and
libraries may take fewer of them on a busy machine: the order of additions, and with it the last bits, would then depend on
the machine's load and not on the code alone.

A kept run is found again by what decides its bits: the contents of the checkout's lco/, the versions of the packages that
compute, the processor, the flags and the models that it reads. So BEFORE's half is made once for many comparisons, an
interrupted half goes on where it stopped, and a run of other code is never taken for this one's.

Each case gets one line: identical, or differs with the first value and the first tensor that do and by how much. A case
that a checkout refuses differs, and so does one that made no update, since it compares nothing. Exit status: 0 where all
are identical, 1 where not, 2 where nothing could be compared.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from checkout_process import Outcome
from compare_runs import WEIGHTS, Allowed, Comparison, compare_runs, has_learnt
from kept_runs import START, Case, ComparisonError, Half, digest, run_missing, start_models

CASES = Path(__file__).resolve().with_name("compare_cases.txt")

SHARED = shlex.split(
    "--model {llama} --problems arithmetic --extraction hash --limit 50 --max-prompt-tokens 32 --device cpu --seed 3 "
    "--prompts-per-step 7 --samples 4 --steps 4 --minibatches 4 --micro-batch 3 --lr 1e-3 --critic-lr 1e-3 "
    "--warmup-updates 2 --eval-every 2 --eval-problems 4 --diagnose-every 2"
)
"""Flags of every run; a case's own stand behind them and win. 28 rows make minibatches of 7, micro-batches of 3 and 2."""

ENGINES = {
    "torch": "",
    "deepspeed2": "--engine deepspeed --processes 2 --zero-stage 2",
    # ZeRO-3 never has the whole gradients that a diagnosis needs.
    "deepspeed3": "--engine deepspeed --processes 2 --zero-stage 3 --diagnose-every 0",
}
UNDER_DEEPSPEED = ("grpo", "lco_kld", "gspo", "ppo", "dpo")
"""A clipped loss, LCO, a loss that couples a row, a critic, and pairs with a reference."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    begun = time.monotonic()
    try:
        cases = choose_cases(read_cases(), options.only, options.engines)
        with runs_folder(options.keep) as keep:
            halves = prepare_halves(options.before, options.after, keep, options.start)
            failed = compare(*halves, cases, Allowed(options.allow_new_keys, options.allow_null_for_nan))
    except ComparisonError as error:
        print(f"compare_checkouts: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare_checkouts: interrupted; with --keep, the same command goes on from here", file=sys.stderr)
        return 130
    minutes = (time.monotonic() - begun) / 60
    print(f"{len(cases) - failed} of {len(cases)} cases are identical, {failed} not; {minutes:.1f} minutes")
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE", help="checkout whose numbers stand")
    parser.add_argument("after", type=Path, metavar="AFTER", help="checkout that must have the same ones")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cases of compare_cases.txt alone")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=[*ENGINES], help="these engines alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep both halves' runs here, and use what is here")
    parser.add_argument(
        "--start", type=Path, metavar="FOLDER", help="holds the start models llama/ and qwen/ (default: BEFORE's)"
    )
    parser.add_argument(
        "--allow-new-keys", action="store_true", help="list keys that only AFTER's metrics have, as no difference"
    )
    parser.add_argument(
        "--allow-null-for-nan", action="store_true", help="null in one run and NaN in the other are no difference"
    )
    return parser.parse_args(arguments)


def read_cases(file: Path = CASES) -> list[Case]:
    """All cases, those of each engine in the order of the file."""
    lines = [shlex.split(line, comments=True) for line in file.read_text(encoding="utf-8").split("\n")]
    return [
        Case(name, engine, (*SHARED, *flags, *shlex.split(extra)))
        for engine, extra in ENGINES.items()
        for name, *flags in filter(None, lines)
        if engine == "torch" or name in UNDER_DEEPSPEED
    ]


def choose_cases(cases: Sequence[Case], names: Sequence[str] | None, engines: Sequence[str]) -> list[Case]:
    """
    Raises:
        ComparisonError: there is no case of a name, or none of these names under these engines.
    """
    unknown = sorted(set(names or ()) - {case.name for case in cases})
    if unknown:
        raise ComparisonError(f"there is no case {unknown[0]!r}; {CASES.name} lists them")
    found = [case for case in cases if case.engine in engines and (not names or case.name in names)]
    if not found:
        raise ComparisonError(f"no such case runs under {' or '.join(engines)}, only {', '.join(UNDER_DEEPSPEED)} do")
    return found


@contextmanager
def runs_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="lco-compare-") as folder:
        yield Path(folder)


def prepare_halves(before: Path, after: Path, keep: Path, start: Path | None) -> tuple[Half, Half]:
    """The two halves, with the models that cases may read: the start models, and what BEFORE's half trains under torch.

    Raises:
        ComparisonError: a folder is no checkout, or there are no start models.
    """
    place = start_models([start] if start else [before / place for place in START])
    folders = [keep / f"{side}-{digest(checkout)}" for side, checkout in (("before", before), ("after", after))]
    trained = {
        case.name: folders[0] / case.engine / case.name / "run" / WEIGHTS.parent
        for case in read_cases()
        if case.engine == "torch"
    }
    models = {**trained, **{folder.name: folder for folder in place.iterdir() if folder.is_dir()}}
    return Half(before.resolve(), folders[0], models), Half(after.resolve(), folders[1], models)


def compare(before: Half, after: Half, cases: Sequence[Case], allowed: Allowed) -> int:
    """Makes both halves, prints a line a case as soon as it is known, and returns how many are not identical.

    Raises:
        ComparisonError: BEFORE did not train a model that a case reads.
    """
    print(f"before: {before.checkout}, runs in {before.folder}\nafter:  {after.checkout}, runs in {after.folder}")
    expected = run_before(before, cases)
    failed, new = 0, set()
    with closing(run_missing(after, cases)) as runs:
        for case, found in runs:
            result = judge(before.run_folder(case), after.run_folder(case), expected[case], found, allowed)
            failed += bool(result.differences)
            new |= set(result.new_keys)
            print(
                "  ".join(["differs  " if result.differences else "identical", case.title, *result.differences]),
                flush=True,
            )
    if new:
        print(f"keys that only AFTER's metrics have: {', '.join(sorted(new))}")
    return failed


def run_before(half: Half, cases: Sequence[Case]) -> dict[Case, Outcome]:
    """BEFORE's half: first the cases whose models others read, then the rest.

    Raises:
        ComparisonError: one of those left no model.
    """
    read = {name for case in cases for name in case.models}
    teachers = [case for case in read_cases() if case.engine == "torch" and case.name in read]
    outcomes = {}
    wanted = [*teachers, *(case for case in cases if case not in teachers)]
    with closing(run_missing(half, wanted)) as runs:
        for number, (case, outcome) in enumerate(runs):
            if case in teachers and outcome.code:
                raise ComparisonError(f"BEFORE trains no {case.name}, whose model other cases read: {outcome.message}")
            outcomes[case] = outcome
            print(f"\rbefore: {number + 1} of {len(wanted)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return outcomes


def judge(before: Path, after: Path, expected: Outcome, found: Outcome, allowed: Allowed) -> Comparison:
    """Two run folders of one case, and how these runs ended."""
    if expected.code and found.code:
        return Comparison((f"both refuse, so nothing is compared: {expected.message} | {found.message}",))
    if expected.code or found.code:
        said = [outcome.message if outcome.code else "runs" for outcome in (expected, found)]
        return Comparison((f"BEFORE: {said[0]} | AFTER: {said[1]}",))
    if not has_learnt(before):
        return Comparison(("BEFORE made no update that moved anything, so nothing is compared",))
    return compare_runs(before, after, allowed)


if __name__ == "__main__":
    sys.exit(main())
