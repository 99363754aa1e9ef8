"""A study: cells that are each trained, recorded and skipped once their record is there, side by side, with one bar.

    cells ──refuse_others()──▶ those without a record ──workers──▶ run(cell) ──▶ record(cell) ──▶ one file a cell

A cell is a run folder, a lock and a record; nothing in it knows which call or which machine makes it. What an earlier call
left is taken over if it is of the same definition, refused by name otherwise, before anything runs. A cell that another
call is making is left to that call. A cell that fails is named, and the others go on.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from tqdm import tqdm

from lco.config import Experiment
from lco.disk import write_json, write_text
from lco.errors import UserError
from reproduce.common import reuse
from reproduce.common.processes import Failure, Message, Progress, Result, Task, Tick, share_out

RESULTS = Path(__file__).parents[2] / "results"
"""Where the committed records are."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        name: what sentences and the progress bar call it.
        run: its configuration; `run.folder` is where it is made.
        record: the file of its record.
        defined: what of the record is known before the run; an earlier record that says otherwise is another's.
        units: how much work it is, in rollouts; for the progress bar only.
        trains: False for what is measured without training, such as a start model's scores.
    """

    name: str
    run: Experiment
    record: Path
    defined: Mapping[str, Any]
    units: int
    trains: bool = True

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def log(self) -> Path:
        """What libraries print while it is made."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def lock(self) -> Path:
        """Held by the process that makes the cell, so that no other one works in the same folder."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def owner(self) -> Path:
        """Says which process of which machine has taken the lock last."""
        return self.lock.with_suffix(".owner")

    @property
    def begun(self) -> bool:
        """Whether an earlier call left something of it."""
        return self.record.exists() or (self.folder / "config.json").exists()


def train_cell(cell: Cell, tick: Tick) -> None:
    """Trains a cell's run in this process to its end, or on from where an earlier call stopped.

    Raises:
        KeyboardInterrupt: Ctrl-C came before the last rollout; the run's checkpoint is written.
        UserError: anything a user can mend.
    """
    final = cell.folder / "checkpoints" / "final"
    if final.exists():
        return
    tick(finished_rollouts(cell.folder), cell.name)
    from lco.training.resolve import resolve  # as below
    from lco.training.run import train  # torch and all that stands on it; only a worker gets here

    resume = (cell.folder / "config.json").exists()
    train(resolve(cell.run), resume=resume, on_step=lambda m: tick(1, f"{cell.name}: {m['accuracy']:.0%} right"))


def finished_rollouts(run: Path) -> int:
    """Rollouts that a resumed run will not repeat: those of its newest checkpoint."""
    steps = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    return max(steps) if steps and (run / "metrics.jsonl").exists() else 0


@dataclass(frozen=True)
class Study:
    """How the cells of a study are made; its functions belong to modules, since workers import them.

    Args:
        title: stands before the progress bar.
        record: a cell whose run is finished → its record.
        outcome: record → what a line on the screen says of it.
        run: trains a cell; not called where `cell.trains` is False.
        write: puts a record into its file, whole or not at all.
        remedy: what to do where a record of another definition is in the way.
        threads: of PyTorch in a worker; None leaves them to PyTorch.
    """

    title: str
    cells: Sequence[Cell]
    record: Callable[[Cell], Record]
    outcome: Callable[[Record], str]
    run: Callable[[Cell, Tick], None] = train_cell
    write: Callable[[Path, Record], None] = write_json
    remedy: str = "remove it and its run folder to have it made again"
    threads: int | None = 1


@dataclass(frozen=True)
class Made:
    """What a call came to: the cells that failed, and those that another call was making."""

    cells: int
    failed: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    def require_all(self) -> None:
        """
        Raises:
            UserError: cells failed; says which.
        """
        if self.failed:
            raise UserError(
                f"{len(self.failed)} of {self.cells} cells failed: {', '.join(self.failed)}; the reasons stand above, "
                "and the same command tries these again"
            )
        if self.elsewhere:
            print(f"being made by another call, so left to it: {', '.join(self.elsewhere)}")


def add_start_weights(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, of which those that an earlier call left something of are defined by the start model's weights too.

    Loads these models; where nothing is there, none.
    """
    models = {(cell.run.model, cell.run.dtype) for cell in cells if cell.begun}
    found = {model: reuse.weights_of(*model) for model in sorted(models)}
    return [
        replace(cell, defined={**cell.defined, **found.get((cell.run.model, cell.run.dtype), {})}) for cell in cells
    ]


def refuse_others(cells: Iterable[Cell], remedy: str) -> None:
    """Compares what is there of the cells with what this call would make.

    Raises:
        UserError: a record, or the run folder of a cell that has none yet, is of another definition.
    """
    for cell in cells:
        if cell.record.exists():
            reuse.refuse_another(cell.record, reuse.settings_in_record(cell.record), cell.defined, remedy)
        elif cell.begun:
            wanted = {**cell.defined, **reuse.settings(cell.run)}
            remedy_there = "give another --out, or remove this folder"
            reuse.refuse_another(cell.folder, reuse.settings_in_folder(cell.folder), wanted, remedy_there)


def make_missing(study: Study, processes: int) -> Made:
    """Makes every cell that has no record, so many at a time, each record written as it lands.

    Raises:
        UserError: an earlier call's record or run folder is of another definition; nothing has been run then.
        KeyboardInterrupt: Ctrl-C; the runs in progress are saved, and the same call continues them.
    """
    refuse_others(study.cells, study.remedy)
    left = [cell for cell in study.cells if not cell.record.exists()]
    if not left:
        return Made(len(study.cells))
    failed, elsewhere, done = list[str](), list[str](), dict[str, int]()
    units = {cell.name: cell.units for cell in study.cells}
    everything = sum(units.values())
    bar = tqdm(
        desc=study.title,
        total=everything,
        initial=everything - sum(cell.units for cell in left),
        unit="unit",
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    )

    def hear(task: Task, message: Message) -> None:
        match message:
            case Progress(count, text):
                done[task.name] = done.get(task.name, 0) + count
                bar.update(count)
                bar.set_postfix_str(text)
            case Result(value):
                bar.update(units[task.name] - done.get(task.name, 0))
                if value is None:
                    elsewhere.append(task.name)
                tqdm.write(f"{task.name}: {'another call is making it' if value is None else value}")
            case Failure(text):
                failed.append(task.name)
                tqdm.write(f"{task.name} failed: {text.rstrip()}\n    what was printed meanwhile is in {task.log}")

    work = functools.partial(make_cell, replace(study, cells=()))
    with bar:
        share_out(work, [Task(cell.name, cell.log, cell) for cell in left], processes, hear, study.threads)
    return Made(len(study.cells), tuple(failed), tuple(elsewhere))


def make_cell(study: Study, cell: Cell, tick: Tick) -> str | None:
    """In a worker: trains the cell and writes its record; a line about it, None where another call is making it."""
    lock = take_lock(cell)
    if lock is None:
        return None
    try:
        if not cell.record.exists():  # it may have landed since this call began
            if cell.trains:
                study.run(cell, tick)
            study.write(cell.record, study.record(cell))
    finally:
        cell.owner.unlink(missing_ok=True)
        lock.release()
    return study.outcome(reuse.read_object(cell.record))


def take_lock(cell: Cell) -> BaseFileLock | None:
    """The cell's lock, held by this process; None where another call holds it. A file that a killed process left is no obstacle.

    Raises:
        UserError: it is held although the process that took it has ended, or the file system has no locks.
    """
    cell.lock.parent.mkdir(parents=True, exist_ok=True)
    # Without kernel locks filelock would fall back to a file that outlives a killed process.
    lock = FileLock(cell.lock, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if pid := stale_owner(cell):
            raise UserError(
                f"{cell.name}: {cell.lock} is held, but the process that took it (pid {pid}) has ended, so a child of it is "
                "still there; end that, and the same command goes on"
            ) from None
        return None
    except OSError as error:
        raise UserError(
            f"{cell.name}: {cell.lock} cannot be locked ({error.strerror or error}); give --out a file system with locks"
        ) from None
    write_text(cell.owner, f"{os.getpid()} {platform.node()}")
    return lock


def stale_owner(cell: Cell, patience: float = 1.0) -> int:
    """The ended process that a held lock is told to belong to; 0 where it runs, is another machine's, or nobody knows.
    Who takes a lock writes his name a moment later, so it is read twice."""
    found = set()
    for pause in (0.0, patience):
        time.sleep(pause)
        words = cell.owner.read_text(encoding="utf-8").split() if cell.owner.is_file() else []
        mine = len(words) == 2 and words[1] == platform.node() and words[0].isdecimal()
        found.add(int(words[0]) if mine and not is_running(int(words[0])) else 0)
    return found.pop() if len(found) == 1 else 0


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
