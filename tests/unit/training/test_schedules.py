import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.training.schedules import Plateau, rate

CHANGING = ["step", "cosine", "onecycle"]


@pytest.mark.parametrize("schedule", ["constant", *CHANGING])
@given(total=st.integers(1, 500), share=st.floats(0, 1, exclude_max=True))
def test_a_share_is_between_nothing_and_everything(schedule: str, total: int, share: float) -> None:
    assert 0 <= rate(schedule, int(share * total), total) <= 1


@pytest.mark.parametrize("schedule", ["constant", *CHANGING])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 100, 1000])
def test_the_largest_rate_is_reached(schedule: str, total: int) -> None:
    assert max(rate(schedule, step, total) for step in range(total)) == pytest.approx(1, abs=0.02)


def test_constant() -> None:
    assert {rate("constant", step, 50) for step in range(50)} == {1.0}


def test_step_is_divided_by_ten_at_each_third() -> None:
    rates = [rate("step", step, 300) for step in range(300)]
    assert rates == pytest.approx([1.0] * 100 + [0.1] * 100 + [0.01] * 100)


def test_cosine_warms_up_in_a_straight_line_and_falls_as_half_a_cosine() -> None:
    rates = [rate("cosine", step, 1000) for step in range(1000)]
    assert rates[:50] == pytest.approx([(step + 1) / 50 for step in range(50)])
    assert rates[49] == pytest.approx(1)
    assert rates[524] == pytest.approx(0.5, abs=1e-9)
    assert rates[286] == pytest.approx((1 + math.cos(math.pi / 4)) / 2, abs=2e-3)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(first > second for first, second in pairwise(rates[49:]))


def test_onecycle_rises_over_a_quarter_and_falls_over_the_rest() -> None:
    rates = [rate("onecycle", step, 400) for step in range(400)]
    assert rates[0] < 0.05
    assert rates[99] == pytest.approx(1)
    assert rates[49] == pytest.approx(0.52, abs=1e-9)  # half way from 0.04 to 1
    assert rates[249] == pytest.approx(0.5, abs=1e-9)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(first < second for first, second in pairwise(rates[:100]))
    assert all(first > second for first, second in pairwise(rates[99:]))


@pytest.mark.parametrize("total", [2, 3, 5, 16, 50, 333])
def test_onecycle_changes_every_step(total: int) -> None:
    rates = [rate("onecycle", step, total) for step in range(total)]
    assert all(first != second for first, second in pairwise(rates))


def losses_to_shares(losses: list[float]) -> list[float]:
    plateau, shares = Plateau(), []
    for loss in losses:
        plateau.update(loss)
        shares.append(plateau.share)
    return shares


def test_plateau_halves_at_the_third_look_without_a_better_loss_and_then_waits_again() -> None:
    assert losses_to_shares([5, 4, 3, 2]) == [1] * 4
    assert losses_to_shares([2, 2, 3, 2]) == [1, 1, 1, 0.5]
    assert losses_to_shares([2, 3, 3, 1, 2, 2, 2]) == [1, 1, 1, 1, 1, 1, 0.5]
    assert losses_to_shares([1, *[2] * 6]) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert losses_to_shares([1, math.nan, math.nan, math.nan]) == [1, 1, 1, 0.5]


@given(st.lists(st.floats(0, 10), max_size=30), st.lists(st.floats(0, 10), max_size=30))
def test_plateau_goes_on_where_it_was_saved(before: list[float], after: list[float]) -> None:
    whole, first, second = Plateau(), Plateau(), Plateau()
    for loss in before:
        whole.update(loss)
        first.update(loss)
    second.restore(first.state())
    for loss in after:
        whole.update(loss)
        second.update(loss)
    assert second.state() == whole.state()
