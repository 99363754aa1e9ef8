"""One checkout's half of a comparison: its runs, kept by what decides their bits, so that none is made twice."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import platform
import shutil
import string
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from checkout_process import CheckoutProcess, Outcome
from compare_runs import WEIGHTS

COMPUTING = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "deepspeed")
"""Packages whose version may change a bit."""

START = ("reproduce/miniature/start", "reproduce/start")
"""Where a checkout may have its start models."""

DONE = "done.json"

INTERRUPTED = 130
"""`lco`'s exit code after Ctrl-C; a run that can stop in order ends with 0 and without its last weights."""


class ComparisonError(Exception):
    """What keeps two checkouts from being compared at all, in one sentence."""


@dataclass(frozen=True)
class Case:
    """One run: a name, an engine, and the flags of `lco train`, in which {name} stands for a model's folder."""

    name: str
    engine: str
    flags: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.engine}/{self.name}"

    @property
    def models(self) -> tuple[str, ...]:
        """What its flags name in braces: start models, and cases whose trained model it reads."""
        found = [name for flag in self.flags for _, name, _, _ in string.Formatter().parse(flag) if name]
        return tuple(sorted(set(found)))


@dataclass(frozen=True)
class Half:
    """One checkout's runs. FOLDER/engine/name holds run/, the run folder; log.txt, what was printed; and when it has come to its
    end done.json, what it was made from besides the source.

    Attributes:
        folder: where the runs of this very source lie.
        models: folders of the models that flags name.
    """

    checkout: Path
    folder: Path
    models: Mapping[str, Path]

    def place(self, case: Case) -> Path:
        return self.folder / case.engine / case.name

    def run_folder(self, case: Case) -> Path:
        return self.place(case) / "run"

    def key(self, case: Case) -> dict[str, Any]:
        """What the run depends on besides the source: its flags, and its models wherever they lie."""
        files = {name: self.models[name] / "model.safetensors" for name in case.models}
        weights = {name: sha256(file) if file.exists() else None for name, file in files.items()}
        return {"flags": list(case.flags), "models": weights}

    def has(self, case: Case) -> bool:
        """Whether the case was run to its end, with these flags and models."""
        try:
            return bool(json.loads((self.place(case) / DONE).read_text(encoding="utf-8")) == self.key(case))
        except FileNotFoundError:
            return False


def run_missing(half: Half, cases: Sequence[Case]) -> Generator[tuple[Case, Outcome], None, None]:
    """Every case with its outcome, in order; those that are not there yet are run now, in one process. A case that failed is
    not kept: the machine may have been the reason.

    Raises:
        ComparisonError: the source changed meanwhile, so that nobody knows what was run.
        KeyboardInterrupt: Ctrl-C, which a run itself takes for the wish to stop early.
    """
    if all(half.has(case) for case in cases):
        yield from ((case, Outcome(0)) for case in cases)
        return
    with locked(half.folder) as lock:
        source, fresh = digest(half.checkout), []
        process = CheckoutProcess(half.checkout, keep_open=[lock.fileno()])
        try:
            for case in cases:
                if half.has(case):
                    yield case, Outcome(0)
                    continue
                fresh.append(case)
                yield case, run_case(half, case, process)
        finally:
            process.close()
            if digest(half.checkout) != source:
                for case in fresh:
                    (half.place(case) / DONE).unlink(missing_ok=True)
                raise ComparisonError(f"{half.checkout} changed while its runs were made; compare it again")


def run_case(half: Half, case: Case, process: CheckoutProcess) -> Outcome:
    """One run into an empty folder; the file that calls it done is written last."""
    place, run = half.place(case), half.run_folder(case)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    flags = [flag.format_map({name: str(path) for name, path in half.models.items()}) for flag in case.flags]
    outcome = process.run(["train", *flags, "--out", str(run)], place / "log.txt")
    if outcome.code == INTERRUPTED or (outcome.code == 0 and not (run / WEIGHTS).exists()):
        raise KeyboardInterrupt
    if outcome.code == 0:
        for checkpoint in (run / "checkpoints").glob("step-*"):  # what a resume needs, three times the rest
            shutil.rmtree(checkpoint)
        unfinished = place / f".{DONE}"
        unfinished.write_text(json.dumps(half.key(case), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(place / DONE)
    return outcome


@contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Makes this the only comparison that runs anything in a folder; waits for another one, and for a run of an ended one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"another comparison makes runs in {folder}; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def start_models(places: Sequence[Path]) -> Path:
    """The first of the folders that holds start models, one folder a class.

    Raises:
        ComparisonError: none does.
    """
    found = next((place for place in places if (place / "llama" / "model.safetensors").is_file()), None)
    if found is None:
        raise ComparisonError(
            f"there is no llama/model.safetensors in {' or '.join(map(str, places))}; name a folder with it"
        )
    return found.resolve()


def digest(checkout: Path) -> str:
    """Of all that decides the bits of a checkout's runs on this machine, besides their flags and models.

    Raises:
        ComparisonError: the folder is no checkout.
    """
    if not (checkout / "lco" / "cli.py").is_file():
        raise ComparisonError(f"{checkout} holds no lco/cli.py; give the folder of a checkout")
    found = hashlib.sha256(f"{sys.version}\n{platform.machine()}\n{processor()}\n".encode())
    for package in COMPUTING:
        found.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for file in sorted((checkout / "lco").rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            found.update(f"{file.relative_to(checkout)} {sha256(file)}\n".encode())
    return found.hexdigest()[:16]


def processor() -> str:
    """The processor's name and abilities, by which libraries choose their kernels."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").split("\n") if cpuinfo.exists() else []
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
