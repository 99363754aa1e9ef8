"""Two "nodes" on this machine's loopback: each an agent of torchrun with one rank, and a vLLM server as a third.

What they cannot show: a file system that two machines share, a network that breaks without closing connections, NCCL.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from lco.addresses import TOKEN, URLS
from lco.training.launch import free_port
from tests.conftest import START, lines, weights, without_time
from tests.rollout.test_vllm_server_long import SECRET, Served

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
STEPS = 12
RUN = [
    *("--model", str(START / "llama"), "--problems", "arithmetic", "--extraction", "hash"),
    *("--limit", "50", "--max-prompt-tokens", "32", "--max-new-tokens", "24", "--prompts-per-step", "4", "--samples", "4"),
    *("--minibatches", "2", "--lr", "1e-3", "--device", "cpu", "--steps", str(STEPS), "--save-every", "3"),
]  # fmt: skip
LONGEST, ENDS = 1500, 240
"""Seconds that a run may take here, and that what is left of one may take to end. Both end sooner on a quiet machine: the
latter in less than a minute."""


class Node:
    """An agent, alone in its process group, and its rank; what they say goes to a file."""

    def __init__(self, command, log, variables):
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        with log.open("w") as file:
            kept = {"cwd": ROOT, "env": environment, "stdout": file, "stderr": file}
            self.agent = subprocess.Popen(command, process_group=0, **kept)

    @property
    def said(self):
        return self.log.read_text()

    @property
    def processes(self):
        agent = psutil.Process(self.agent.pid)
        return [agent, *agent.children(recursive=True)]


def by_torchrun(number, port):
    """The command of an agent, without the run's flags, and its variables."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number)),
        *("--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "lco.cli", "train"),
    ]
    return [*command, "--engine", "deepspeed"], {}


def by_slurms_script(number, port):
    """What `srun` would start on each node, with the variables that it would set."""
    slurm = {"SLURM_NNODES": "2", "SLURM_NODEID": str(number), "SLURM_PROCID": str(number), "SLURM_JOB_ID": "7"}
    return ["bash", "scripts/slurm/node.sh", "2", "1"], {**slurm, "LCO_NODE_0": "127.0.0.1", "LCO_PORT": str(port)}


def by_deepspeed(number, port):
    """DeepSpeed's front on each node, where there is no ssh by which one of them would start the others."""
    hosts = ROOT / "tests" / "training" / "two_hosts.txt"
    command = [
        *(sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hosts), "--no_ssh"),
        *("--node_rank", str(number), "--master_addr", "127.0.0.1", "--master_port", str(port), "--no_local_rank"),
        *("--module", "lco.cli", "train", "--engine", "deepspeed"),
    ]
    return command, {}


@pytest.fixture
def nodes(tmp_path):
    """(flags of `lco train`) → two nodes that train; what is left of them is killed."""
    made = []

    def start(*flags, started=by_torchrun, **variables):
        port, both = free_port(), []
        for number in range(2):
            command, more = started(number, port)
            both.append(Node([*command, *flags], tmp_path / f"node-{len(made)}.log", {**variables, **more}))
            made.append(both[-1])
        return both

    yield start
    for node in made:
        if node.agent.poll() is None:
            for process in node.processes:
                process.kill()
            node.agent.wait()


def finish(nodes):
    for node in nodes:
        assert node.agent.wait(LONGEST) == 0, node.said


def wait_for_rollouts(folder, count, nodes):
    file = folder / "metrics.jsonl"
    wait_until(lambda: file.exists() and file.read_text().count("\n") >= count, nodes)


def wait_until(condition, nodes):
    end = time.monotonic() + LONGEST
    while not condition():
        assert all(node.agent.poll() is None for node in nodes), "\n".join(node.said for node in nodes)
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def same(one, other):
    """Bit for bit, and every rollout's line once."""
    assert [without_time(line) for line in lines(one)] == [without_time(line) for line in lines(other)]
    same_weights(one, other)


def same_weights(one, other):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run by two ranks that `lco train` starts on one machine."""
    folder = tmp_path_factory.mktemp("one") / "run"
    command = [sys.executable, "-m", "lco.cli", "train", *RUN, "--engine", "deepspeed", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=LONGEST)
    assert len(lines(folder)) == STEPS
    return folder


@pytest.mark.parametrize("started", [by_torchrun, by_slurms_script, by_deepspeed])
def test_two_nodes_make_the_run_of_one_machine(nodes, whole, tmp_path, started):
    finish(nodes(*RUN, "--out", str(tmp_path / "run"), started=started))
    same(tmp_path / "run", whole)


KILLED = [
    (1, r"lco: rank 1 \(node 1, .+\) does not answer any more; .*continue with --resume"),
    (0, r"lco: rank 0 \(node 0, .+\), where the ranks meet, does not answer any more; .*continue with --resume"),
]


@pytest.mark.parametrize(("killed", "words"), KILLED, ids=["node-1", "node-0"])
def test_a_killed_node_is_named_and_ends_the_other_and_both_resume(nodes, whole, tmp_path, killed, words):
    folder = tmp_path / "run"
    both = nodes(*RUN, "--out", str(folder))
    wait_for_rollouts(folder, 5, both)
    ended, left = both[killed], both[1 - killed]
    processes = [*ended.processes, *left.processes]
    assert len(processes) >= 4
    os.killpg(ended.agent.pid, signal.SIGKILL)
    assert ended.agent.wait() == -signal.SIGKILL
    assert left.agent.wait(ENDS) > 0
    assert not psutil.wait_procs(processes, timeout=ENDS)[1]
    assert re.search(words, left.said), left.said
    assert not (folder / "checkpoints" / "final").exists()
    finish(nodes("--resume", "--out", str(folder)))
    same(folder, whole)


def test_a_node_that_cannot_load_says_so_on_all(nodes, tmp_path):
    """Each node reads its own copy of the problems, and on one of them it is not there."""
    names = iter(["here.jsonl", "absent.jsonl"])
    (tmp_path / "here.jsonl").write_text(
        "".join(f'{{"id": "{i}", "problem": "Ann has {i} pens . finds 2 ?", "answer": {i + 2}}}\n' for i in range(1, 9))
    )

    def each_with_its_own(number, port):
        command, variables = by_torchrun(number, port)
        return [*command, "--problems", str(tmp_path / next(names))], variables

    given = [word for word in RUN if word not in ("--problems", "arithmetic")]
    both = nodes(*given, "--out", str(tmp_path / "run"), started=each_with_its_own)
    assert [node.agent.wait(ENDS) > 0 for node in both] == [True, True]
    assert re.search(r"lco: .*absent\.jsonl", both[1].said), both[1].said
    assert re.search(r"lco: rank 1 \(node 1, .+\) has ended: .*absent\.jsonl", both[0].said), both[0].said


@pytest.mark.parametrize("whom", ["agents", "all processes"])
def test_a_stopped_job_saves_and_resumes(nodes, whole, tmp_path, whom):
    """A scheduler's SIGTERM reaches the agents, which send their own, or every process of the job at once."""
    folder = tmp_path / "run"
    both = nodes(*RUN, "--save-every", "0", "--out", str(folder))
    wait_for_rollouts(folder, 5, both)
    for process in [
        found for node in both for found in (node.processes if whom == "all processes" else node.processes[:1])
    ]:
        process.send_signal(signal.SIGTERM)
    for node in both:
        assert node.agent.wait(ENDS) != 0  # a scheduler that sees 0 would take the job for done
    done = len(lines(folder))
    assert 5 <= done < STEPS
    assert f"lco: stopped after {done} of {STEPS} rollouts" in both[0].said
    assert (folder / "checkpoints" / f"step-{done:06d}").is_dir()
    finish(nodes("--resume", "--out", str(folder)))
    same(folder, whole)


def test_rank_0s_own_vllm_samples_under_torchrun(nodes, tmp_path):
    """Torchrun's variables send whoever reads them to its own store, where a vLLM process would wait for ever."""
    finish(nodes(*RUN, "--steps", "2", "--rollouts", "vllm", "--vllm-cache-gib", "0.1", "--out", str(tmp_path / "run")))
    assert all(line["sampler_gap_max"] < 1e-3 for line in lines(tmp_path / "run"))


@pytest.fixture
def server():
    made = Served()
    try:
        made.wait()
        yield made
    finally:
        made.kill()


def test_a_server_as_a_third_node_that_is_killed_is_named_on_both_and_all_resume(nodes, server, tmp_path):
    served = {TOKEN: SECRET, URLS: server.url}
    run = [*RUN, "--rollouts", "vllm-server"]
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    finish(nodes(*run, "--out", str(undisturbed), **served))
    assert all(line["sampler_gap_max"] < 1e-3 for line in lines(undisturbed))

    both = nodes(*run, "--out", str(folder), **served)
    wait_for_rollouts(folder, 5, both)
    server.kill()
    assert [node.agent.wait(60 + ENDS) > 0 for node in both] == [True, True]
    words = "none of 1 vLLM servers answers; start them again and continue with --resume"
    assert "vLLM server 1 of 1" in both[0].said
    assert f"lco: {words}" in both[0].said
    assert re.search(rf"lco: rank 0 \(node 0, .+\) has ended: {words}", both[1].said), both[1].said

    server.start()
    server.wait()
    finish(nodes("--resume", "--out", str(folder), **served))
    # The ids are drawn again by the same seeds; a server's log-probabilities may differ in their last bits.
    assert [line["step"] for line in lines(folder)] == list(range(1, STEPS + 1))
    same_weights(folder, undisturbed)
