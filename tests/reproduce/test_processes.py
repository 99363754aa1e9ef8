"""Workers end with the process that started them, a task that fails or is killed is named, the others go on."""

import subprocess
import sys
import time

import psutil
import pytest


@pytest.mark.long
def test_a_killed_script_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-m", "reproduce.miniature.run", "--methods", "grpo", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        metrics = [tmp_path / family / "grpo" / "seed-0" / "metrics.jsonl" for family in ("llama", "qwen")]
        end = time.monotonic() + 300
        while not all(file.exists() for file in metrics):
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) > 2  # both classes, and what verifies their answers
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
