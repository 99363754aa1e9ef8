"""Metrics are compared as they are written and weights by their bytes."""

import pytest
import torch
from compare_runs import METRICS, Allowed, compare_metrics, compare_weights, read_metrics
from safetensors.torch import save_file

STRICT = Allowed()


@pytest.fixture
def metrics(tmp_path):
    """Lines of JSON → what is read of them."""

    def read(*lines):
        (tmp_path / METRICS).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return read_metrics(tmp_path / METRICS)

    return read


def test_times_are_not_compared_and_nested_values_are(metrics):
    one = metrics('{"step": 1, "seconds": {"total": 1.5}, "validation": {"greedy": 0.5}}')
    other = metrics('{"step": 1, "seconds": {"total": 2.5}, "validation": {"greedy": 0.25}}')
    found = compare_metrics(one, other, STRICT).differences
    assert found == ("metrics: line 1, validation/greedy: 0.5 → 0.25, by 0.25 (0.5 of it) (1 of 2 values differ)",)


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ("0.1", "0.1", True),
        ("NaN", "NaN", True),
        ("0.30000000000000004", "0.3", False),  # neighbours in float64
        ("1", "1.0", False),
        ("0.0", "-0.0", False),
        ("null", "NaN", False),
        ("null", "0.0", False),
        ('"1"', "1", False),
        ("true", "1", False),
        ('"text"', '"text"', True),
    ],
)
def test_values_are_alike_where_they_are_written_alike(metrics, before, after, alike):
    found = compare_metrics(metrics(f'{{"x": {before}}}'), metrics(f'{{"x": {after}}}'), STRICT)
    assert (not found.differences) == alike


def test_null_for_nan_is_allowed_if_it_is_asked_for_and_nothing_else_is(metrics):
    allowed = Allowed(null_for_nan=True)
    assert not compare_metrics(metrics('{"x": NaN}'), metrics('{"x": null}'), allowed).differences
    assert not compare_metrics(metrics('{"x": null}'), metrics('{"x": NaN}'), allowed).differences
    assert compare_metrics(metrics('{"x": null}'), metrics('{"x": 0.0}'), allowed).differences
    assert compare_metrics(metrics('{"x": null}'), metrics('{"x": "NaN"}'), allowed).differences


def test_new_keys_are_listed_if_they_are_allowed_and_lost_ones_never_are(metrics):
    old, new = metrics('{"x": 1}'), metrics('{"x": 1, "y": 2}')
    assert "has a new key y: 2" in compare_metrics(old, new, STRICT).differences[0]
    allowed = compare_metrics(old, new, Allowed(new_keys=True))
    assert (allowed.differences, allowed.new_keys) == ((), ("y",))
    assert "has no y any more, it was 2" in compare_metrics(new, old, Allowed(new_keys=True)).differences[0]


def test_a_lost_line_is_a_difference(metrics):
    assert compare_metrics(metrics('{"x": 1}', '{"x": 2}'), metrics('{"x": 1}'), STRICT).differences == (
        "metrics: 2 lines → 1",
    )


def difference_of(tmp_path, before, after):
    save_file(before, tmp_path / "before")
    save_file(after, tmp_path / "after")
    return compare_weights(tmp_path / "before", tmp_path / "after")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_differ_by_one_bit_and_not_by_a_nan(tmp_path, dtype):
    one = {"a": torch.tensor([1.0, float("nan"), 0.0], dtype=dtype), "b": torch.tensor(2.0, dtype=dtype)}
    assert difference_of(tmp_path, one, {name: value.clone() for name, value in one.items()}) == []
    step = 1 + torch.finfo(dtype).eps
    found = difference_of(tmp_path, one, {**one, "b": torch.tensor(2 * step, dtype=dtype)})
    assert found == [f"weights: b, by up to {2 * torch.finfo(dtype).eps:.2g} (1 of 2 tensors differ)"]
    negative_zero = torch.tensor([1.0, float("nan"), -0.0], dtype=dtype)
    assert difference_of(tmp_path, one, {**one, "a": negative_zero})[0].startswith("weights: a,")


def test_tensors_of_another_type_shape_or_name_differ(tmp_path):
    one = {"a": torch.zeros(2, 3)}
    assert "[2, 3] torch.float32 → [3, 2] torch.float32" in difference_of(tmp_path, one, {"a": torch.zeros(3, 2)})[0]
    assert "→ [2, 3] torch.bfloat16" in difference_of(tmp_path, one, {"a": torch.zeros(2, 3).bfloat16()})[0]
    assert "b is in one of the two alone" in difference_of(tmp_path, one, {**one, "b": torch.zeros(1)})[0]
