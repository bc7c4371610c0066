"""From scores to decisions: threshold, calibration, reliability. Fitted on the validation part, never on the test part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from coverslip.errors import InputError
from coverslip.evaluation.intervals import Number, exact, wilson_interval
from coverslip.evaluation.metrics import BINS, SMALLEST
from coverslip.evaluation.thresholds import decide_multilabel
from coverslip.structures import FloatArray, IntArray, Task

TEMPERATURES = (0.1, 10.0)
"""Range in which a temperature is looked for; a part without a mistake would ask for 0."""


def decide(scores: FloatArray, task: Task, threshold: float | FloatArray = 0.5, *, at_least_one: bool = False) -> IntArray:
    """Decisions from scores (n, K).

    Binary: int64 (n,), 1 where the score of class 1 is at least the threshold. Multiclass: the class of the highest
    score, the first among equals. Multilabel: int64 (n, K), 1 where a score is at least the threshold, one for all or
    float64 (K,); with `at_least_one` no row stays without a label (see `decide_multilabel`).

    >>> decide(np.array([[0.7, 0.3], [0.4, 0.6]]), Task.BINARY, threshold=0.3).tolist()
    [1, 1]
    """
    if task is Task.MULTICLASS:
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    if task is Task.MULTILABEL:
        return decide_multilabel(scores, threshold, at_least_one)
    return np.asarray(scores[:, 1] >= threshold, dtype=np.int64)


def temperature(scores: FloatArray, targets: IntArray) -> float:
    """The temperature in [0.1, 10] with the lowest log loss (Guo et al. 2017); 1 changes nothing, above 1 softens.

    Args:
        scores: float64 (n, K), probabilities.
        targets: int64 (n,).

    Raises:
        InputError: no rows.
    """
    if not len(targets):
        raise InputError(
            "calibration needs rows with labels; the validation part is empty: raise split.validation or say decision.calibrate=false"
        )
    logits = np.log(np.clip(scores, SMALLEST, None))
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(_log_sum_exp(scaled) - scaled[rows, targets]))

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x))


def apply_temperature(scores: FloatArray, temperature: float) -> FloatArray:
    """Probabilities (n, K) at another temperature: softmax(ln(score) / temperature). The order of classes stays.

    >>> apply_temperature(np.array([[0.9, 0.1]]), 2.0).round(2).tolist()
    [[0.75, 0.25]]
    """
    scaled = np.log(np.clip(scores, SMALLEST, None)) / temperature
    return np.asarray(np.exp(scaled - _log_sum_exp(scaled)[:, None]))


@dataclass(frozen=True)
class SensitivityThreshold:
    """A threshold chosen for a required sensitivity.

    Attributes:
        threshold: positive from this score on, in [0, 1].
        sensitivity: share of positives found there, on the rows it was chosen on, with its exact interval.
        specificity: share of negatives left alone there, likewise.
    """

    threshold: float
    sensitivity: Number
    specificity: Number


def threshold_for_sensitivity(scores: FloatArray, targets: IntArray, sensitivity: float, level: float = 0.95) -> SensitivityThreshold:
    """The largest threshold that finds at least the required share of positives.

    Args:
        scores: float64 (n, 2).
        targets: int64 (n,) of 0 and 1.
        sensitivity: required share, in (0, 1].
        level: confidence level of the intervals.

    Raises:
        InputError: no positives.

    >>> scores = np.array([0.9, 0.8, 0.3, 0.4])
    >>> threshold_for_sensitivity(np.stack([1 - scores, scores], axis=1), np.array([1, 1, 1, 0]), 0.6).threshold
    0.8
    """
    positive = np.sort(scores[targets == 1, 1])[::-1]
    if not positive.size:
        raise InputError("a threshold for a sensitivity needs positive rows; the validation part has none: raise split.validation")
    needed = max(1, int(np.ceil(sensitivity * positive.size - 1e-9)))
    threshold = float(positive[needed - 1])
    negative = scores[targets == 0, 1]
    return SensitivityThreshold(
        threshold,
        exact(int((positive >= threshold).sum()), positive.size, level),
        exact(int((negative < threshold).sum()), negative.size, level),
    )


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability curve: the mean score, and the share right (or positive) with its Wilson interval."""

    confidence: float
    accuracy: float
    low: float
    high: float
    n: int


def reliability_curve(scores: FloatArray, targets: IntArray, bins: int = BINS, level: float = 0.95) -> list[ReliabilityBin]:
    """Score against what came true, in bins of equal width of the score; empty bins are left out.

    One label an image: the highest score of a row, and the share of rows where its class is right. Multi-label, where
    scores and targets have one shape: the score of a decision, and the share of positives; all classes pooled for (n, K),
    one class for its column (n,). The intervals take pooled decisions for independent.

    Args:
        scores: float64 (n, K) or (n,), probabilities.
        targets: int64 (n,) class indices, or 0 and 1 in the shape of the scores.
        bins: number of bins over [0, 1].
        level: confidence level.
    """
    single = scores.ndim > targets.ndim
    confidence = scores.max(axis=1) if single else scores.ravel()
    true = scores.argmax(axis=1) == targets if single else targets.ravel()
    member = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(member, minlength=bins)
    right = np.bincount(member, weights=true, minlength=bins)
    sums = np.bincount(member, weights=confidence, minlength=bins)
    low, high = wilson_interval(right, counts, level)
    return [
        ReliabilityBin(float(sums[i] / counts[i]), float(right[i] / counts[i]), float(low[i]), float(high[i]), int(counts[i]))
        for i in np.flatnonzero(counts)
    ]


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
