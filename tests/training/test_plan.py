"""Which prompts and rows a step takes: functions of (seed, step), the same union for any number of ranks."""

from hypothesis import given
from hypothesis import strategies as st

from lco.training.plan import micro_batches, minibatches, prompt_indices


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 6), st.integers(0, 3))
def test_prompts_follow_one_permutation_after_another(total, per_step, step, seed):
    """A resumed run that asks for step k gets what an uninterrupted one got; every epoch sees every problem once."""
    stream = [i for s in range(step + total + 1) for i in prompt_indices(total, per_step, s, seed)]
    assert prompt_indices(total, per_step, step, seed) == stream[step * per_step : (step + 1) * per_step]
    for epoch in range(len(stream) // total):
        assert sorted(stream[epoch * total : (epoch + 1) * total]) == list(range(total))


def test_seeds_and_epochs_differ():
    first, second = prompt_indices(50, 50, 0, 0), prompt_indices(50, 50, 1, 0)
    assert first != second
    assert first != prompt_indices(50, 50, 0, 1)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 3))
def test_every_epoch_covers_every_row_once(rows, count, epochs):
    plan = minibatches(range(rows), count, epochs, 3, 0)
    assert sorted(row for part in plan for row in part) == sorted(list(range(rows)) * epochs)
    sizes = [len(part) for part in plan]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_ranks_share_a_minibatch_with_equally_many_forward_passes(rows, size, world):
    shares = [list(micro_batches(list(range(rows)), size, rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    real = [row for share in shares for part in share if part.real for row in part.rows]
    assert sorted(real) == list(range(rows))
    assert all(len(part.rows) <= size for share in shares for part in share)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_pairs_are_never_separated(pairs, size, world, count):
    rows = range(2 * pairs)
    plan = minibatches(rows, count, 1, 3, 0, unit=2)
    assert sorted(row for part in plan for row in part) == list(rows)
    for minibatch in plan:
        for rank in range(world):
            for part in micro_batches(minibatch, size, rank, world, unit=2):
                assert all(a % 2 == 0 and b == a + 1 for a, b in zip(part.rows[0::2], part.rows[1::2], strict=True))
