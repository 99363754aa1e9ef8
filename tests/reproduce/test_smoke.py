"""The family scripts: their committed records are theirs, and a whole road at the size of the miniature."""

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from lco.problems.local import read_problems
from reproduce import llama, qwen
from reproduce.common import reuse, smoke
from reproduce.common.study import RESULTS, refuse_others
from tests.conftest import START

TINY = smoke.Smoke(
    scale="tiny",
    task="lco_miniature",
    settings={
        "problems": "arithmetic", "extraction": "hash", "limit": 400, "max_prompt_tokens": 32, "max_new_tokens": 32,
        "vllm_cache_gib": 0.1, "steps": 2, "lr": 1e-4,
    },
)  # fmt: skip


def asked(command, out, records=None, model=START / "llama", **more):
    places = {"model": str(model), "data_dir": "", "out": out, "records": records or RESULTS / smoke.FOLDERS[command]}
    return argparse.Namespace(command=command, **places, **more)


@pytest.mark.parametrize("family", [llama, qwen])
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_the_committed_first_steps_are_what_the_command_makes(tmp_path, family, engine):
    cell = smoke.plan_first_steps(family.SMOKE, asked("first_steps", tmp_path, engine=engine))
    count = family.SMOKE.shortest
    shortest = f"{cell.run.problems}-shortest-{count}" if count else cell.run.problems
    cell = dataclasses.replace(cell, defined={**cell.defined, "problems": shortest})
    said = reuse.said_by_record(cell.record)
    assert said.keys() >= {"lr", "steps", "engine", "problems", "temperature", reuse.WEIGHTS}
    refuse_others([cell], "")


@pytest.mark.parametrize("method", smoke.COMPARED)
def test_the_committed_smoke_records_are_what_the_command_makes(tmp_path, method):
    cell = smoke.plan_smoke(llama.SMOKE, method, asked("smoke", tmp_path, device="cpu"))
    assert reuse.said_by_record(cell.record)["minibatches"] == 4
    refuse_others([cell], "")


def test_training_on_the_shortest_problems_keeps_the_order_of_their_set(tmp_path):
    lines = [
        {"id": str(i), "problem": "p" * size, "answer": "1", "solution": "s"} for i, size in enumerate([5, 1, 9, 3])
    ]
    (tmp_path / "gsm8k_train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    chosen = asked("first_steps", tmp_path / "out", engine="torch")
    chosen.data_dir = str(tmp_path)
    cell = smoke.train_on_shortest(smoke.plan_first_steps(qwen.SMOKE, chosen), 2)
    assert [p.id for p in read_problems(Path(cell.run.problems))] == ["1", "3"]
    assert cell.defined["problems"] == "gsm8k-shortest-2"
    assert cell.run.data_dir == ""


@pytest.mark.long
def test_both_commands_leave_records_and_do_not_repeat_them(tmp_path, capsys):
    """vLLM samples and lm-eval scores, on the miniature's start model."""
    places = {"out": tmp_path / "runs", "records": tmp_path / "records"}
    first, compared = (
        asked("first_steps", engine="torch", **places),
        asked("smoke", device="cpu", methods=["grpo"], **places),
    )
    smoke.run_first_steps(TINY, first)
    smoke.run_smoke(TINY, compared)
    record = json.loads((tmp_path / "records" / "tiny-torch.json").read_text())
    assert record["budget"]["updates"] == 2
    assert record["every_gradient_nonzero"] is True
    assert record["before"]["problems"] == record["evaluations"][0]["problems"] == 32
    assert json.loads((tmp_path / "records" / "tiny" / "grpo.json").read_text())["budget"]["updates"] == 24
    assert (tmp_path / "records" / "tiny" / "curves.png").stat().st_size > 1000
    assert "greedy on 32 problems; every step mixed" in capsys.readouterr().out
    smoke.run_first_steps(TINY, first)
    assert "greedy" not in capsys.readouterr().out
