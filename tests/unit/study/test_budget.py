"""How long everything takes, as arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.config import TrainingConfig
from coverslip.study.budget import AROUND, FINAL_SHARE, TRIALS, Budget, plan_budget


@pytest.mark.parametrize(
    ("training", "full", "short"),
    [
        ({"epochs": 20}, {"epochs": 20}, {"epochs": 4}),
        ({"epochs": 2}, {"epochs": 2}, {"epochs": 1}),
        ({"steps": 100, "epochs": 3}, {"steps": 100}, {"steps": 20}),
        ({"minutes": 2.0, "epochs": 3}, {"minutes": 2.0}, {"minutes": 0.4}),
    ],
)
def test_a_trial_is_a_share_of_a_full_training(training: dict[str, float], full: dict[str, float], short: dict[str, float]) -> None:
    budget = plan_budget(TrainingConfig.model_validate(training), 0.2, None, None)
    assert (budget.full, budget.short, budget.trials, budget.seconds, budget.note) == (full, short, TRIALS, None, "")


def test_final_trainings_leave_most_of_stated_minutes_to_the_search() -> None:
    budget = plan_budget(TrainingConfig(minutes=3.0), 0.1, None, 10.0)
    assert budget.full == {"minutes": pytest.approx(1.5)}
    assert budget.short == {"minutes": pytest.approx(0.15)}
    assert budget.trials is None
    assert "a final training gets 1.5, not 3" in budget.note
    assert plan_budget(TrainingConfig(minutes=1.0), 0.1, 5, 10.0) == Budget(5, 600.0, {"minutes": 1.0}, {"minutes": 0.1})


def test_trials_end_at_their_number() -> None:
    budget = Budget(3, None, {"epochs": 10}, {"epochs": 1})
    assert [budget.allows(made, 1e9, [1.0], 0.1) for made in range(5)] == [True, True, True, False, False]


def test_one_trial_is_always_made() -> None:
    budget = Budget(None, 1.0, {"minutes": 5.0}, {"minutes": 0.5})
    assert budget.allows(0, 100.0, [], 0.1)
    assert not budget.allows(1, 100.0, [30.0], 0.1)
    wide = Budget(None, 100.0, {"minutes": 0.5}, {"minutes": 0.1})
    assert wide.allows(1, 5.0, [10.0], 0.2)
    assert not wide.allows(1, 5.0, [10.0], 0.2, kinds=2)


@given(st.floats(0, 600), st.lists(st.floats(0.1, 30), min_size=1, max_size=20))
def test_the_final_trainings_still_fit_when_no_trial_begins_any_more(spent: float, seconds: list[float]) -> None:
    budget = plan_budget(TrainingConfig(minutes=1.0), 0.1, None, 10.0)
    if budget.allows(5, spent, seconds, 0.1):
        assert spent + min(seconds) + 2 * 60 * 1.0 < 600.0
    else:
        assert spent + max(seconds) + 2 * (60 * 1.0 + AROUND) > 600.0


def test_the_reserve_of_epochs_comes_from_trials() -> None:
    budget = Budget(None, 600.0, {"epochs": 20}, {"epochs": 4})
    assert budget.reserve([2.0, 3.0], 0.2) == 2 * (3.0 / 0.2 + AROUND)
    assert budget.reserve([], 0.2) == 2 * AROUND
    assert FINAL_SHARE * 2 < 0.5


def test_lengths_in_words() -> None:
    assert Budget(30, 600.0, {"minutes": 1.0}, {"minutes": 0.1}).sentence == (
        "30 trials, at most 10 minutes for everything; a trial trains for 6 seconds, the final model for 1 minute"
    )
    assert Budget(None, 90.0, {"epochs": 10}, {"epochs": 1}).sentence.startswith("1.5 minutes for everything; a trial trains for 1 epoch,")
