"""How a rank ends."""

import subprocess
import sys

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
