"""Before and after calibration: the numbers of the evaluation, and a gain that says which way it went."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from coverslip.evaluation.calibration import calibrate_classes, label_calibration_error
from coverslip.evaluation.calibration_gain import NUMBERS, compare_calibration


def drawn(n, seed, stretch=3.0):
    """Scores that are sure of themselves beyond their evidence, and labels."""
    random = np.random.default_rng(seed)
    odds = random.normal(-1, 1.5, (n, 3))
    targets = (random.random((n, 3)) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return 1 / (1 + np.exp(-stretch * odds)), targets


def test_the_numbers_are_those_of_other_libraries():
    before, targets = drawn(400, 0)
    found = compare_calibration(before, before**0.5, targets, resamples=100)
    assert tuple(found) == NUMBERS
    for kind, scores in (("before", before), ("after", before**0.5)):
        assert found["log_loss"][kind]["value"] == pytest.approx(log_loss(targets.ravel(), scores.ravel()))
        assert found["brier"][kind]["value"] == pytest.approx(brier_score_loss(targets.ravel(), scores.ravel()))
        assert found["calibration_error"][kind]["value"] == pytest.approx(label_calibration_error(scores.ravel(), targets.ravel()))
    for each in found.values():
        assert each["gain"]["value"] == pytest.approx(each["before"]["value"] - each["after"]["value"])


def test_a_gain_that_is_there_is_told_from_none_and_from_harm():
    before, targets = drawn(600, 1)
    fitted = calibrate_classes(*drawn(600, 2))
    helped = compare_calibration(before, fitted.apply(before), targets, resamples=200)
    assert helped["log_loss"]["gain"]["low"] > 0
    assert helped["calibration_error"]["gain"]["low"] > 0
    harmed = compare_calibration(fitted.apply(before), before, targets, resamples=200)
    assert harmed["log_loss"]["gain"]["high"] < 0
    none = compare_calibration(before, before, targets, resamples=200)
    assert none["log_loss"]["gain"]["low"] == none["log_loss"]["gain"]["high"] == 0


def test_groups_are_resampled_whole():
    before, targets = drawn(20, 3)
    before, targets = np.repeat(before, 30, axis=0), np.repeat(targets, 30, axis=0)
    groups = np.repeat(np.arange(20), 30).astype(str)
    rows = compare_calibration(before, before**0.5, targets, resamples=200)["log_loss"]["gain"]
    whole = compare_calibration(before, before**0.5, targets, groups=groups, resamples=200)["log_loss"]["gain"]
    assert whole["method"] == "bootstrap over groups"
    assert whole["high"] - whole["low"] > 3 * (rows["high"] - rows["low"])
