"""The numbers of a multi-label task, on any row weights: counts, rankings and calibration of n × K decisions.

A decision is one row asked about one class. What is undefined is NaN, never silently 0:

- recall, F1 and average precision of a class without positives; ROC AUC without positives or without negatives;
  precision of a class that was never predicted;
- a class with positives that was never predicted has F1 = 0 and recall 0, for it found none of them, and no precision;
- macro means run over the classes where the number is defined, weighted means likewise with their positives as weights;
- micro numbers pool the decisions of all classes: false positives of classes without positives count there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coverslip.evaluation.metrics import BINS, SMALLEST, Ranking, defined_mean, divide, sum_by_cell
from coverslip.structures import FloatArray, IntArray, Predictions

COUNTED = ("precision", "recall", "f1")
RANKED = ("average_precision", "roc_auc")
ROW_MEANS = ("exact_match", "hamming_loss", "log_loss", "brier", "labels_true", "labels_predicted")


def counted_scores(found: FloatArray, true: FloatArray, predicted: FloatArray) -> dict[str, FloatArray]:
    """Precision, recall and F1 of counts of any shape: true positives, positives, and predicted positives.

    >>> {name: float(value) for name, value in counted_scores(np.array(0.0), np.array(3.0), np.array(0.0)).items()}
    {'precision': nan, 'recall': 0.0, 'f1': 0.0}
    """
    both = np.where(true > 0, true + predicted, 0.0)
    return {"precision": divide(found, predicted), "recall": divide(found, true), "f1": divide(2 * found, both)}


def decision_losses(targets: IntArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cross-entropy (in nats, scores clipped at 2.2e-16 from 0 and 1) and squared error of each decision.

    Args:
        targets: int64 of 0 and 1, any shape.
        scores: float64 of the same shape, in [0, 1].
    """
    right = np.where(targets == 1, scores, 1 - scores)
    return -np.log(np.clip(right, SMALLEST, None)), np.asarray((scores - targets) ** 2)


class MultilabelMeasures:
    """Every number of one set of multi-label rows, prepared once and evaluated on any row weights.

    Calling it with weights (b, n) gives {name: float64 (b,)} for the summary numbers and {"class_<name>": (b, K)} for
    precision, recall, f1, average_precision, roc_auc and calibration_error of each class. `log_loss` is the mean binary
    cross-entropy and `brier` the mean squared error of the n × K decisions, `hamming_loss` the share of wrong ones;
    `exact_match` is the share of rows without a wrong one. The calibration error (Naeini et al. 2015) puts decisions into
    15 bins of equal width of the score, and averages the distance between mean score and share of positives.
    """

    def __init__(self, predictions: Predictions, targets: IntArray) -> None:
        scores = predictions.scores
        truth, decided = targets.astype(np.bool_), predictions.predicted.astype(np.bool_)
        self.classes = truth.shape[1]
        wrong = truth != decided
        losses = [loss.mean(axis=1) for loss in decision_losses(targets, scores)]
        rows = [~wrong.any(axis=1), wrong.mean(axis=1), *losses, truth.sum(axis=1), decided.sum(axis=1)]
        self._columns = np.hstack([truth & decided, truth, decided, np.stack(rows, axis=1)]).astype(np.float64)
        self._rankings = [Ranking.of(truth[:, k], scores[:, k]) for k in range(self.classes)]
        pooled = Ranking.of(truth.ravel(), scores.ravel())
        self._pooled = replace(pooled, cell=pooled.cell.reshape(truth.shape))
        self._bin = np.minimum(scores * BINS, BINS - 1).astype(np.int64) + BINS * np.arange(self.classes)
        self._gap = scores - targets

    def __call__(self, weights: FloatArray) -> dict[str, FloatArray]:
        """All numbers for weights (b, n)."""
        total = weights.sum(axis=-1)
        sums = np.asarray(weights @ self._columns)
        found, true, predicted, rows = np.split(sums, [self.classes, 2 * self.classes, 3 * self.classes], axis=-1)
        numbers = self._counted(found, true, predicted) | self._ranked(weights) | self._calibration(weights, total)
        return numbers | dict(zip(ROW_MEANS, (rows / total[..., None]).T, strict=True))

    def _counted(self, found: FloatArray, true: FloatArray, predicted: FloatArray) -> dict[str, FloatArray]:
        per_class = counted_scores(found, true, predicted)
        pooled = counted_scores(found.sum(axis=-1), true.sum(axis=-1), predicted.sum(axis=-1))
        numbers = {f"micro_{name}": values for name, values in pooled.items()}
        numbers |= {f"macro_{name}": defined_mean(values) for name, values in per_class.items()}
        for name, values in per_class.items():
            weight = np.where(np.isnan(values), 0.0, true)
            numbers[f"weighted_{name}"] = divide((np.nan_to_num(values) * weight).sum(axis=-1), weight.sum(axis=-1))
        return numbers | {f"class_{name}": values for name, values in per_class.items()}

    def _ranked(self, weights: FloatArray) -> dict[str, FloatArray]:
        area, average = (np.stack(values, axis=-1) for values in zip(*(each.count(weights) for each in self._rankings), strict=True))
        pooled_area, pooled_average = self._pooled.count(weights)
        numbers = {"macro_roc_auc": defined_mean(area), "macro_average_precision": defined_mean(average)}
        numbers |= {"micro_roc_auc": pooled_area, "micro_average_precision": pooled_average}
        return numbers | {"class_roc_auc": area, "class_average_precision": average}

    def _calibration(self, weights: FloatArray, total: FloatArray) -> dict[str, FloatArray]:
        gaps = sum_by_cell(self._bin, BINS * self.classes, weights, self._gap).reshape(-1, self.classes, BINS)
        pooled = np.abs(gaps.sum(axis=-2)).sum(axis=-1) / (total * self.classes)
        return {"calibration_error": pooled, "class_calibration_error": np.abs(gaps).sum(axis=-1) / total[..., None]}
