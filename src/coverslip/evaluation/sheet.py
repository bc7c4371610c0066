"""Every number of some predictions with its interval: exact, bootstrap, or a bound where all resamples agree.

What `evaluate` says about intervals is made here, for one label an image; `multilabel` adds what differs there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from coverslip.errors import InputError
from coverslip.evaluation.intervals import Number, exact, exact_interval, mirrored, percentile, resample
from coverslip.evaluation.metrics import Measures
from coverslip.evaluation.multilabel_metrics import MultilabelMeasures
from coverslip.structures import BoolArray, FloatArray, IntArray, Predictions, Task

SUMMARY = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "mcc",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
)
"""Numbers of a whole set of predictions, one label an image."""

PER_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")
"""Numbers of each class."""


def known_targets(predictions: Predictions) -> IntArray:
    """The targets of predictions that can be evaluated.

    Raises:
        InputError: no rows, no labels, or multi-label targets and decisions that are not (n, classes) as the scores are.
    """
    targets = predictions.targets
    if targets is None:
        raise InputError("these predictions carry no labels; evaluating needs a labelled set")
    if not len(predictions):
        raise InputError("there are no rows to evaluate; expected at least one")
    shapes = [array.shape for array in (targets, predictions.predicted, predictions.scores)]
    if predictions.task is Task.MULTILABEL and len(set(shapes)) > 1:
        found = ", ".join(map(str, shapes))
        raise InputError(f"multi-label targets, decisions and scores have the shapes {found}; expected (rows, classes) for each")
    return targets


def prepare(predictions: Predictions) -> Measures | MultilabelMeasures:
    """The measures of predictions with known labels, by their task.

    Raises:
        InputError: as `known_targets`.
    """
    make = MultilabelMeasures if predictions.task is Task.MULTILABEL else Measures
    return make(predictions, known_targets(predictions))


def membership(codes: IntArray, classes: int) -> BoolArray:
    """Which row carries which class: bool (n, classes), of int64 (n,) indices or (n, classes) of 0 and 1.

    >>> membership(np.array([1, 0]), 2).tolist()
    [[False, True], [True, False]]
    """
    return codes.astype(np.bool_) if codes.ndim == 2 else codes[:, None] == np.arange(classes)


class Sheet:
    """Every number of some predictions, and the resamples that the intervals come from.

    Several predictions of the same rows (the repeats of a cross-validation) are averaged number by number.
    """

    summary: ClassVar[tuple[str, ...]] = SUMMARY
    row_shares: ClassVar[tuple[str, ...]] = ("accuracy", "weighted_recall")
    """Numbers that are the share of rows without a mistake."""

    def __init__(self, predictions: Sequence[Predictions], level: float, resamples: int, seed: int) -> None:
        first = predictions[0]
        self.truth = membership(known_targets(first), len(first.classes))
        decided = [membership(each.predicted, len(first.classes)) for each in predictions]
        self.decided, self.hits = decided[0], np.logical_and.reduce([each == self.truth for each in decided])
        groups = first.groups
        self.one_group = groups is not None and len(np.unique(groups)) == 1
        self.level, self.groups = level, None if self.one_group else groups
        self.measures = [prepare(each) for each in predictions]
        n = len(self.truth)
        self.values = self._measure(np.ones((1, n)))
        self.draws = resample(self._measure, n, groups=self.groups, resamples=resamples, seed=seed)
        self.right = self.hits.all(axis=1)

    def number(self, name: str, k: int | None = None) -> Number:
        """A number of `summary`, or, with a class index, one of the class. One group cannot vary: rows take its place."""
        number = self._number(name, k)
        return replace(number, method=f"{number.method} over rows, one group only") if self.one_group and number.defined else number

    def _number(self, name: str, k: int | None) -> Number:
        key = name if k is None else f"class_{name}"
        value = float(self.values[key][0] if k is None else self.values[key][0, k])
        draws = self.draws[key] if k is None else self.draws[key][:, k]
        proportion = self._proportion(name, k)
        if proportion is not None and self.groups is None and len(self.measures) == 1:
            trials, successes = proportion
            return exact(int(successes.sum()), int(trials.sum()), self.level)
        make = mirrored if name == "calibration_error" else percentile
        method = "bootstrap" if self.groups is None else "bootstrap over groups"
        number = make(value, draws, self.level, method, self._independent(np.ones_like(self.right)))
        return self._bound(name, k, number) if number.defined and not number.low < number.high else number

    def _measure(self, weights: FloatArray) -> dict[str, FloatArray]:
        each = [measure(weights) for measure in self.measures]
        return each[0] if len(each) == 1 else {name: np.mean([values[name] for values in each], axis=0) for name in each[0]}

    def _proportion(self, name: str, k: int | None) -> tuple[BoolArray, BoolArray] | None:
        """Rows that are tried and rows that succeed, when a number is a proportion of rows."""
        if k is None:
            return (np.ones_like(self.right), self.right) if name in self.row_shares else None
        if name in ("recall", "precision"):
            trials = (self.truth if name == "recall" else self.decided)[:, k]
            return trials, trials & self.hits[:, k]
        return None

    def _bound(self, name: str, k: int | None, number: Number) -> Number:
        """An exact bound in place of a bootstrap in which all resamples agree."""
        proportion = self._proportion(name, k)
        if name == "f1" and k is not None:
            return self._f1_bound(k, number)
        if proportion is not None:
            return self._exact(number, *proportion)
        if name.endswith(("roc_auc", "average_precision")):
            return self._pairs_bound(k, number)
        return self._summary_bound(name, number) if k is None else self._agreed(number)

    def _summary_bound(self, name: str, number: Number) -> Number:
        return self._all_right_bound(name, number) if self.right.all() and name in SUMMARY[:9] else self._agreed(number)

    def _agreed(self, number: Number) -> Number:
        """Resamples that agree know nothing of what others would be: a value without an interval."""
        return replace(number, low=math.nan, high=math.nan, method=f"no interval: {number.method}, all resamples equal")

    def _exact(self, number: Number, trials: BoolArray, successes: BoolArray) -> Number:
        """Exact over groups where all agree: each group is one trial; otherwise over rows."""
        size = self._independent(trials)
        if number.value in (0.0, 1.0):
            low, high = exact_interval(size * number.value, size, self.level)
            return Number(number.value, float(low), float(high), self._exact_method())
        whole = exact(int(successes.sum()), int(trials.sum()), self.level)
        return Number(number.value, min(whole.low, number.value), max(whole.high, number.value), "exact over rows, all resamples equal")

    def _f1_bound(self, k: int, number: Number) -> Number:
        """F1 = 2 J / (1 + J), where J = TP / (TP + FP + FN) is a proportion."""
        trials = self.truth[:, k] | self.decided[:, k]
        share = self._exact(Number(number.value / (2 - number.value), 0, 0, ""), trials, trials & self.hits[:, k])
        return Number(number.value, 2 * share.low / (1 + share.low), 2 * share.high / (1 + share.high), share.method)

    def _pairs_bound(self, k: int | None, number: Number) -> Number:
        """All pairs ranked right (or wrong): as many of them are independent as the rarer side has rows."""
        kinds = self.truth.T if k is None else self.truth.T[k : k + 1]
        sides = [self._independent(side) for kind in kinds if kind.any() and not kind.all() for side in (kind, ~kind)]
        pairs = min(sides, default=0)
        if not pairs or number.value not in (0.0, 1.0):
            return self._agreed(number)
        low, high = exact_interval(pairs * number.value, pairs, self.level)
        return Number(number.value, float(low), float(high), f"{self._exact_method()}, {pairs} independent pair{'s' if pairs > 1 else ''}")

    def _all_right_bound(self, name: str, number: Number) -> Number:
        """The lower of two bounds: errors as often anywhere (as accuracy), or all of them in the smallest class."""
        supports = [self._independent(kind) for kind in self.truth.T if kind.any()]
        overall, smallest = (float(exact_interval(m, m, self.level)[0]) for m in (self._independent(self.right), min(supports)))
        low = overall if name.startswith("weighted") else min(overall, 1 - (1 - smallest) / len(supports))
        return Number(number.value, 2 * low - 1 if name == "mcc" else low, number.value, f"{self._exact_method()}, all right")

    def _independent(self, rows: BoolArray) -> int:
        return int(rows.sum()) if self.groups is None else len(np.unique(self.groups[rows]))

    def _exact_method(self) -> str:
        return "exact" if self.groups is None else "exact over groups"
