"""What a look at the validation part notes. Plain numpy."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from coverslip.evaluation.decisions import TEMPERATURES, apply_temperature, temperature
from coverslip.evaluation.metrics import SMALLEST, accuracy, confusion_matrix, f1, log_loss, macro
from coverslip.structures import FloatArray, IntArray


def validation_numbers(scores: FloatArray, targets: IntArray, classes: int) -> dict[str, float]:
    """Loss and scores of one look.

    `validation_score`, by which weights compete, is the negative log loss at its best temperature: unlike accuracy it moves with
    every image, and unlike plain log loss it does not punish confidence that calibration mends.

    Args:
        scores: float64 (n, classes), probabilities.
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1.
        classes: number of classes.
    """
    if targets.ndim == 2:
        return _of_several(scores, targets)
    confusion = confusion_matrix(targets, scores.argmax(axis=1).astype(np.int64), classes)
    return {
        "validation_loss": float(log_loss(targets, scores)),
        "validation_accuracy": float(accuracy(confusion)),
        "validation_macro_f1": float(macro(f1(confusion), confusion)),
        "validation_score": -float(log_loss(targets, apply_temperature(scores, temperature(scores, targets)))),
    }


def _of_several(scores: FloatArray, targets: IntArray) -> dict[str, float]:
    logits = np.log(np.clip(scores, SMALLEST, None)) - np.log(np.clip(1 - scores, SMALLEST, None))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))

    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).fun
    return {"validation_loss": loss(0.0), "validation_macro_f1": _mean_f1(scores >= 0.5, targets), "validation_score": -float(best)}


def _mean_f1(decided: np.ndarray[tuple[int, int], np.dtype[np.bool_]], targets: IntArray) -> float:
    """Mean F1 of the classes that have positives."""
    right = (decided & (targets == 1)).sum(axis=0)
    total = decided.sum(axis=0) + targets.sum(axis=0)
    known = targets.any(axis=0)
    return float(np.mean(2 * right[known] / total[known])) if known.any() else float("nan")
