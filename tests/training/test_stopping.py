"""Which signals let the rollout in progress end, and which do not."""

import signal

import pytest

from lco.stopping import Stopped
from tests.conftest import small, train

TERM, CTRL_C = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("signals", "saved"),
    [((TERM, TERM), True), ((TERM, CTRL_C), True), ((CTRL_C, TERM), True), ((CTRL_C, CTRL_C), False)],
)
def test_a_second_ctrl_c_alone_interrupts_at_once(tmp_path, signals, saved):
    """A scheduler's SIGTERM goes to every process of a job, and a launcher that gets it too sends its own after it."""

    def stop(metrics):
        for number in signals:
            signal.raise_signal(number)

    run = small(tmp_path / "run", steps=4, eval_every=0)
    with pytest.raises(Stopped, match=r"stopped after 1 of 4 rollouts" if saved else "interrupted"):
        train(run, on_step=stop)
    assert (run.folder / "checkpoints" / "step-000001").is_dir() == saved
