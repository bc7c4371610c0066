"""The numbers of a multi-label task for `metrics.json`, an interval on each.

Intervals are made as for one label an image (see `evaluate`): exact for proportions of rows, percentile bootstrap over
rows or groups for the rest, an exact bound where all resamples agree. What is undefined, and over which classes a macro
mean runs, is told in `multilabel_metrics`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from coverslip.evaluation.intervals import Number, exact, exact_interval
from coverslip.evaluation.multilabel_metrics import COUNTED, RANKED
from coverslip.evaluation.sheet import Sheet
from coverslip.structures import BoolArray, FloatArray, Predictions, StrArray

MULTILABEL_SUMMARY = (
    *(f"{mean}_{name}" for name in ("f1", "precision", "recall") for mean in ("macro", "micro", "weighted")),
    *(f"{mean}_{name}" for name in RANKED for mean in ("macro", "micro")),
    "exact_match",
    "hamming_loss",
    "log_loss",
    "brier",
    "calibration_error",
)
"""Numbers of a whole set of multi-label predictions."""

MULTILABEL_PER_CLASS = (*COUNTED, *RANKED, "calibration_error")
"""Numbers of each class."""


class MultilabelSheet(Sheet):
    """Every number of some multi-label predictions, with its interval."""

    summary: ClassVar[tuple[str, ...]] = MULTILABEL_SUMMARY
    row_shares: ClassVar[tuple[str, ...]] = ("exact_match",)

    def entry(self, name: str) -> dict[str, Any]:
        """A number of the summary for `metrics.json`; macro numbers also say over how many classes: `classes_defined`."""
        number = self.number(name).to_json()
        if not name.startswith("macro_"):
            return number
        return number | {"classes_defined": int((~np.isnan(self.values[f"class_{name.removeprefix('macro_')}"][0])).sum())}

    def number(self, name: str, k: int | None = None) -> Number:
        """As `Sheet.number`; where a number of a class is undefined, the method says why."""
        number = super().number(name, k)
        return number if k is None or number.defined else replace(number, method=f"undefined: {self._missing(name, k)}")

    def _missing(self, name: str, k: int) -> str:
        if name == "precision":
            return "never predicted"
        return "no negatives" if self.truth[:, k].any() else "no positives"

    def _summary_bound(self, name: str, number: Number) -> Number:
        """Nothing or everything right: errors as often in any row, or all of them in the smallest class.

        Of precision, rows with a predicted label are tried, of recall those with a label, of F1 those with either. Wrong
        decisions are at most as frequent as rows with a wrong one.
        """
        mean, _, kind = name.partition("_")
        tried = {"precision": self.decided, "recall": self.truth, "f1": self.truth | self.decided, "loss": np.ones_like(self.truth)}
        if number.value not in (0.0, 1.0) or kind not in tried or name == "log_loss":
            return self._agreed(number)
        reach = self._reach(np.asarray(tried[kind].any(axis=1)))
        if mean == "macro":
            defined = np.flatnonzero((self.decided if kind == "precision" else self.truth).any(axis=0))
            reach = max(reach, *(self._reach(tried[kind][:, k]) / len(defined) for k in defined.tolist()))
        if number.value == 1:
            return Number(1.0, 1 - reach, 1.0, f"{self._exact_method()}, all resamples equal")
        high = 2 * reach / (1 + reach) if kind == "f1" else reach
        return Number(0.0, 0.0, high, f"{self._exact_method()}, all resamples equal")

    def _reach(self, rows: BoolArray) -> float:
        """How far the exact interval of "none of these rows" goes up."""
        return float(exact_interval(0, self._independent(rows), self.level)[1])


def evaluate_multilabel(
    predictions: Predictions,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    thresholds: float | FloatArray | None = None,
) -> dict[str, Any]:
    """All numbers of multi-label predictions with known labels, as `metrics.json` keeps them.

    Args:
        predictions: n scored rows with targets and decisions int64 (n, K) of 0 and 1.
        level: confidence level of the intervals.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        thresholds: one, or float64 (K,), behind `predictions.predicted`, to be reported; when not given it is 0.5 if
            that explains the decisions, otherwise None.

    Returns:
        `n`; each number of `MULTILABEL_SUMMARY` as {value, low, high, method}, macro numbers with `classes_defined`;
        `per_class`: support, the numbers of `MULTILABEL_PER_CLASS`, threshold, and matrix [[tn, fp], [fn, tp]];
        `labels_per_image`: the means `true` and `predicted`; with groups `groups`, a list of {group, n, micro_f1,
        exact_match}, worst micro F1 first, undefined ones last, and `worst_group`.

    Raises:
        InputError: no rows, no labels, or shapes that do not fit together.
    """
    sheet = MultilabelSheet([predictions], level, resamples, seed)
    classes = predictions.classes
    numbers: dict[str, Any] = {"n": len(predictions)} | {name: sheet.entry(name) for name in sheet.summary}
    if thresholds is None and np.array_equal(predictions.scores >= 0.5, sheet.decided):
        thresholds = 0.5
    shown = [None] * len(classes) if thresholds is None else np.broadcast_to(thresholds, len(classes)).tolist()
    matrices = class_matrices(sheet.truth, sheet.decided)
    numbers["per_class"] = {
        name: {"support": int(sheet.truth[:, k].sum())}
        | {number: sheet.number(number, k).to_json() for number in MULTILABEL_PER_CLASS}
        | {"threshold": shown[k], "matrix": matrices[k].tolist()}
        for k, name in enumerate(classes)
    }
    numbers["labels_per_image"] = {name: sheet.number(f"labels_{name}").to_json() for name in ("true", "predicted")}
    if predictions.groups is not None:
        numbers["groups"] = group_scores(predictions.groups, sheet.truth, sheet.decided, level)
        numbers["worst_group"] = numbers["groups"][0]
    return numbers


def class_matrices(truth: BoolArray, decided: BoolArray) -> np.ndarray[tuple[int, int, int], np.dtype[np.int64]]:
    """The 2×2 matrix [[tn, fp], [fn, tp]] of each class: int64 (K, 2, 2), of two bool (n, K).

    >>> class_matrices(np.array([[True], [False]]), np.array([[True], [True]])).tolist()
    [[[0, 1], [0, 1]]]
    """
    cells = [(~truth & ~decided), (~truth & decided), (truth & ~decided), (truth & decided)]
    return np.stack([cell.sum(axis=0) for cell in cells], axis=1).reshape(-1, 2, 2).astype(np.int64)


def group_scores(groups: StrArray, truth: BoolArray, decided: BoolArray, level: float = 0.95) -> list[dict[str, Any]]:
    """Micro F1 and exact match of each group, worst micro F1 first (larger groups first among equals, undefined last).

    Micro F1 is 2 J / (1 + J), where J = TP / (TP + FP + FN) is a proportion of labels; its interval is the exact one of J,
    which takes the labels of an image for independent. Undefined in a group without positives.

    Args:
        groups: str (n,).
        truth: bool (n, K).
        decided: bool (n, K).
        level: confidence level.
    """
    names, member = np.unique(groups, return_inverse=True)
    found = np.bincount(member, weights=(truth & decided).sum(axis=1))
    either = np.bincount(member, weights=(truth | decided).sum(axis=1))
    positives = np.bincount(member, weights=truth.sum(axis=1))
    matches, sizes = np.bincount(member, weights=(truth == decided).all(axis=1)), np.bincount(member)
    scores = [_f1_of_share(exact(*pair, level)) for pair in zip(found, np.where(positives > 0, either, 0), strict=True)]
    values = np.array([score.value if score.defined else np.inf for score in scores])
    order = np.lexsort((-sizes, values))
    return [
        {
            "group": str(names[i]),
            "n": int(sizes[i]),
            "micro_f1": scores[i].to_json(),
            "exact_match": exact(matches[i], sizes[i], level).to_json(),
        }
        for i in order
    ]


def _f1_of_share(share: Number) -> Number:
    if not share.defined:
        return replace(share, method="undefined: no positives")
    value, low, high = (2 * end / (1 + end) for end in (share.value, share.low, share.high))
    return Number(value, low, high, "exact over labels")
