"""Looks at the validation part: how often, and what they note. Plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coverslip.evaluation.calibration import apply_platt, class_temperature
from coverslip.evaluation.decisions import apply_temperature, temperature
from coverslip.evaluation.metrics import accuracy, confusion_matrix, f1, log_loss, macro
from coverslip.evaluation.multilabel_metrics import counted_scores, decision_losses
from coverslip.structures import FloatArray, IntArray


@dataclass(frozen=True)
class Looks:
    """Looks at the validation part, so many in all and evenly spaced, in place of one an epoch.

    Attributes:
        number: how many.
        told: after each with the steps done, the steps in all, and the row of the history; ends the fit by an exception.
    """

    number: int
    told: Callable[[int, int, dict[str, Any]], None]


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
    softened = apply_platt(scores, 1 / class_temperature(scores.ravel(), targets.ravel()), 0.0)
    found, known = ((scores >= 0.5) & (targets == 1)).sum(axis=0), targets.any(axis=0)
    f1 = counted_scores(found.astype(float), targets.sum(axis=0).astype(float), (scores >= 0.5).sum(axis=0).astype(float))["f1"]
    return {
        "validation_loss": float(decision_losses(targets, scores)[0].mean()),
        "validation_macro_f1": float(f1[known].mean()) if known.any() else float("nan"),
        "validation_score": -float(decision_losses(targets, softened)[0].mean()),
    }
