"""Trials as tables, and which key of the space makes the difference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest

from coverslip.study.search_record import LEAST_TRIALS, importance, trials_frame
from coverslip.study.space import Space, read_space
from coverslip.study.trials import distribution

RANGES = {
    "training.learning_rate": {"low": 1e-5, "high": 1.0, "log": True},
    "training.weight_decay": {"low": 1e-6, "high": 1.0, "log": True},
    "training.batch_size": {"low": 4, "high": 512, "log": True},
    "training.optimizer": ["adam", "sgd"],
}


@pytest.fixture(scope="module")
def space() -> Space:
    return read_space("mine", {"space": RANGES}, {"data": {"path": "x"}}, {})


def made(space: Space, n: int, value: Any, seed: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Random trials whose value is a function of their place."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(n):
        trial = study.ask({one.key: distribution(one) for one in space.dimensions})
        trial.set_user_attr("ended", "complete")
        study.tell(trial, value(trial.params))
    return study.trials


def test_what_decides_is_what_mattered(space: Space) -> None:
    shares = importance(space, made(space, 60, lambda params: abs(math.log10(params["training.learning_rate"]) + 3)))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["training.learning_rate"] > 0.8


def test_importance_is_that_of_orders_of_magnitude(space: Space) -> None:
    """Two keys of equal weight on their logarithms, as an analysis of variance in closed form has it: half each."""
    shares = importance(
        space, made(space, 120, lambda p: math.log10(p["training.learning_rate"]) / 5 + math.log10(p["training.weight_decay"]) / 6)
    )
    assert shares["training.learning_rate"] == pytest.approx(0.5, abs=0.12)
    assert shares["training.weight_decay"] == pytest.approx(0.5, abs=0.12)


def test_few_trials_say_nothing_about_what_mattered(space: Space) -> None:
    assert importance(space, made(space, LEAST_TRIALS - 1, lambda params: params["training.learning_rate"])) == {}


def test_a_trial_is_a_row(space: Space) -> None:
    study = optuna.create_study()
    params = {"training.learning_rate": 0.1, "training.weight_decay": 0.2, "training.batch_size": 8, "training.optimizer": "sgd"}
    kinds = {one.key: distribution(one) for one in space.dimensions}
    states = optuna.trial.TrialState

    def add(state: Any, value: float | None, looks: dict[int, float], **attributes: Any) -> None:
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=value, params=params, distributions=kinds, intermediate_values=looks, user_attrs=attributes
            )
        )

    add(states.COMPLETE, 0.5, {1: 0.9}, ended="complete", weights=100, seconds=1.5)
    add(states.PRUNED, None, {1: 0.9, 2: 0.8}, ended="pruned")
    add(states.PRUNED, None, {1: math.inf}, ended="diverged")
    add(states.FAIL, None, {}, error="too large")
    frame = trials_frame(space, {"tpe": study.trials[:3], "random": study.trials[3:]})
    assert frame["search"].tolist() == ["tpe", "tpe", "tpe", "random"]
    assert frame["ended"].tolist() == ["complete", "pruned", "diverged", "failed"]
    assert frame["looks"].tolist() == [8, 2, 1, 0]
    np.testing.assert_array_equal(frame["value"].to_numpy(dtype=float), [0.5, 0.8, np.nan, np.nan])
    assert frame.loc[0, "weights"] == 100
    assert frame.loc[3, "error"] == "too large"
    assert frame["training.optimizer"].tolist() == ["sgd"] * 4
