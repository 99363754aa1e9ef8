"""The processes of a study end with it, those that verify answers too."""

import shutil
import subprocess
import sys
import time

import psutil
import pytest

from reproduce.common.study import RESULTS


@pytest.mark.long
def test_a_killed_script_leaves_no_process_behind(tmp_path):
    for family in ("llama", "qwen"):  # the start models' scores, which take longer than what is looked at here
        (tmp_path / "records" / family).mkdir(parents=True)
        shutil.copy(RESULTS / "miniature" / family / "start.json", tmp_path / "records" / family)
    command = [sys.executable, "-m", "reproduce.miniature.run", "--methods", "grpo", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            metrics = [tmp_path / family / "grpo" / "seed-0" / "metrics.jsonl" for family in ("llama", "qwen")]
            end = time.monotonic() + 300
            while not all(file.exists() for file in metrics):
                assert process.poll() is None
                assert time.monotonic() < end, "waited in vain"
                time.sleep(0.2)
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
    assert len(children) > 2  # both classes, and what verifies their answers
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
