"""Records of several runs: from several folders, of one run twice, of several models."""

import pytest

from lco.errors import UserError
from lco.evidence import records
from tests.evidence.made import record, tables


def test_records_of_several_folders_stand_together_and_an_empty_one_is_named(tmp_path):
    for name, method in (("a", "grpo"), ("b", "ppo")):
        records.write(tmp_path / name / "0.json", record(method, 0, 5))
    assert [r["method"] for r in records.read_all(tmp_path / "b", tmp_path / "a")] == ["ppo", "grpo"]
    with pytest.raises(UserError, match=r"there is no folder .*/c; give"):
        records.read_all(tmp_path / "a", tmp_path / "c")
    records.write(tmp_path / "b" / "1.json", record("grpo", 0, 5))
    with pytest.raises(UserError, match="are both grpo seed 0"):
        records.read_all(tmp_path / "a", tmp_path / "b")


def test_a_run_counts_once_and_two_models_are_not_one(tmp_path):
    for name in ("a", "b"):
        records.write(tmp_path / f"{name}.json", record("grpo", 0, 5))
    with pytest.raises(
        UserError, match=r"b\.json and .*a\.json are both grpo seed 0 on LlamaForCausalLM; a run counts once"
    ):
        records.read_all(tmp_path)
    larger = record("grpo", 0, 5)
    larger["model"] |= {"sha256": "cd" * 32}
    records.write(tmp_path / "b.json", larger)
    with pytest.raises(UserError, match=r"llama \(cdcdcdcd…\) and llama \(abababab…\).*each a folder of its own"):
        records.read_all(tmp_path)


def test_two_sizes_of_one_class_stand_in_one_report_each_by_its_name(tmp_path):
    for size, weights in (("llama-1b", "ab"), ("llama-3b", "cd")):
        for method in ("start", "grpo", "ppo"):
            run = record(method, None if method == "start" else 0, 5)
            run["model"] |= {"name": size, "sha256": weights * 32}
            records.write(tmp_path / size / f"{method}.json", run)
    shown = tables(tmp_path)
    assert [size for table in shown for size in ("llama-1b", "llama-3b") if size in table.title][:2] == [
        "llama-1b",
        "llama-3b",
    ]
