"""Is A really better than B? Exact McNemar on decisions, paired bootstrap on any number."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr

from coverslip.errors import InputError
from coverslip.evaluation.evaluate import summary_names
from coverslip.evaluation.intervals import Number, bootstrap
from coverslip.evaluation.sheet import known_targets, prepare
from coverslip.structures import BoolArray, FloatArray, Predictions


def mcnemar_exact(right_a: BoolArray, right_b: BoolArray) -> float:
    """Two-sided p of "both are right equally often" on the same rows (McNemar 1947, exact binomial form).

    Only rows count that one gets right and the other wrong; 1 when there are none. In (0, 1].

    Args:
        right_a: bool (n,), rows that A gets right.
        right_b: bool (n,), rows that B gets right.

    >>> mcnemar_exact(np.array([True] * 5), np.array([False] * 5))
    0.0625
    """
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0


def paired_bootstrap(a: Predictions, b: Predictions, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> dict[str, Number]:
    """A minus B for each summary number of the task, with the percentile interval over the same resampled rows (or groups).

    Args:
        a: predictions with targets.
        b: predictions of the same images in the same order, with the same targets.
        level: confidence level.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        InputError: different images, labels or classes; otherwise as `evaluate`.
    """
    if a.task is not b.task or a.images != b.images or a.classes != b.classes or not np.array_equal(known_targets(a), known_targets(b)):
        raise InputError("a paired comparison needs the same images, in the same order, with the same labels and classes on both sides")
    measure_a, measure_b = prepare(a), prepare(b)

    def difference(weights: FloatArray) -> dict[str, FloatArray]:
        values_a, values_b = measure_a(weights), measure_b(weights)
        return {name: values_a[name] - values_b[name] for name in summary_names(a.task)}

    return bootstrap(difference, len(a), groups=a.groups, level=level, resamples=resamples, seed=seed)
