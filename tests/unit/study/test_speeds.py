"""From times of steps to numbers: against closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, repeat

import numpy as np
import pytest

from coverslip.study.speeds import LEAST, MOST, PATIENCE, WARM_UP, latency, speed, take_steps
from coverslip.training.batches import TimedStep


class Counted:
    """Steps that are counted when they are taken."""

    def __init__(self, *seconds: float, then: float) -> None:
        self.taken = 0
        self.steps = chain(seconds, repeat(then))

    def __iter__(self) -> Iterator[TimedStep]:
        return self

    def __next__(self) -> TimedStep:
        self.taken += 1
        return TimedStep(next(self.steps), 0.0)


def test_waiting_is_a_share_of_all_time_and_speed_goes_by_the_median() -> None:
    found = speed([TimedStep(0.1, 0.02), TimedStep(0.1, 0.03), TimedStep(1.0, 0.07)], 20)
    assert found["images_per_second"] == pytest.approx(20 / 0.1)
    assert found["waiting_share"] == pytest.approx(0.12 / 1.2)
    assert found["step_milliseconds"] == pytest.approx(100)
    assert (found["step_low"], found["step_high"]) == pytest.approx((100, 550))
    assert found["steps"] == 3


def test_what_never_waits_and_what_only_waits() -> None:
    assert speed([TimedStep(0.5, 0.0)], 1)["waiting_share"] == 0
    assert speed([TimedStep(0.5, 0.5)], 1)["waiting_share"] == 1


def test_the_warm_up_is_left_out() -> None:
    steps = Counted(9.0, 0.5, then=0.25)
    assert [step.seconds for step in take_steps(steps, 10.0)] == [0.25] * 40
    assert steps.taken == WARM_UP + 40


def test_fast_steps_end_at_the_most() -> None:
    assert len(take_steps(Counted(then=0.001), 10.0)) == MOST


def test_slow_steps_are_taken_at_least_a_few_times_unless_they_are_very_slow() -> None:
    assert len(take_steps(Counted(then=1.5), 1.0)) == LEAST
    very_slow = Counted(then=PATIENCE + 1.0)
    assert len(take_steps(very_slow, 1.0)) == 1
    assert very_slow.taken == 2  # one step warms up where it takes longer than all that was asked for


def test_the_order_of_steps_is_kept() -> None:
    steps = (TimedStep(number / 100, 0.0) for number in range(1, 200))
    assert [round(100 * step.seconds) for step in islice(take_steps(steps, 0.5), 3)] == [3, 4, 5]


def test_latency_is_the_median_and_the_95th_percentile() -> None:
    seconds = np.random.default_rng(0).exponential(size=101)
    middle, high = latency(seconds.tolist())
    ordered = np.sort(seconds)
    assert middle == pytest.approx(1000 * ordered[50])
    assert high == pytest.approx(1000 * ordered[95])
