"""Calibration of multi-label scores: planted lines are found, few positives do not run away."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from coverslip.errors import InputError
from coverslip.evaluation.calibration import (
    EVIDENCE,
    apply_platt,
    calibrate_classes,
    class_temperature,
    label_calibration_error,
    platt,
)
from coverslip.evaluation.decisions import reliability_curve
from coverslip.evaluation.multilabel_metrics import decision_losses


def calibrated(n, seed=0, mean=-1.5):
    rng = np.random.default_rng(seed)
    scores = expit(rng.normal(mean, 1.5, size=n))
    return scores, (rng.random(n) < scores).astype(np.int64)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, 0.7), (2.0, -1.0)])
def test_platt_finds_the_line_again(slope, offset):
    scores, targets = calibrated(60_000)
    moved = expit((logit(scores) - offset) / slope)
    assert platt(moved, targets) == pytest.approx((slope, offset), abs=0.05)
    assert apply_platt(moved, slope, offset) == pytest.approx(scores)


def test_platt_is_logistic_regression_on_smoothed_targets():
    scores, targets = calibrated(300, seed=1)
    positives, negatives = targets.sum(), (1 - targets).sum()
    wanted = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    rows, labels = np.tile(logit(scores), 2)[:, None], np.repeat([1, 0], 300)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(rows, labels, sample_weight=np.concatenate([wanted, 1 - wanted]))
    assert platt(scores, targets) == pytest.approx((peer.coef_[0, 0], peer.intercept_[0]), abs=1e-4)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_a_class_temperature_is_found_again(truth):
    scores, targets = calibrated(40_000, seed=2)
    assert class_temperature(expit(logit(scores) * truth), targets) == pytest.approx(truth, rel=0.04)


@pytest.mark.parametrize("targets", [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
def test_no_line_runs_away(targets):
    slope, offset = platt(np.array([0.0, 0.2, 0.3, 0.8, 1.0]), np.array(targets))
    assert 0.1 <= slope <= 10
    assert np.isfinite(offset)
    assert 0.1 <= class_temperature(np.array([0.0, 0.2, 0.3, 0.8, 1.0]), np.array(targets)) <= 10


def shifted(n, seed, shifts=(0.0, 1.5, -1.0, 2.0), means=(0.0, -1.0, -2.0, -5.0)):
    pairs = [calibrated(n, seed=1000 * seed + k, mean=mean) for k, mean in enumerate(means)]
    scores = np.stack([expit(logit(pair[0]) + shift) for pair, shift in zip(pairs, shifts, strict=True)], axis=1)
    return scores, np.stack([pair[1] for pair in pairs], axis=1)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_calibration_helps_on_new_rows(method):
    new_scores, new_targets = shifted(20_000, 9)
    if method == "temperature":
        new_scores = expit(3 * logit(np.stack([calibrated(20_000, seed=k)[0] for k in range(4)], axis=1)))
        new_targets = np.stack([calibrated(20_000, seed=k)[1] for k in range(4)], axis=1)
        scores = expit(3 * logit(np.stack([calibrated(400, seed=k + 10)[0] for k in range(4)], axis=1)))
        targets = np.stack([calibrated(400, seed=k + 10)[1] for k in range(4)], axis=1)
    else:
        scores, targets = shifted(400, 0)
    fitted = calibrate_classes(scores, targets, method)
    before, after = (decision_losses(new_targets, each)[0].mean() for each in (new_scores, fitted.apply(new_scores)))
    assert after < 0.95 * before
    assert label_calibration_error(fitted.apply(new_scores), new_targets) < 0.5 * label_calibration_error(new_scores, new_targets)
    assert (fitted.offsets == 0).all() == (method == "temperature")
    for k in range(4):
        assert (np.diff(fitted.apply(new_scores)[np.argsort(new_scores[:, k]), k]) >= 0).all()


def test_lines_are_shrunk_by_evidence():
    scores, targets = shifted(3000, 0)
    targets[:, 3] = 0
    few = np.flatnonzero(targets[:, 2])[4:]
    targets[few, 2] = 0
    fitted = calibrate_classes(scores, targets)
    pooled = np.array(platt(scores.ravel(), targets.ravel()))
    lines = np.stack([fitted.slopes, fitted.offsets], axis=1)
    assert lines[3] == pytest.approx(pooled)
    own = np.array(platt(scores[:, 2], targets[:, 2]))
    assert lines[2] == pytest.approx((4 * own + EVIDENCE * pooled) / (4 + EVIDENCE))
    assert lines[0] == pytest.approx(platt(scores[:, 0], targets[:, 0]), abs=0.02)


def test_calibration_needs_rows_and_a_known_method():
    with pytest.raises(InputError, match="empty"):
        platt(np.zeros(0), np.zeros(0, int))
    with pytest.raises(InputError, match="one shape"):
        class_temperature(np.zeros((3, 2)), np.zeros(3, int))
    with pytest.raises(InputError, match=r"isotonic.*platt"):
        calibrate_classes(np.zeros((3, 2)), np.zeros((3, 2), int), "isotonic")


def test_reliability_of_decisions_pooled_and_of_a_class():
    scores = np.array([[0.12, 0.91], [0.18, 0.15], [0.11, 1.0]])
    targets = np.array([[0, 1], [1, 0], [0, 0]])
    low, high = reliability_curve(scores, targets, bins=10)
    assert (low.n, low.accuracy, low.confidence) == (4, 0.25, pytest.approx((0.12 + 0.18 + 0.11 + 0.15) / 4))
    assert (high.n, high.accuracy, high.confidence) == (2, 0.5, pytest.approx(0.955))
    assert low.low < 0.25 < low.high
    (only,) = reliability_curve(scores[:, 0], targets[:, 0], bins=10)
    assert (only.n, only.accuracy) == (3, pytest.approx(1 / 3))
    gap = 4 * abs(low.confidence - low.accuracy) + 2 * abs(high.confidence - high.accuracy)
    assert label_calibration_error(scores, targets, bins=10) == pytest.approx(gap / 6)


def test_calibrated_scores_have_a_small_error_and_a_straight_curve():
    scores, targets = calibrated(50_000, seed=5)
    assert label_calibration_error(scores, targets) < 0.01
    curve = reliability_curve(scores, targets)
    assert len(curve) == 15
    assert all(each.low - 0.02 <= each.confidence <= each.high + 0.02 for each in curve)
    assert np.isnan(label_calibration_error(np.zeros((0, 2)), np.zeros((0, 2), int)))
