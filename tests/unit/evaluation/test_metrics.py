"""The numbers against torchmetrics and closed forms."""

import importlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

from coverslip.evaluation import metrics
from coverslip.structures import Predictions, Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

    peer = importlib.import_module("torchmetrics.functional.classification")


@pytest.fixture(params=[0, 1])
def scored(request):
    """400 rows of four classes; ties on purpose."""
    rng = np.random.default_rng(request.param)
    targets = rng.choice(4, 400, p=[0.55, 0.25, 0.15, 0.05])
    logits = rng.normal(size=(400, 4))
    logits[np.arange(400), targets] += 1
    scores = np.exp(logits)
    return targets, np.round(scores / scores.sum(axis=1, keepdims=True), 2 if request.param else 9)


@pytest.fixture
def binary():
    rng = np.random.default_rng(2)
    targets = rng.integers(2, size=300)
    positive = np.round(np.clip(rng.normal(0.4 + 0.25 * targets, 0.2), 0, 1), 2)
    return targets, np.stack([1 - positive, positive], axis=1), (positive >= 0.45).astype(np.int64)


def ask(name, scores, targets, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(peer, name)(torch.as_tensor(scores), torch.as_tensor(targets), **arguments).numpy()


@pytest.mark.parametrize("average", ["none", "macro", "weighted"])
@pytest.mark.parametrize(("name", "function"), [("f1_score", metrics.f1), ("recall", metrics.recall), ("precision", metrics.precision)])
def test_counted_numbers_agree(scored, name, function, average):
    targets, scores = scored
    confusion = metrics.confusion_matrix(targets, scores.argmax(axis=1), 4)
    ours = {"none": lambda v, c: v, "macro": metrics.macro, "weighted": metrics.weighted}[average](function(confusion), confusion)
    theirs = ask(f"multiclass_{name}", scores.argmax(axis=1), targets, num_classes=4, average=average)
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_confusion_accuracy_and_mcc_agree(scored):
    targets, scores = scored
    predicted = scores.argmax(axis=1)
    confusion = metrics.confusion_matrix(targets, predicted, 4)
    assert (confusion == ask("multiclass_confusion_matrix", predicted, targets, num_classes=4)).all()
    assert metrics.accuracy(confusion) == pytest.approx(ask("multiclass_accuracy", predicted, targets, num_classes=4, average="micro"))
    assert metrics.balanced_accuracy(confusion) == pytest.approx(ask("multiclass_accuracy", predicted, targets, num_classes=4), abs=1e-6)
    assert metrics.mcc(confusion) == pytest.approx(ask("multiclass_matthews_corrcoef", predicted, targets, num_classes=4), abs=1e-6)


def test_ranked_numbers_agree(scored):
    targets, scores = scored
    for name, function in (("auroc", metrics.roc_auc), ("average_precision", metrics.average_precision)):
        ours = [float(function(targets == k, scores[:, k])) for k in range(4)]
        assert ours == pytest.approx(ask(f"multiclass_{name}", scores, targets, num_classes=4, average="none"), abs=1e-6)


def test_calibration_error_agrees():
    rng = np.random.default_rng(3)
    scores = rng.dirichlet(np.ones(3), size=500)
    targets = rng.integers(3, size=500)
    theirs = ask("multiclass_calibration_error", scores, targets, num_classes=3, n_bins=15)
    assert metrics.calibration_error(targets, scores) == pytest.approx(theirs, abs=1e-6)


def test_binary_numbers_agree(binary):
    targets, scores, predicted = binary
    confusion = metrics.confusion_matrix(targets, predicted, 2)
    assert metrics.recall(confusion)[1] == pytest.approx(ask("binary_recall", predicted, targets))
    assert metrics.recall(confusion)[0] == pytest.approx(ask("binary_specificity", predicted, targets))
    assert metrics.precision(confusion)[1] == pytest.approx(ask("binary_precision", predicted, targets))
    assert metrics.precision(confusion)[0] == pytest.approx(ask("binary_precision", 1 - predicted, 1 - targets))
    assert metrics.mcc(confusion) == pytest.approx(ask("binary_matthews_corrcoef", predicted, targets), abs=1e-6)
    assert metrics.roc_auc(targets == 1, scores[:, 1]) == pytest.approx(ask("binary_auroc", scores[:, 1], targets), abs=1e-6)
    assert metrics.brier(targets, scores) == pytest.approx(np.mean([(s - t) ** 2 for s, t in zip(scores[:, 1], targets, strict=True)]))


def test_log_loss_and_brier_by_hand():
    targets, scores = np.array([0, 2]), np.array([[0.5, 0.25, 0.25], [0.0, 0.2, 0.8]])
    assert metrics.log_loss(targets, scores) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    assert metrics.brier(targets, scores) == pytest.approx(((0.25 + 0.0625 + 0.0625) + (0.04 + 0.04)) / 2)
    assert np.isfinite(metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]])))


def test_log_loss_of_guessing_is_ln_k():
    assert metrics.log_loss(np.array([0, 1, 4]), np.full((3, 5), 0.2)) == pytest.approx(np.log(5))


def test_undefined_is_nan_and_not_zero():
    """Class 1 was never predicted, class 2 has no images."""
    confusion = np.array([[6.0, 0, 1], [3, 0, 0], [0, 0, 0]])
    assert np.isnan(metrics.precision(confusion)).tolist() == [False, True, False]
    assert np.isnan(metrics.recall(confusion)).tolist() == [False, False, True]
    assert metrics.f1(confusion)[1] == 0
    assert np.isnan(metrics.f1(confusion)[2])
    assert metrics.macro(metrics.f1(confusion), confusion) == pytest.approx(2 * 6 / (7 + 9) / 2)
    assert metrics.macro(metrics.precision(confusion), confusion) == pytest.approx((6 / 9 + 0) / 2)
    assert np.isnan(metrics.mcc(np.array([[5.0, 0], [2, 0]])))
    assert np.isnan(metrics.roc_auc(np.ones(3, bool), np.arange(3.0)))
    assert np.isnan(metrics.roc_auc(np.zeros(3, bool), np.arange(3.0)))
    assert np.isnan(metrics.average_precision(np.zeros(3, bool), np.arange(3.0)))
    assert np.isnan(metrics.accuracy(np.zeros((2, 2))))


def test_perfect_and_reversed_ranks():
    relevant, scores = np.array([False, False, True, True]), np.arange(4.0)
    assert metrics.roc_auc(relevant, scores) == 1
    assert metrics.average_precision(relevant, scores) == 1
    assert metrics.roc_auc(relevant, -scores) == 0
    assert metrics.average_precision(relevant, -scores) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert metrics.roc_auc(relevant, np.ones(4)) == 0.5


def test_measures_of_many_weights_are_those_of_copied_rows(scored):
    targets, scores = scored
    predictions = Predictions(tuple(map(str, range(400))), scores, scores.argmax(axis=1), tuple("abcd"), Task.MULTICLASS, targets)
    rows = np.random.default_rng(4).integers(400, size=(3, 400))
    weights = np.stack([np.bincount(row, minlength=400) for row in rows]).astype(float)
    together = metrics.Measures(predictions, targets)(weights)
    assert len(together) == 19
    for i, row in enumerate(rows):
        copied = Predictions(predictions.images, scores[row], predictions.predicted[row], tuple("abcd"), Task.MULTICLASS, targets[row])
        alone = metrics.Measures(copied, targets[row])(np.ones((1, 400)))
        for name, values in together.items():
            assert values[i] == pytest.approx(alone[name][0]), name


def test_numbers_and_splits_import_no_torch():
    modules = "intervals, metrics, evaluate, decisions, comparison, label_errors"
    code = f"import sys; from coverslip.data import split; from coverslip.evaluation import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
