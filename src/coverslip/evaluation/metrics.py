"""The numbers: pure functions of confusion matrices, of ranks and of rows.

Shapes: n rows, K classes; `...` is any number of leading axes, one entry a resample. Row weights are float64 (..., n),
how often each row counts; None counts each row once. What is undefined is NaN, never silently 0:

- recall, F1, ROC AUC and average precision of a class without images; precision of a class that was never predicted;
- a class without images is left out of the macro and weighted means; a class with images that was never predicted
  found none of them, and counts there with precision 0 and F1 = 0.

Every count is a sum of row weights over cells, one sparse product for all resamples. Plain numpy and scipy, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from coverslip.structures import BoolArray, FloatArray, IntArray, Predictions, Task

BINS = 15
"""Equal-width bins of the calibration error."""

SMALLEST = float(np.finfo(np.float64).eps)
"""Scores are clipped to at least this before the logarithm."""


def confusion_matrix(targets: IntArray, predicted: IntArray, classes: int, weights: FloatArray | None = None) -> FloatArray:
    """Weight of each (true, predicted) pair: float64 (..., K, K), true classes in rows.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    sums = sum_by_cell(targets * classes + predicted, classes**2, _row_weights(weights, len(targets)))
    return sums.reshape(*sums.shape[:-1], classes, classes)


def accuracy(confusion: FloatArray) -> FloatArray:
    """Share of rows predicted right: (...) in [0, 1]."""
    return divide(_hits(confusion).sum(axis=-1), confusion.sum(axis=(-2, -1)))


def recall(confusion: FloatArray) -> FloatArray:
    """Share of each class that was found: (..., K) in [0, 1]. Sensitivity is that of class 1, specificity of class 0."""
    return divide(_hits(confusion), confusion.sum(axis=-1))


def precision(confusion: FloatArray) -> FloatArray:
    """Share of the predictions of each class that are right: (..., K) in [0, 1]. PPV is that of class 1, NPV of class 0."""
    return divide(_hits(confusion), confusion.sum(axis=-2))


def f1(confusion: FloatArray) -> FloatArray:
    """Harmonic mean of precision and recall (van Rijsbergen 1979): (..., K) in [0, 1].

    >>> f1(np.array([[3.0, 1.0], [2.0, 0.0]])).round(3).tolist()
    [0.667, 0.0]
    """
    support = confusion.sum(axis=-1)
    both = support + confusion.sum(axis=-2)
    return divide(2 * _hits(confusion), np.where(support > 0, both, 0.0))


def macro(values: FloatArray, confusion: FloatArray) -> FloatArray:
    """Plain mean of (..., K) over the classes with images: (...). Undefined values of those count as 0."""
    return _mean(values, (confusion.sum(axis=-1) > 0).astype(np.float64))


def weighted(values: FloatArray, confusion: FloatArray) -> FloatArray:
    """Mean of (..., K) weighted by the number of images of each class: (...). Undefined values count as 0."""
    return _mean(values, confusion.sum(axis=-1))


def balanced_accuracy(confusion: FloatArray) -> FloatArray:
    """Mean recall over the classes with images (Brodersen et al. 2010): (...) in [0, 1]; 1 / K by guessing."""
    return macro(recall(confusion), confusion)


def mcc(confusion: FloatArray) -> FloatArray:
    """Matthews correlation coefficient (Matthews 1975; for K classes Gorodkin 2004): (...) in [-1, 1], 0 by guessing.

    Undefined when all rows carry one label, or all got one prediction.

    >>> mcc(np.array([[2.0, 0.0], [0.0, 3.0]])), mcc(np.array([[2.0, 0.0], [3.0, 0.0]]))
    (array(1.), array(nan))
    """
    true, predicted, total = confusion.sum(axis=-1), confusion.sum(axis=-2), confusion.sum(axis=(-2, -1))
    covariance = _hits(confusion).sum(axis=-1) * total - (true * predicted).sum(axis=-1)
    spread = (total**2 - (true**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return divide(covariance, np.sqrt(spread))


@dataclass(frozen=True)
class Ranking:
    """Rows of one class against all others, sorted by score once, counted for any weights.

    Attributes:
        cell: int64 (n,), where a row counts: between two levels, at a level and not of the class, of the class; or
            (n, m), where each row counts m times, as in the pooled decisions of a multi-label task.
        levels: number of different scores among the rows of the class.
    """

    cell: IntArray
    levels: int

    @classmethod
    def of(cls, relevant: BoolArray, scores: FloatArray) -> Ranking:
        """Sort the rows: bool (n,), and float64 (n,) where higher means more likely of the class."""
        levels = np.unique(scores[relevant])
        if not levels.size:
            return cls(np.zeros(len(scores), np.int64), 0)
        place = np.searchsorted(levels, scores)
        tied = levels[np.minimum(place, len(levels) - 1)] == scores
        offset = np.where(relevant, 2 * len(levels) + 1, np.where(tied, len(levels) + 1, 0))
        return cls((place + offset).astype(np.int64), len(levels))

    def count(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ROC AUC and average precision for weights (..., n): two arrays (...)."""
        sums = sum_by_cell(self.cell, 3 * self.levels + 1, weights)
        between, tied, found = np.split(sums, [self.levels + 1, 2 * self.levels + 1], axis=-1)
        positives, negatives = found.sum(axis=-1), between.sum(axis=-1) + tied.sum(axis=-1)
        below = np.cumsum(between[..., :-1] + tied, axis=-1) - tied
        area = divide((found * (below + tied / 2)).sum(axis=-1), positives * negatives)
        above = positives[..., None] - np.cumsum(found, axis=-1) + found
        kept = above + negatives[..., None] - below
        average = divide((found * np.divide(above, kept, out=np.zeros_like(kept), where=kept > 0)).sum(axis=-1), positives)
        return area, average


def roc_auc(relevant: BoolArray, scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Chance that a row of the class scores above one of the others, ties half (Hanley and McNeil 1982): (...) in [0, 1].

    Args:
        relevant: bool (n,), rows of the class.
        scores: float64 (n,).
        weights: (..., n).

    >>> float(roc_auc(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.4, 0.4])))
    0.625
    """
    return Ranking.of(relevant, scores).count(_row_weights(weights, len(scores)))[0]


def average_precision(relevant: BoolArray, scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean of the precisions at each found row, no interpolation (Davis and Goadrich 2006): (...) in [0, 1].

    >>> float(average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7])).round(3))
    0.833
    """
    return Ranking.of(relevant, scores).count(_row_weights(weights, len(scores)))[1]


def log_loss(targets: IntArray, scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean of -ln(score of the true class): (...) from 0; ln K by guessing. Scores (n, K) are clipped at 2.2e-16."""
    return _row_mean(_surprise(targets, scores), weights)


def brier(targets: IntArray, scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean squared error of the scores (Brier 1950): (...).

    Two classes: of the score of class 1, in [0, 1]. More classes: summed over them, in [0, 2].
    """
    return _row_mean(_squared_error(targets, scores), weights)


def calibration_error(targets: IntArray, scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017): (...) in [0, 1].

    Rows are put into 15 bins of equal width by their highest score; the distance between mean score and share of right
    answers is averaged over the bins, weighted by their rows. "Right" is the class of the highest score, whatever
    threshold decides.

    >>> float(calibration_error(np.array([0, 0, 0, 1]), np.array([[0.75, 0.25]] * 4)))
    0.0
    """
    weights = _row_weights(weights, len(targets))
    sums = sum_by_cell(_confidence_bin(scores), BINS, weights, _overconfidence(targets, scores))
    return divide(np.abs(sums).sum(axis=-1), weights.sum(axis=-1))


class Measures:
    """Every number of one set of scored rows, prepared once and evaluated on any row weights.

    Calling it with weights (b, n) gives {name: float64 (b,)} for the summary numbers and {"class_<name>": (b, K)} for
    precision, recall, f1, roc_auc and average_precision of each class. ROC AUC and average precision are those of
    class 1 when there are two classes, otherwise the mean of one class against the rest.
    """

    def __init__(self, predictions: Predictions, targets: IntArray) -> None:
        self.targets, self.predicted = targets, predictions.predicted
        self.scores, self.classes = predictions.scores, len(predictions.classes)
        self.binary = predictions.task is Task.BINARY
        self._rankings = [Ranking.of(targets == k, self.scores[:, k]) for k in range(self.classes)]
        self._rows = np.stack([_surprise(targets, self.scores), _squared_error(targets, self.scores)], axis=1)

    def __call__(self, weights: FloatArray) -> dict[str, FloatArray]:
        """All numbers for weights (b, n)."""
        confusion = confusion_matrix(self.targets, self.predicted, self.classes, weights)
        numbers = self._counted(confusion) | self._ranked(weights)
        means = weights @ self._rows / weights.sum(axis=-1, keepdims=True)
        numbers |= {"log_loss": means[..., 0], "brier": means[..., 1]}
        return numbers | {"calibration_error": calibration_error(self.targets, self.scores, weights)}

    def _counted(self, confusion: FloatArray) -> dict[str, FloatArray]:
        per_class = {"precision": precision(confusion), "recall": recall(confusion), "f1": f1(confusion)}
        numbers = {"accuracy": accuracy(confusion), "balanced_accuracy": balanced_accuracy(confusion)}
        numbers |= {f"macro_{name}": macro(values, confusion) for name, values in per_class.items()}
        numbers |= {f"weighted_{name}": weighted(values, confusion) for name, values in per_class.items()}
        numbers["mcc"] = mcc(confusion)
        return numbers | {f"class_{name}": values for name, values in per_class.items()}

    def _ranked(self, weights: FloatArray) -> dict[str, FloatArray]:
        pairs = [ranking.count(weights) for ranking in self._rankings]
        per_class = {
            name: np.stack(values, axis=-1) for name, values in zip(("roc_auc", "average_precision"), zip(*pairs, strict=True), strict=True)
        }
        numbers = {name: values[..., 1] if self.binary else defined_mean(values) for name, values in per_class.items()}
        return numbers | {f"class_{name}": values for name, values in per_class.items()}


def sum_by_cell(cell: IntArray, cells: int, weights: FloatArray, values: FloatArray | None = None) -> FloatArray:
    """Sum of weights (..., n), times values of the shape of `cell`, over the rows of each cell: float64 (..., cells).

    `cell` is int64 (n,), or (n, m) where each row counts in m cells.
    """
    n = len(cell)
    entries = np.ones(cell.size) if values is None else values.ravel()
    row_to_cell = csr_array((entries, cell.ravel(), np.arange(n + 1) * (cell.size // max(n, 1))), shape=(n, cells))
    return np.asarray(weights @ row_to_cell)


def _row_weights(weights: FloatArray | None, n: int) -> FloatArray:
    return np.ones(n) if weights is None else weights


def _row_mean(values: FloatArray, weights: FloatArray | None) -> FloatArray:
    weights = _row_weights(weights, len(values))
    return divide(np.asarray(weights @ values), weights.sum(axis=-1))


def _hits(confusion: FloatArray) -> FloatArray:
    return np.asarray(np.diagonal(confusion, axis1=-2, axis2=-1))


def divide(above: FloatArray, below: FloatArray) -> FloatArray:
    """above / below, NaN where below is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    return divide((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


def defined_mean(values: FloatArray) -> FloatArray:
    """Plain mean of (..., K) over the values that are not NaN: (...); NaN where all are."""
    return _mean(values, (~np.isnan(values)).astype(np.float64))


def _surprise(targets: IntArray, scores: FloatArray) -> FloatArray:
    return np.asarray(-np.log(np.clip(scores[np.arange(len(targets)), targets], SMALLEST, None)))


def _squared_error(targets: IntArray, scores: FloatArray) -> FloatArray:
    if scores.shape[1] == 2:
        return np.asarray((scores[:, 1] - targets) ** 2)
    return np.asarray(((scores - np.eye(scores.shape[1])[targets]) ** 2).sum(axis=1))


def _confidence_bin(scores: FloatArray, bins: int = BINS) -> IntArray:
    """Bin of the highest score of each row: int64 (n,), 1.0 in the last."""
    return np.asarray(np.minimum(scores.max(axis=1) * bins, bins - 1), dtype=np.int64)


def _overconfidence(targets: IntArray, scores: FloatArray) -> FloatArray:
    return np.asarray(scores.max(axis=1) - (scores.argmax(axis=1) == targets))
