"""Memory that an engine will need, and what machine and container leave for it."""

import pytest

from lco.errors import UserError
from lco.rollout import memory
from tests.rollout.conftest import save, small_model


def test_weights_count_by_shape_and_dtype_and_fit_or_not(tmp_path):
    model = small_model()
    folder = save(model, tmp_path)
    count = sum(p.numel() for p in model.parameters())
    assert memory.weight_bytes(folder, "float32") == 4 * count
    assert memory.weight_bytes(folder, "bfloat16") == 2 * count
    assert memory.weight_bytes("someone/a-hub-id", "bfloat16") == 0
    memory.compare(weights=100, cache_gib=1, free=memory.GIB + 100)
    with pytest.raises(UserError):
        memory.compare(weights=101, cache_gib=1, free=memory.GIB + 100)


def group(folder, limit, used, copies=0, version=2):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 7\n{'' if version == 2 else 'total_'}inactive_file {copies}\n")


def free(tmp_path, membership):
    (tmp_path / "membership").write_text(membership)
    return memory.free_bytes(tmp_path / "groups", tmp_path / "membership")


def test_a_containers_limit_counts_and_copies_of_files_do_not(tmp_path):
    group(tmp_path / "groups", 5000, 2000)
    assert free(tmp_path, "0::/\n") == 3000
    group(tmp_path / "groups", 5000, 2000, copies=1500)
    assert free(tmp_path, "0::/\n") == 4500
    group(tmp_path / "groups", "max", 2000)
    assert free(tmp_path, "0::/\n") > 1e6


def test_every_group_that_this_process_is_nested_in_counts(tmp_path):
    top = tmp_path / "groups"
    group(top / "slurm", 9000, 1000)
    group(top / "slurm" / "job", 5000, 1000)
    group(top / "slurm" / "job" / "step", "max", 1000)
    group(top / "slurm" / "other", 10, 5)
    assert free(tmp_path, "0::/slurm/job/step\n") == 4000
    group(top / "slurm", 3000, 1000)
    assert free(tmp_path, "0::/slurm/job/step\n") == 2000


def test_groups_of_version_one_count(tmp_path):
    top = tmp_path / "groups" / "memory"
    group(top, 2**63 - 4096, 500, version=1)
    group(top / "docker" / "a", 7000, 1000, copies=200, version=1)
    membership = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n0::/\n"
    assert free(tmp_path, membership) == 6200
    assert free(tmp_path, "4:memory:/elsewhere\n") > 1e6
    group(top, 4000, 500, version=1)  # a container that sees its own group at the root
    assert free(tmp_path, membership) == 3500


def test_a_machine_without_groups_has_what_it_has(tmp_path):
    assert memory.free_bytes(tmp_path / "none", tmp_path / "no file") > 1e6
