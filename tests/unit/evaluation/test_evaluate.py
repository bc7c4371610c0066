"""The shape and the honesty of the numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coverslip.errors import InputError
from coverslip.evaluation.evaluate import PER_CLASS, SUMMARY, evaluate, folds_summary
from coverslip.structures import Predictions, Task


def make_predictions(targets, predicted, *, classes=2, confidence=0.9, groups=None, seed=0):
    targets, predicted = np.asarray(targets), np.asarray(predicted)
    rng = np.random.default_rng(seed)
    top = confidence - 0.1 * rng.random(len(targets))
    scores = np.repeat(((1 - top) / (classes - 1))[:, None], classes, axis=1)
    scores[np.arange(len(targets)), predicted] = top
    return Predictions(
        images=tuple(f"{i}.png" for i in range(len(targets))),
        scores=scores,
        predicted=predicted,
        classes=tuple(f"class{k}" for k in range(classes)),
        task=Task.BINARY if classes == 2 else Task.MULTICLASS,
        targets=targets,
        groups=None if groups is None else np.asarray(groups),
    )


def noisy(n=200, classes=3, right=0.8, seed=0, **more):
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=n)
    predicted = np.where(rng.random(n) < right, targets, rng.integers(classes, size=n))
    return make_predictions(targets, predicted, classes=classes, seed=seed, **more)


def test_21_of_22():
    targets = np.arange(22) % 2
    predicted = targets.copy()
    predicted[0] = 1
    accuracy = evaluate(make_predictions(targets, predicted))["accuracy"]
    assert accuracy["value"] == pytest.approx(21 / 22)
    assert (round(accuracy["low"], 2), round(accuracy["high"], 3), accuracy["method"]) == (0.77, 0.999, "exact")


def test_shape_of_a_multiclass_result():
    numbers = evaluate(noisy(), resamples=200)
    assert numbers["n"] == 200
    assert list(numbers) == ["n", *SUMMARY, "per_class", "confusion"]
    assert sum(map(sum, numbers["confusion"])) == 200
    assert all(isinstance(cell, int) for row in numbers["confusion"] for cell in row)
    for name in SUMMARY:
        assert set(numbers[name]) == {"value", "low", "high", "method"}
        assert numbers[name]["low"] <= numbers[name]["value"] <= numbers[name]["high"]
    for per_class in numbers["per_class"].values():
        assert list(per_class) == ["support", *PER_CLASS]
    json.dumps(numbers, allow_nan=False)


def test_binary_names_are_those_of_the_positive_class():
    numbers = evaluate(noisy(classes=2), resamples=200)
    positive, negative = numbers["per_class"]["class1"], numbers["per_class"]["class0"]
    assert (numbers["positive"], numbers["threshold"]) == ("class1", 0.5)
    assert numbers["sensitivity"] == positive["recall"]
    assert numbers["specificity"] == negative["recall"]
    assert numbers["ppv"] == positive["precision"]
    assert numbers["npv"] == negative["precision"]
    assert numbers["roc_auc"] == positive["roc_auc"]
    assert numbers["sensitivity"]["method"] == "exact"


def test_the_threshold_is_reported_only_when_known():
    predictions = noisy(classes=2)
    moved = replace(predictions, predicted=(predictions.scores[:, 1] >= 0.95).astype(np.int64))
    assert evaluate(moved, resamples=100)["threshold"] is None
    assert evaluate(moved, resamples=100, threshold=0.95)["threshold"] == 0.95


def test_groups_are_listed_worst_first_and_resampled_whole():
    groups = [f"plate{i % 20}" for i in range(200)]
    numbers = evaluate(noisy(groups=groups), resamples=300)
    values = [group["accuracy"]["value"] for group in numbers["groups"]]
    assert len(values) == 20
    assert values == sorted(values)
    assert sum(group["n"] for group in numbers["groups"]) == 200
    assert numbers["worst_group"] == numbers["groups"][0]
    assert numbers["accuracy"]["method"] == "bootstrap over groups"
    assert numbers["per_class"]["class0"]["recall"]["method"] == "bootstrap over groups"


def test_rows_that_repeat_their_group_are_no_more_certain_than_groups():
    """Ten patients with twenty equal rows each: the interval is that of ten, not of two hundred."""
    right = np.repeat([True] * 7 + [False] * 3, 20)
    targets = np.tile([0, 1], 100)
    predicted = np.where(right, targets, 1 - targets)
    alone = evaluate(make_predictions(targets, predicted), resamples=300)["accuracy"]
    grouped = evaluate(make_predictions(targets, predicted, groups=np.repeat(np.arange(10), 20).astype(str)), resamples=300)["accuracy"]
    assert grouped["high"] - grouped["low"] > 3 * (alone["high"] - alone["low"])


def test_all_right_is_not_certain():
    targets = np.arange(22) % 2
    numbers = evaluate(make_predictions(targets, targets), resamples=200)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "mcc", "roc_auc", "average_precision"):
        assert numbers[name]["value"] == pytest.approx(1)
        assert numbers[name]["low"] < 0.9, name
        assert numbers[name]["method"].startswith("exact"), name
    assert numbers["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 22))
    assert numbers["roc_auc"]["low"] == pytest.approx(0.025 ** (1 / 11))
    per_class = numbers["per_class"]["class1"]
    assert all(per_class[name]["low"] < 0.9 for name in PER_CLASS)


def test_all_right_in_groups_counts_groups():
    targets = np.tile([0, 1], 50)
    numbers = evaluate(make_predictions(targets, targets, groups=np.repeat(np.arange(5), 20).astype(str)), resamples=200)
    assert numbers["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 5))
    assert numbers["accuracy"]["method"] == "exact over groups"


def test_one_group_says_that_rows_take_its_place():
    targets = np.tile([0, 1], 10)
    predicted = targets.copy()
    predicted[:4] = 1 - predicted[:4]
    numbers = evaluate(make_predictions(targets, predicted, groups=["only"] * 20), resamples=100)
    assert numbers["accuracy"]["low"] < 0.8 < numbers["accuracy"]["high"]
    assert numbers["accuracy"]["method"] == "exact over rows, one group only"
    assert numbers["log_loss"]["method"] == "bootstrap over rows, one group only"
    assert numbers["log_loss"]["low"] < numbers["log_loss"]["high"]


def test_what_is_undefined_is_none():
    numbers = evaluate(make_predictions([0, 0, 0, 0], [0, 0, 0, 1]), resamples=100)
    assert numbers["roc_auc"] == {"value": None, "low": None, "high": None, "method": "undefined"}
    assert numbers["sensitivity"]["value"] is None
    assert numbers["per_class"]["class1"]["support"] == 0
    assert numbers["specificity"]["value"] == 0.75


def test_resamples_without_a_class_are_said():
    targets = np.array([1] + [0] * 19)
    numbers = evaluate(make_predictions(targets, np.array([1, 1] + [0] * 18)), resamples=500)
    assert "of resamples undefined" in numbers["per_class"]["class1"]["roc_auc"]["method"]


def test_calibrated_scores_have_an_interval_down_to_zero():
    rng = np.random.default_rng(0)
    positive = rng.random(400)
    targets = (rng.random(400) < positive).astype(np.int64)
    scores = np.stack([1 - positive, positive], axis=1)
    predictions = Predictions(tuple(map(str, range(400))), scores, (positive >= 0.5).astype(np.int64), ("no", "yes"), Task.BINARY, targets)
    error = evaluate(predictions, resamples=300)["calibration_error"]
    assert error["low"] < 0.02 < error["value"] <= error["high"]


def test_the_same_seed_gives_the_same_numbers():
    assert evaluate(noisy(), resamples=100) == evaluate(noisy(), resamples=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, "no labels"),
        ({"task": Task.MULTILABEL}, "multi-label"),
        ({"images": (), "targets": np.array([], int)}, "no rows"),
    ],
)
def test_what_cannot_be_evaluated(change, message):
    with pytest.raises(InputError, match=message):
        evaluate(replace(noisy(), **change))


def folds_of(predictions, assignment):
    parts = [np.flatnonzero(assignment == i) for i in range(assignment.max() + 1)]
    return [
        Predictions(
            tuple(predictions.images[i] for i in rows),
            predictions.scores[rows],
            predictions.predicted[rows],
            predictions.classes,
            predictions.task,
            predictions.targets[rows],
            None if predictions.groups is None else predictions.groups[rows],
        )
        for rows in parts
    ]


def test_folds_pool_the_rows_and_average_the_repeats():
    rng = np.random.default_rng(0)
    first, second = noisy(right=0.9), noisy(right=0.9)
    second = replace(second, predicted=np.where(rng.random(200) < 0.2, 0, second.predicted))
    folds = [folds_of(each, rng.integers(5, size=200)) for each in (first, second)]
    numbers = folds_summary(folds, resamples=300)
    expected = [np.mean(each.predicted == each.targets) for each in (first, second)]
    assert numbers["n"] == 200
    assert numbers["accuracy"]["value"] == pytest.approx(np.mean(expected))
    assert numbers["accuracy"]["low"] < np.mean(expected) < numbers["accuracy"]["high"]
    assert numbers["accuracy"]["method"] == "bootstrap"
    assert [(each["repeat"], each["fold"]) for each in numbers["each"]] == [(i, j) for i in range(2) for j in range(5)]
    assert sum(each["n"] for each in numbers["each"]) == 400
    assert all(set(SUMMARY) < set(each) for each in numbers["each"])


def test_repeats_do_not_narrow_the_interval():
    predictions = noisy(right=0.7)
    folds = folds_of(predictions, np.arange(200) % 5)
    once, ten_times = folds_summary([folds], resamples=400), folds_summary([folds] * 10, resamples=400)
    assert ten_times["macro_f1"]["low"] == pytest.approx(once["macro_f1"]["low"])
    width = ten_times["accuracy"]["high"] - ten_times["accuracy"]["low"]
    assert width == pytest.approx(once["accuracy"]["high"] - once["accuracy"]["low"], rel=0.2)


def test_folds_that_are_all_right_have_a_bound():
    targets = np.arange(30) % 3
    folds = folds_of(make_predictions(targets, targets, classes=3), np.arange(30) % 5)
    numbers = folds_summary([folds, folds], resamples=100)
    assert numbers["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 30))


def test_folds_keep_groups_and_refuse_different_rows():
    predictions = noisy(groups=[f"g{i % 10}" for i in range(200)])
    folds = folds_of(predictions, np.arange(200) % 10)
    assert folds_summary([folds], resamples=100)["accuracy"]["method"] == "bootstrap over groups"
    with pytest.raises(InputError, match="different images"):
        folds_summary([folds, folds[:-1]], resamples=100)


def draw_rows(rng, n):
    """Rows of three classes whose scores come from one fixed law."""
    targets = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), targets] += 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(tuple(map(str, range(n))), scores, scores.argmax(axis=1), ("a", "b", "c"), Task.MULTICLASS, targets)


def test_intervals_of_a_hundred_rows_hold_the_truth():
    rng = np.random.default_rng(0)
    truth = evaluate(draw_rows(rng, 100_000), resamples=100)
    samples = [evaluate(draw_rows(rng, 100), resamples=200, seed=seed) for seed in range(150)]
    for name, band in (("accuracy", (0.92, 1)), ("macro_f1", (0.88, 0.99)), ("roc_auc", (0.85, 0.99)), ("log_loss", (0.86, 0.99))):
        held = np.mean([sample[name]["low"] <= truth[name]["value"] <= sample[name]["high"] for sample in samples])
        assert band[0] <= held <= band[1], (name, held)
