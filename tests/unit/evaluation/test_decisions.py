"""Thresholds, temperature, reliability."""

import numpy as np
import pytest

from coverslip.errors import InputError
from coverslip.evaluation.decisions import apply_temperature, decide, reliability_curve, temperature, threshold_for_sensitivity
from coverslip.evaluation.metrics import log_loss
from coverslip.structures import Task


def two_columns(positive):
    return np.stack([1 - np.asarray(positive), positive], axis=1)


def test_decisions_of_each_task():
    scores = np.array([[0.5, 0.5], [0.7, 0.3]])
    assert decide(scores, Task.BINARY).tolist() == [1, 0]
    assert decide(scores, Task.BINARY, 0.2).tolist() == [1, 1]
    assert decide(scores, Task.MULTICLASS).tolist() == [0, 0]
    assert decide(scores, Task.MULTILABEL).tolist() == [[1, 1], [1, 0]]
    assert decide(scores, Task.BINARY).dtype == np.int64


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(truth):
    """Labels drawn from calibrated scores that were then sharpened by 1 / truth."""
    rng = np.random.default_rng(0)
    calibrated = rng.dirichlet(np.ones(4), size=20_000)
    targets = (rng.random((20_000, 1)) > calibrated.cumsum(axis=1)).sum(axis=1)
    sharpened = apply_temperature(calibrated, 1 / truth)
    found = temperature(sharpened, targets)
    assert found == pytest.approx(truth, rel=0.04)
    repaired = apply_temperature(sharpened, found)
    assert repaired.sum(axis=1) == pytest.approx(1)
    assert log_loss(targets, repaired) <= log_loss(targets, sharpened) + 1e-9
    assert (repaired.argmax(axis=1) == sharpened.argmax(axis=1)).all()


def test_temperature_one_changes_nothing():
    scores = np.random.default_rng(1).dirichlet(np.ones(3), size=10)
    assert apply_temperature(scores, 1.0) == pytest.approx(scores)


def test_temperature_without_mistakes_stays_in_range_and_needs_rows():
    assert 0.1 <= temperature(np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([0, 1])) < 0.11
    with pytest.raises(InputError, match="validation"):
        temperature(np.zeros((0, 2)), np.zeros(0, int))


@pytest.mark.parametrize("required", [0.01, 0.5, 0.8, 0.95, 1.0])
def test_threshold_is_the_largest_that_reaches_the_sensitivity(required):
    rng = np.random.default_rng(2)
    targets = rng.integers(2, size=80)
    scores = two_columns(np.round(rng.random(80), 1))
    found = threshold_for_sensitivity(scores, targets, required)
    reached = {t: np.mean(scores[targets == 1, 1] >= t) for t in np.unique(scores[:, 1])}
    assert found.threshold == max(t for t, share in reached.items() if share >= required)
    assert found.sensitivity.value == pytest.approx(reached[found.threshold])
    assert found.sensitivity.low < found.sensitivity.value
    assert found.specificity.value == np.mean(scores[targets == 0, 1] < found.threshold)


def test_threshold_needs_positives_but_not_negatives():
    with pytest.raises(InputError, match="positive"):
        threshold_for_sensitivity(two_columns([0.2, 0.3]), np.array([0, 0]), 0.9)
    assert not threshold_for_sensitivity(two_columns([0.2, 0.3]), np.array([1, 1]), 0.9).specificity.defined


def test_reliability_bins():
    scores = two_columns([0.95, 0.96, 0.05, 0.6])
    low, high = reliability_curve(scores, np.array([1, 0, 0, 1]), bins=10)
    assert (low.n, low.accuracy, low.confidence) == (1, 1.0, pytest.approx(0.6))
    assert (high.n, high.accuracy, high.confidence) == (3, pytest.approx(2 / 3), pytest.approx((0.95 + 0.96 + 0.95) / 3))
    assert high.low < 2 / 3 < high.high
