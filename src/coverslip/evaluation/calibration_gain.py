"""What calibration did for scores of several labels: log loss, Brier score and calibration error before it and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from coverslip.evaluation.intervals import mirrored, percentile, resample
from coverslip.evaluation.metrics import BINS, sum_by_cell
from coverslip.evaluation.multilabel_metrics import decision_losses
from coverslip.structures import FloatArray, IntArray, StrArray

NUMBERS = ("log_loss", "brier", "calibration_error")
"""What is compared, as in `MultilabelMeasures`; lower is better."""


def compare_calibration(
    before: FloatArray,
    after: FloatArray,
    targets: IntArray,
    *,
    groups: StrArray | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Numbers of the scores as the network gave them and as calibrated, and the gain on the same resampled rows.

    Args:
        before: float64 (n, K) in [0, 1], at least one row.
        after: float64 (n, K), calibrated.
        targets: int64 (n, K) of 0 and 1.
        groups: str (n,), resampled whole.
        level: confidence level.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        For each of `NUMBERS`: `before`, `after` and `gain` (before - after), each {value, low, high, method}. Where the interval
        of the gain lies below 0, calibration did harm.
    """
    kinds = {"before": _losses(before, targets), "after": _losses(after, targets)}

    def measure(weights: FloatArray) -> dict[str, FloatArray]:
        values = {f"{kind} {name}": value for kind, losses in kinds.items() for name, value in losses(weights).items()}
        return values | {f"gain {name}": values[f"before {name}"] - values[f"after {name}"] for name in NUMBERS}

    several = groups if groups is not None and len(np.unique(groups)) > 1 else None
    method, units = ("bootstrap", len(targets)) if several is None else ("bootstrap over groups", len(np.unique(several)))
    whole = measure(np.ones((1, len(targets))))
    draws = resample(measure, len(targets), groups=several, resamples=resamples, seed=seed)
    found: dict[str, dict[str, Any]] = {name: {} for name in NUMBERS}
    for key, values in draws.items():
        kind, name = key.split()
        make = mirrored if name == "calibration_error" and kind != "gain" else percentile
        found[name][kind] = make(float(whole[key][0]), values, level, method, units).to_json()
    return found


def _losses(scores: FloatArray, targets: IntArray) -> Callable[[FloatArray], dict[str, FloatArray]]:
    """The numbers as a function of row weights (b, n) -> {name: float64 (b,)}."""
    rows = np.stack([loss.mean(axis=1) for loss in decision_losses(targets, scores)], axis=1)
    cell, gap = np.minimum(scores * BINS, BINS - 1).astype(np.int64), scores - targets

    def measure(weights: FloatArray) -> dict[str, FloatArray]:
        total = weights.sum(axis=-1)
        log_loss, brier = (weights @ rows / total[..., None]).T
        error = np.abs(sum_by_cell(cell, BINS, weights, gap)).sum(axis=-1) / (total * scores.shape[1])
        return {"log_loss": log_loss, "brier": brier, "calibration_error": error}

    return measure
