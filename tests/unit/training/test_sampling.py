import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.training.sampling import SampleStream

counts, sizes, seeds = st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**40)


def rows_of(n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(n, dtype=np.int64) * 3 + 1


@given(counts, sizes, seeds)
def test_every_sample_comes_once_in_each_pass(n: int, size: int, seed: int) -> None:
    stream = SampleStream(rows_of(n), size, seed)
    drawn = np.concatenate([stream.batch(step) for step in range(3 * n // stream.batch_size + 2)])
    for start in range(0, len(drawn) - n + 1, n):
        assert sorted(drawn[start : start + n]) == rows_of(n).tolist()


@given(counts, sizes, seeds, st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_a_batch_depends_on_its_step_only(n: int, size: int, seed: int, steps: list[int]) -> None:
    stream = SampleStream(rows_of(n), size, seed)
    for step in steps:
        assert np.array_equal(stream.batch(step), SampleStream(rows_of(n), size, seed).batch(step))


@given(counts, sizes, seeds)
def test_batches_are_full_and_no_larger_than_the_data(n: int, size: int, seed: int) -> None:
    stream = SampleStream(rows_of(n), size, seed)
    assert stream.batch_size == min(n, size)
    assert all(len(stream.batch(step)) == min(n, size) for step in range(5))


def test_passes_and_seeds_differ_in_their_order() -> None:
    def orders(seed: int) -> list[list[int]]:
        stream = SampleStream(np.arange(50), 50, seed)
        return [stream.batch(step).tolist() for step in range(4)]

    first, second = orders(1), orders(2)
    assert len({tuple(order) for order in first + second}) == 8
    assert orders(1) == first


def test_memory_does_not_grow_with_the_passes() -> None:
    stream = SampleStream(np.arange(10), 3, 0)
    for step in range(1000):
        stream.batch(step)
    assert len(stream._orders) <= 3


@pytest.mark.parametrize(("n", "size"), [(10, 3), (12, 4), (5, 8)])
def test_a_pass_is_the_how_manieth_time_a_row_comes(n: int, size: int) -> None:
    stream = SampleStream(np.arange(n), size, 0)
    times = dict.fromkeys(range(n), 0)
    for step in range(20):
        for row, number in zip(stream.batch(step).tolist(), stream.passes(step).tolist(), strict=True):
            assert number == times[row]
            times[row] += 1
