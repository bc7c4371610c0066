"""Is the model of a search better than the defaults? Numbers on the same test images, and one plain sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from coverslip.evaluation.comparison import mcnemar_exact, paired_bootstrap
from coverslip.evaluation.intervals import Number, exact_interval
from coverslip.structures import Predictions, Task
from coverslip.study.space import Metric

COMPARED = ("log_loss", "macro_f1", "accuracy", "roc_auc", "macro_roc_auc", "exact_match")
"""Numbers that are compared, as far as the task has them; the one that the search went by decides."""
WORDS = {"log_loss": "log loss", "macro_f1": "macro F1"}


def judge_pair(
    final: Predictions, defaults: Predictions, metric: Metric, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The best configuration beside the defaults, on the same images.

    Args:
        final: predictions of the test part by the model of the search.
        defaults: by the model of the defaults, of the same images in the same order.
        metric: what the search went by; its interval decides.
        level: confidence level.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        `n`, `differences` (final minus defaults: {value, low, high, method} a number), `mcnemar_p` (None with several labels an
        image) and `verdict`: `better`, `worse` or `equal` (they cannot be told apart).
    """
    found = paired_bootstrap(final, defaults, level=level, resamples=resamples, seed=seed)
    differences = {name: _never_certain(name, found[name], final, level).to_json() for name in COMPARED if name in found}
    single = final.task is not Task.MULTILABEL
    p = mcnemar_exact(final.predicted == final.targets, defaults.predicted == defaults.targets) if single else None
    return {"n": len(final), "differences": differences, "mcnemar_p": p, "verdict": _verdict(found[metric], metric)}


def _never_certain(name: str, difference: Number, predictions: Predictions, level: float) -> Number:
    """A difference in [-1, 1] whose resamples all agree on 0 with an exact bound in the place of its empty interval."""
    if name == "log_loss" or not difference.value == difference.low == difference.high == 0:
        return difference
    units = len(predictions) if predictions.groups is None else len(np.unique(predictions.groups))
    most = float(exact_interval(0, units, level)[1])
    return Number(0.0, -most, most, "exact, no resample differs")


def _verdict(difference: Number, metric: Metric) -> str:
    low, high = (-difference.high, -difference.low) if metric == "log_loss" else (difference.low, difference.high)
    return "better" if low > 0 else "worse" if high < 0 else "equal"


def sentence(judged: dict[str, Any], metric: Metric, final: float, defaults: float, level: float) -> str:
    """The verdict in words.

    Args:
        judged: what `judge_pair` gave.
        metric: what the search went by.
        final: its value of the model of the search.
        defaults: its value of the model of the defaults.
        level: confidence level.
    """
    difference = judged["differences"][metric]
    words = {"better": "is better than", "worse": "is worse than", "equal": "cannot be told from"}[judged["verdict"]]
    ends = f"difference {difference['value']:+.3f}, {level:.0%} interval {difference['low']:+.3f} to {difference['high']:+.3f}"
    return (
        f"On {judged['n']:,} test images that no trial has seen, the best configuration {words} the defaults trained as long: "
        f"{WORDS[metric]} {final:.3f} against {defaults:.3f} ({ends}; {'lower' if metric == 'log_loss' else 'higher'} is better)."
    )
