"""Points of curves from scores: ROC, precision and recall. Plain numpy."""

from __future__ import annotations

import numpy as np

from coverslip.structures import BoolArray, FloatArray

MOST_POINTS = 400
"""Points that a curve is drawn with at most; a page does not show more."""


def roc_points(truth: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """False positive rate and true positive rate, one point a distinct score, from (0, 0) to (1, 1).

    None when one of the two outcomes is missing.

    >>> roc_points(np.array([False, True, True]), np.array([0.1, 0.8, 0.9]))
    (array([0., 0., 0., 1.]), array([0. , 0.5, 1. , 1. ]))
    """
    hits, alarms = _cumulated(truth, scores)
    if not truth.any() or truth.all():
        return None
    return thinned(np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1]))


def precision_recall_points(truth: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Recall and precision, one point a distinct score, from recall 0 until all positives are found; None without positives.

    >>> precision_recall_points(np.array([False, True]), np.array([0.9, 0.8]))
    (array([0., 0., 1.]), array([0. , 0. , 0.5]))
    """
    if not truth.any():
        return None
    hits, alarms = _cumulated(truth, scores)
    needed = int(np.argmax(hits == hits[-1])) + 1
    hits, alarms = hits[:needed], alarms[:needed]
    precision = hits / (hits + alarms)
    return thinned(np.append(0.0, hits / hits[-1]), np.append(precision[0], precision))


def _cumulated(truth: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """True and false positives when everything from a score upwards is called positive, for each distinct score."""
    order = np.argsort(-scores, kind="stable")
    ranked, outcome = scores[order], truth[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return np.cumsum(outcome)[last], np.cumsum(1 - outcome)[last]


def thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At most `MOST_POINTS` points of a curve, the first and the last among them."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(np.int64))
    return x[keep], y[keep]


def thinned_to_peak(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """As `thinned`, with the highest point, the first among equals, in any case."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep = np.unique([*np.linspace(0, len(x) - 1, MOST_POINTS - 1).round().astype(np.int64), int(np.argmax(y))])
    return x[keep], y[keep]
