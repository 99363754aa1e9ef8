"""A study of cheap cells for the tests of the engine: a cell counts its steps into a file, as a run makes its rollouts.

    python -m tests.reproduce.counting OUT --cells easy=3 broken=1 --pause 0.1

A cell called `broken` raises at its first step, `mistaken` is a user's mistake, `killed` is ended by the kernel, and
`sleeper` lies down for minutes before its last step, unless there is no pause. On Ctrl-C a cell ends its step first.
"""

import argparse
import functools
import os
import signal
import time
from pathlib import Path

from lco.config import Experiment, dump
from lco.disk import append_line, read_lines
from lco.errors import UserError
from reproduce.common.entry import run_command
from reproduce.common.study import Cell, Study, make_missing


def cell(out, name, steps, lr=1e-3):
    run = Experiment(out=str(out / "runs" / name), steps=steps, lr=lr)
    return Cell(name, run, out / "records" / f"{name}.json", {"name": name, "steps": steps, "lr": lr}, steps)


def count(pause, cell, tick):
    """One line a step, on from those that are there; each says which process wrote it."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "config.json").write_text(dump(cell.run))
    asked = answer_ctrl_c_after_the_step(cell.folder / "interrupted-twice")
    for step in range(len(lines_of(cell)), cell.run.steps):
        asleep = pause and cell.name == "sleeper" and step == cell.run.steps - 1
        time.sleep(300 if asleep else pause)
        print(f"step {step} of {cell.name}")
        if cell.name == "broken":
            raise RuntimeError("a wheel came off")
        if cell.name == "mistaken":
            raise UserError("lr is 7; give a smaller one")
        if cell.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        append_line(cell.folder / "steps.jsonl", {"step": step, "pid": os.getpid()})
        tick(1, cell.name)
        if asked:
            raise KeyboardInterrupt


def answer_ctrl_c_after_the_step(twice):
    """A list that Ctrl-C puts something into, as the trainer's loop has a flag; a second one leaves a file."""
    asked = []

    def answer(*_):
        if asked:
            twice.touch()
        asked.append(True)

    signal.signal(signal.SIGINT, answer)
    return asked


def lines_of(cell):
    path = cell.folder / "steps.jsonl"
    return read_lines(path) if path.exists() else []


def record(cell):
    return {**cell.defined, "counted": len(lines_of(cell))}


def describe(record):
    return f"counted {record['counted']}"


def study(cells, pause=0.0):
    return Study("counting", cells, record, describe, run=functools.partial(count, pause), threads=None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", nargs="+", required=True)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    cells = [cell(options.out, name, int(steps)) for name, steps in (text.split("=") for text in options.cells)]
    run_command(lambda: make_missing(study(cells, options.pause), 2).require_all(), "counting")


if __name__ == "__main__":
    main()
