"""Multi-label numbers: against scikit-learn, closed forms, and what is said to be undefined."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as peer

from coverslip.errors import InputError
from coverslip.evaluation.comparison import paired_bootstrap
from coverslip.evaluation.evaluate import evaluate, folds_summary, plain_values
from coverslip.evaluation.label_errors import suspected_label_errors
from coverslip.evaluation.multilabel import MULTILABEL_PER_CLASS, MULTILABEL_SUMMARY, group_scores
from coverslip.structures import Predictions, Task


def labelled(targets, scores, predicted=None, groups=None):
    targets, scores = np.asarray(targets, dtype=np.int64), np.asarray(scores, dtype=float)
    return Predictions(
        images=tuple(f"{i}.png" for i in range(len(targets))),
        scores=scores,
        predicted=(scores >= 0.5).astype(np.int64) if predicted is None else np.asarray(predicted, dtype=np.int64),
        classes=tuple(f"c{k}" for k in range(targets.shape[1])),
        task=Task.MULTILABEL,
        targets=targets,
        groups=None if groups is None else np.asarray(groups),
    )


def noisy(n=300, classes=5, seed=0, digits=2, groups=None):
    """Classes of falling frequency with overlapping scores, rounded so that some are equal."""
    rng = np.random.default_rng(seed)
    share = 0.5 * 0.6 ** np.arange(classes)
    targets = (rng.random((n, classes)) < share).astype(np.int64)
    scores = np.round(1 / (1 + np.exp(-(rng.normal(size=(n, classes)) + 2.5 * targets - 1.2))), digits)
    return labelled(targets, scores, groups=groups)


@pytest.mark.parametrize("seed", range(5))
def test_every_number_is_that_of_scikit_learn(seed):
    some = noisy(seed=seed)
    ours, truth, decided, scores = plain_values(some), some.targets, some.predicted, some.scores
    compared = 0
    for mean in ("macro", "micro", "weighted"):
        expected = peer.precision_recall_fscore_support(truth, decided, average=mean, zero_division=np.nan)
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert ours[f"{mean}_{name}"] == pytest.approx(value)
            compared += 1
    for mean in ("macro", "micro"):
        assert ours[f"{mean}_average_precision"] == pytest.approx(peer.average_precision_score(truth, scores, average=mean))
        assert ours[f"{mean}_roc_auc"] == pytest.approx(peer.roc_auc_score(truth, scores, average=mean))
        compared += 2
    assert ours["exact_match"] == pytest.approx(peer.accuracy_score(truth, decided))
    assert ours["hamming_loss"] == pytest.approx(peer.hamming_loss(truth, decided))
    assert ours["brier"] == pytest.approx(np.mean([peer.brier_score_loss(t, s) for t, s in zip(truth.T, scores.T, strict=True)]))
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    assert ours["log_loss"] == pytest.approx(np.mean([peer.log_loss(t, s) for t, s in zip(truth.T, clipped.T, strict=True)]), rel=1e-6)
    assert compared + 4 + len(["calibration_error"]) == len(MULTILABEL_SUMMARY) == len(ours)


def test_the_numbers_of_each_class_are_those_of_a_binary_task():
    some = noisy(seed=3)
    numbers = evaluate(some, resamples=100)["per_class"]
    matrices = peer.multilabel_confusion_matrix(some.targets, some.predicted)
    assert len(numbers) == 5
    for k, entry in enumerate(numbers.values()):
        truth, scores = some.targets[:, k], some.scores[:, k]
        expected = peer.precision_recall_fscore_support(truth, some.predicted[:, k], average="binary")
        assert [entry[name]["value"] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
        assert entry["average_precision"]["value"] == pytest.approx(peer.average_precision_score(truth, scores))
        assert entry["roc_auc"]["value"] == pytest.approx(peer.roc_auc_score(truth, scores))
        assert entry["matrix"] == matrices[k].tolist()
        assert (entry["support"], entry["threshold"]) == (truth.sum(), 0.5)


def test_calibration_error_by_hand():
    """Too high in one class and too low in the other in the same bin cancel where decisions are pooled."""
    some = labelled([[1, 1], [0, 1], [0, 1], [0, 1]], [[0.35, 0.8], [0.35, 0.8], [0.34, 0.35], [0.36, 0.8]])
    numbers = evaluate(some, resamples=100)
    assert numbers["per_class"]["c0"]["calibration_error"]["value"] == pytest.approx((1.4 - 1) / 4)
    assert numbers["per_class"]["c1"]["calibration_error"]["value"] == pytest.approx((3 * 0.2 + 0.65) / 4)
    assert numbers["calibration_error"]["value"] == pytest.approx((abs(0.4 - 0.65) + 3 * 0.2) / 8)


def test_shape_of_a_multilabel_result():
    numbers = evaluate(noisy(), resamples=200)
    assert list(numbers) == ["n", *MULTILABEL_SUMMARY, "per_class", "labels_per_image"]
    for name in MULTILABEL_SUMMARY:
        assert set(numbers[name]) - {"classes_defined"} == {"value", "low", "high", "method"}
        assert ("classes_defined" in numbers[name]) == name.startswith("macro_")
        assert numbers[name]["low"] < numbers[name]["value"] < numbers[name]["high"], name
    for entry in numbers["per_class"].values():
        assert list(entry) == ["support", *MULTILABEL_PER_CLASS, "threshold", "matrix"]
        assert (np.array(entry["matrix"]).sum(), np.array(entry["matrix"])[1].sum()) == (300, entry["support"])
    assert numbers["labels_per_image"]["true"]["value"] == pytest.approx(noisy().targets.sum(axis=1).mean())
    assert numbers["labels_per_image"]["predicted"]["value"] == pytest.approx(noisy().predicted.sum(axis=1).mean())
    json.dumps(numbers, allow_nan=False)


def test_a_share_of_rows_has_the_exact_interval_and_only_that():
    numbers = evaluate(noisy(), resamples=100)
    exact = {name for name in MULTILABEL_SUMMARY if numbers[name]["method"] == "exact"}
    assert exact == {"exact_match"}
    assert {name for name, entry in numbers["per_class"]["c0"].items() if isinstance(entry, dict) and entry["method"] == "exact"} == {
        "precision",
        "recall",
    }


def test_resamples_that_all_agree_give_no_interval_where_there_is_no_exact_one():
    found = labelled([[1, 0], [0, 1]] * 4, [[0.5, 0.5]] * 8)
    area = evaluate(found, resamples=100)["macro_roc_auc"]
    assert (area["value"], area["low"], area["high"]) == (0.5, None, None)
    assert area["method"].startswith("no interval: bootstrap")
    assert area["method"].endswith("all resamples equal")


def test_thresholds_are_reported_only_when_known():
    some = noisy()
    moved = replace(some, predicted=(some.scores >= 0.3).astype(np.int64))
    assert {entry["threshold"] for entry in evaluate(moved, resamples=100)["per_class"].values()} == {None}
    assert {entry["threshold"] for entry in evaluate(moved, resamples=100, threshold=0.3)["per_class"].values()} == {0.3}
    given = np.linspace(0.1, 0.5, 5)
    assert [entry["threshold"] for entry in evaluate(moved, resamples=100, threshold=given)["per_class"].values()] == given.tolist()


def test_what_is_undefined_is_none_and_says_why():
    """a: no positives, predicted once. b: positives, never predicted. c: only positives. d: neither positives nor predictions."""
    targets = [[0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    scores = [[0.9, 0.2, 0.9, 0.1], [0.1, 0.1, 0.8, 0.1], [0.1, 0.4, 0.3, 0.1], [0.1, 0.2, 0.7, 0.1]]
    numbers = evaluate(labelled(targets, scores), resamples=100)
    a, b, c, d = numbers["per_class"].values()
    for entry in (a, d):
        for name in ("recall", "f1", "average_precision", "roc_auc"):
            assert entry[name] == {"value": None, "low": None, "high": None, "method": "undefined: no positives"}
    assert (a["precision"]["value"], d["precision"]["method"]) == (0, "undefined: never predicted")
    assert (b["precision"]["method"], b["recall"]["value"], b["f1"]["value"]) == ("undefined: never predicted", 0, 0)
    assert (c["roc_auc"]["method"], c["average_precision"]["value"]) == ("undefined: no negatives", 1)
    assert (numbers["macro_f1"]["value"], numbers["macro_f1"]["classes_defined"]) == (pytest.approx((0 + 6 / 7) / 2), 2)
    assert (numbers["macro_precision"]["value"], numbers["macro_precision"]["classes_defined"]) == (0.5, 2)
    assert (numbers["macro_roc_auc"]["value"], numbers["macro_roc_auc"]["classes_defined"]) == (0.875, 1)
    assert numbers["micro_f1"]["value"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 3))
    assert numbers["weighted_f1"]["value"] == pytest.approx((2 * 0 + 4 * 6 / 7) / 6)
    json.dumps(numbers, allow_nan=False)


def test_nothing_at_all_is_undefined():
    numbers = evaluate(labelled(np.zeros((3, 2)), np.full((3, 2), 0.1)), resamples=100)
    undefined = {name for name in MULTILABEL_SUMMARY if numbers[name]["value"] is None}
    assert undefined == {name for name in MULTILABEL_SUMMARY if name.startswith(("macro_", "micro_", "weighted_"))}
    assert all(numbers[name]["method"] == "undefined" for name in undefined)
    assert numbers["macro_f1"]["classes_defined"] == 0
    assert numbers["exact_match"]["value"] == 1


def test_all_right_is_not_certain():
    """Forty rows of class 0, the rarest class in five of them."""
    targets = np.eye(4, dtype=np.int64)[np.repeat([1, 2, 3], [18, 17, 5])] | np.eye(4, dtype=np.int64)[0]
    numbers = evaluate(labelled(targets, 0.05 + 0.9 * targets), resamples=100)
    tail = 0.025
    assert numbers["exact_match"]["low"] == pytest.approx(tail ** (1 / 40))
    assert numbers["micro_f1"]["low"] == pytest.approx(tail ** (1 / 40))
    assert numbers["macro_f1"]["low"] == pytest.approx(1 - (1 - tail ** (1 / 5)) / 4)
    assert (numbers["hamming_loss"]["low"], numbers["hamming_loss"]["high"]) == (0, pytest.approx(1 - tail ** (1 / 40)))
    assert numbers["macro_roc_auc"]["low"] == pytest.approx(tail ** (1 / 5))
    bounded = [name for name in MULTILABEL_SUMMARY if name.startswith(("macro_", "micro_", "weighted_"))]
    assert len(bounded) == 13
    for name in bounded:
        assert (numbers[name]["value"], numbers[name]["high"]) == (1, 1)
        assert 0.3 < numbers[name]["low"] < 0.95, name
        assert numbers[name]["method"].startswith("exact"), name


def test_nothing_found_is_not_certain_either():
    targets = np.tile([[1, 0], [0, 1]], (10, 1))
    numbers = evaluate(labelled(targets, np.full((20, 2), 0.2)), resamples=100)
    upper = 1 - 0.025 ** (1 / 20)
    assert (numbers["micro_recall"]["low"], numbers["micro_recall"]["high"]) == (0, pytest.approx(upper))
    assert numbers["micro_f1"]["high"] == pytest.approx(2 * upper / (1 + upper))
    assert numbers["macro_f1"]["high"] >= numbers["micro_f1"]["high"]
    assert numbers["micro_precision"]["value"] is None


def test_groups_are_listed_worst_first_and_resampled_whole():
    groups = [f"plate{i % 12}" for i in range(300)]
    numbers = evaluate(noisy(groups=groups), resamples=200)
    values = [group["micro_f1"]["value"] for group in numbers["groups"]]
    assert (len(values), values) == (12, sorted(values))
    assert sum(group["n"] for group in numbers["groups"]) == 300
    assert numbers["worst_group"] == numbers["groups"][0]
    some = noisy()
    worst = [i for i in range(300) if groups[i] == numbers["worst_group"]["group"]]
    assert values[0] == pytest.approx(peer.f1_score(some.targets[worst], some.predicted[worst], average="micro"))
    for name in ("macro_f1", "exact_match", "log_loss", "micro_average_precision"):
        assert numbers[name]["method"] == "bootstrap over groups"


def test_rows_that_repeat_their_group_are_no_more_certain_than_groups():
    some = noisy(n=15, seed=2)
    rows = np.repeat(np.arange(15), 20)
    copies = labelled(some.targets[rows], some.scores[rows])
    alone, grouped = (evaluate(each, resamples=300)["micro_f1"] for each in (copies, replace(copies, groups=rows.astype(str))))
    assert grouped["high"] - grouped["low"] > 3 * (alone["high"] - alone["low"])


def test_a_group_without_positives_comes_last():
    truth = np.array([[False, False], [True, False], [True, True]])
    decided = np.array([[True, False], [True, True], [False, False]])
    worst, better, undefined = group_scores(np.array(["none", "some", "lost"]), truth, decided)
    assert [entry["group"] for entry in (worst, better, undefined)] == ["lost", "some", "none"]
    assert (worst["micro_f1"]["value"], better["micro_f1"]["value"]) == (0, pytest.approx(2 / 3))
    assert (undefined["micro_f1"]["value"], undefined["micro_f1"]["method"]) == (None, "undefined: no positives")
    assert undefined["exact_match"]["value"] == 0


def take(some, rows):
    return replace(
        some,
        images=tuple(some.images[i] for i in rows),
        scores=some.scores[rows],
        predicted=some.predicted[rows],
        targets=some.targets[rows],
    )


def test_folds_pool_the_rows_and_average_the_repeats():
    rng = np.random.default_rng(0)
    first, second = noisy(seed=1), noisy(seed=1)
    second = replace(second, predicted=np.where(rng.random((300, 5)) < 0.2, 0, second.predicted))
    parts = [rng.permutation(300).reshape(5, 60) for _ in range(2)]
    folds = [[take(each, rows) for rows in part] for each, part in zip((first, second), parts, strict=True)]
    numbers = folds_summary(folds, resamples=200)
    expected = np.mean([peer.f1_score(first.targets, each.predicted, average="macro") for each in (first, second)])
    assert numbers["macro_f1"]["value"] == pytest.approx(expected)
    assert numbers["macro_f1"]["low"] < expected < numbers["macro_f1"]["high"]
    assert numbers["macro_f1"]["classes_defined"] == 5
    assert (numbers["n"], len(numbers["each"]), numbers["exact_match"]["method"]) == (300, 10, "bootstrap")
    assert all(set(MULTILABEL_SUMMARY) < set(each) for each in numbers["each"])
    assert numbers["per_class"] == evaluate(take(first, np.concatenate(parts[0])), resamples=200)["per_class"]


def test_paired_differences_of_two_models():
    some = noisy(seed=4)
    worse = replace(some, predicted=np.where(np.arange(300)[:, None] < 30, 0, some.predicted))
    number = paired_bootstrap(some, worse, resamples=300)["micro_f1"]
    assert number.value == pytest.approx(plain_values(some)["micro_f1"] - plain_values(worse)["micro_f1"])
    assert 0 < number.low < number.high
    assert all(abs(same.value) == 0 for same in paired_bootstrap(some, some, resamples=100).values())


def test_what_cannot_be_evaluated():
    some = noisy()
    for change, message in (
        ({"targets": some.targets[:, 0]}, "shapes"),
        ({"predicted": some.predicted[:, :3]}, "shapes"),
        ({"targets": None}, "no labels"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(replace(some, **change))
    with pytest.raises(InputError, match="multi-label"):
        suspected_label_errors(some)


def test_intervals_hold_the_truth():
    truth = plain_values(noisy(n=100_000, seed=99, digits=6))
    samples = [evaluate(noisy(n=150, seed=seed, digits=6), resamples=200, seed=seed) for seed in range(120)]
    for name in ("macro_f1", "micro_f1", "exact_match", "macro_average_precision", "micro_roc_auc", "log_loss", "hamming_loss"):
        held = np.mean([sample[name]["low"] <= truth[name] <= sample[name]["high"] for sample in samples])
        assert 0.86 <= held <= 1, (name, held)


def test_a_whole_validation_part_takes_seconds():
    """6,000 rows, 28 classes, 1,000 resamples: about a second of one core; the bound leaves room for a slow machine."""
    some = noisy(n=6000, classes=28, digits=6)
    before = time.process_time()
    evaluate(some)
    assert time.process_time() - before < 15
