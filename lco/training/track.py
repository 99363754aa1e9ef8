"""Trackers: the numbers of each rollout, sent to TensorBoard or to Weights & Biases as well, by `--track`.

The run folder's metrics.jsonl stays what records are made of; a tracker is a second look at the same numbers, and may fail to
be there. Nothing is sent but these numbers and the configuration without its paths: no name of a user or a machine.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lco.config import Experiment

Numbers = Mapping[str, float]


class Track(Protocol):
    """What a tracker is: called once a rollout, with its number from 1 (0: the validation before the first)."""

    def __call__(self, step: int, numbers: Numbers) -> None: ...


def numbers_of(metrics: Mapping[str, Any], stem: str = "") -> dict[str, float]:
    """The finite numbers of a rollout's metrics, those inside a part as `part/name`; its own number is none of them."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{stem}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value) and (stem or name != "step"):
            found[stem + name] = float(value)
    return found


def without_paths(experiment: Experiment) -> dict[str, Any]:
    """The configuration as a tracker is told it: of what may be a path the last part, of folders nothing."""
    values = {key: value for key, value in asdict(experiment).items() if key not in ("data_dir", "out")}
    return {
        key: Path(value).name if key.endswith("model") or key == "problems" else value for key, value in values.items()
    }


@contextmanager
def tracking(kind: str, folder: Path, start: int, run: str, config: Mapping[str, Any]) -> Iterator[Track | None]:
    """The tracker of a run until it ends; None where there is none.

    Args:
        kind: "none", "tensorboard" or "wandb".
        folder: of the run; what a tracker writes lies in a folder of its name there.
        start: rollouts that the run has behind it. What was tracked beyond them is made again and takes the old one's place.
        run: the run's own name, by which a resumed run goes on with its series.
        config: see `without_paths`.
    """
    match kind:
        case "tensorboard":
            with to_tensorboard(folder / "tensorboard", start) as track:
                yield track
        case "wandb":
            with to_wandb(folder, run, config) as track:
                yield track
        case _:
            yield None


@contextmanager
def to_tensorboard(folder: Path, start: int) -> Iterator[Track]:
    """An event file for each part of a run, readable while it grows. Its name says at which rollout it begins and nothing of
    the machine, which the package's own writer puts there."""
    # An optional package, here and below: only who asks for a tracker needs it.
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    for later in folder.glob("events.out.tfevents.from-*"):
        if later.name > name_of_part(start):  # of a part whose rollouts are made again
            later.unlink()
    with (folder / name_of_part(start)).open("wb") as file:
        writer = RecordWriter(file)

        def put(step: int, **content: Any) -> None:
            writer.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
            writer.flush()

        put(0, file_version="brain.Event:2")
        if start:  # a reader drops what earlier files have from this rollout on
            put(start + 1, session_log=SessionLog(status=SessionLog.START))

        def track(step: int, numbers: Numbers) -> None:
            put(step, summary=Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in numbers.items()]))

        yield track


def name_of_part(start: int) -> str:
    return f"events.out.tfevents.from-{start:06d}"


@contextmanager
def to_wandb(folder: Path, run: str, config: Mapping[str, Any]) -> Iterator[Track]:
    """A run of Weights & Biases, online or as WANDB_MODE says; offline its files lie in the run folder for `wandb sync`.

    Settings keep host, user, command line, git remote, code and console out of what it writes; the key is the user's own affair.
    """
    import wandb

    settings = wandb.Settings(
        disable_git=True, disable_code=True, disable_job_creation=True, console="off", silent=True,
        host="", username="", email="", program="lco train", program_relpath="lco", program_abspath="", root_dir=str(folder),
        x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
    session = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "lco"), id=run, resume="allow", dir=str(folder), config=dict(config),
        name=f"{config['method']}-seed-{config['seed']}", settings=settings,
    )  # fmt: skip
    # Its own log of the call is full of paths; what is open goes on without a name.
    shutil.rmtree(session.settings.log_dir, ignore_errors=True)
    try:
        yield lambda step, numbers: session.log(dict(numbers), step=step)
    finally:
        session.finish()
