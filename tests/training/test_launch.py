"""Where ranks run, and how one ends."""

import base64
import json
import subprocess
import sys

import pytest

from lco.errors import UserError
from lco.training.launch import world_info

ENDING = """
import atexit, os
from lco.training.launch import end_rank
atexit.register(os.abort)  # what gloo's threads do now and then while the interpreter closes
print("x" * 100_000, end="")
end_rank()
"""


def test_a_rank_whose_run_is_over_is_not_lost_while_the_interpreter_closes():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "x" * 100_000), done.stderr


@pytest.mark.parametrize(
    ("shown", "slots"),
    [(None, [0, 1]), ("", [0, 1]), ("-1", [0, 1]), ("2,3", ["2", "3"]), (" 1, 5 ,7", ["1", "5"])],
)
def test_ranks_are_on_the_gpus_that_the_command_may_use(monkeypatch, shown, slots):
    """DeepSpeed's launcher sets CUDA_VISIBLE_DEVICES of its ranks to the slots of this description."""
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert json.loads(base64.urlsafe_b64decode(world_info(2, cpu=False))) == {"localhost": slots}


def test_more_ranks_than_gpus_that_may_be_used_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(
        UserError, match=r"processes is 2, and CUDA_VISIBLE_DEVICES shows 1 GPU\(s\), 4; name one for each"
    ):
        world_info(2, cpu=False)
    assert json.loads(base64.urlsafe_b64decode(world_info(2, cpu=True))) == {"localhost": [0, 1]}
