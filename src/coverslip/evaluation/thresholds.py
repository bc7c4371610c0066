"""Thresholds of a multi-label task: chosen exactly, cross-fitted, and shown beside plain 0.5.

A class is predicted where its score is at least its threshold. Every choice is made on given rows (the validation part,
or out-of-fold scores) and never sees the rows that it is judged on. Thresholds that were searched on few positives lose
to a constant on new data: they are averaged over folds and shrunk towards the one global threshold, and come with an
estimate of macro F1 from rows that were kept out of the whole choice. Plain numpy and scipy, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit, logit

from coverslip.errors import InputError
from coverslip.evaluation.intervals import Number, percentile, resample
from coverslip.evaluation.metrics import defined_mean
from coverslip.evaluation.multilabel_metrics import counted_scores
from coverslip.structures import BoolArray, FloatArray, IntArray, StrArray

Strategy = Literal["fixed", "global", "per_class", "ratio"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

PLAIN = 0.5
"""The threshold that every other one is compared with."""

FOLDS = 5
"""Folds of the cross-fitting."""

EVIDENCE = 5.0
"""Positives at which a class's own threshold and the global one weigh the same: own weight n / (n + 5).

Simulated with 28 classes of 0.2 % to 30 % (scores calibrated, shifted a class, or as after positive weights; 200 to 3,000
rows to choose on, 20,000 to judge): 5 on the log-odds scale was within 0.01 macro F1 of the best of 0, 2, 5, ..., 200
everywhere. Macro F1 on 800 rows, calibrated scores: 0.377 at plain 0.5, 0.425 global, 0.423 each class's best without
cross-fitting or shrinking, 0.445 so.
"""

EXTREME = 1e-6
"""Thresholds are kept this far from 0 and 1 where they are shrunk on the log-odds scale."""

ROUNDING = 1e-12
"""Macro F1 values closer than this are equal: they are sums of many small steps."""


@dataclass(frozen=True)
class Thresholds:
    """A threshold a class, and what may be expected of them.

    Attributes:
        values: float64 (K,) in [0, 1]; a class is predicted from its value on.
        strategy: how they were chosen.
        note: the same in words.
        estimate: macro F1 on rows that were kept out of the choice, the whole choice repeated for each of the folds; of
            a fixed threshold, that on all rows. NaN without positives or with fewer than two rows.
    """

    values: FloatArray
    strategy: Strategy
    note: str
    estimate: float


@dataclass(frozen=True)
class ThresholdCurve:
    """What each different decision on one class's scores gives, strictest first.

    Attributes:
        thresholds: float64 (m,), falling; half-way between neighbouring scores, the last half-way to 0.
        precision: float64 (m,).
        recall: float64 (m,); NaN without positives.
        f1: float64 (m,); NaN without positives.
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


def threshold_curve(scores: FloatArray, targets: IntArray) -> ThresholdCurve:
    """Precision, recall and F1 of every threshold that tells rows apart; rows of equal score stay together.

    Args:
        scores: float64 (n,) in [0, 1].
        targets: int64 (n,) of 0 and 1.

    >>> curve = threshold_curve(np.array([0.8, 0.4, 0.4, 0.2]), np.array([1, 1, 0, 0]))
    >>> curve.thresholds.round(3).tolist(), curve.f1.round(3).tolist()
    ([0.6, 0.3, 0.1], [0.667, 0.8, 0.667])
    """
    order = np.argsort(-scores, kind="stable")
    levels, last = _levels(scores[order])
    found = np.cumsum(targets[order], dtype=np.float64)[last]
    numbers = counted_scores(found, np.full(len(found), float(targets.sum())), (last + 1).astype(np.float64))
    return ThresholdCurve(_between(levels), **numbers)


def best_f1_threshold(scores: FloatArray, targets: IntArray) -> float:
    """The threshold of the highest F1, exact; the highest among equals. NaN without positives: none is better then.

    Every decision that scores allow is tried (Lipton et al. 2014, "Thresholding classifiers to maximize F1 score").

    Args:
        scores: float64 (n,) in [0, 1].
        targets: int64 (n,) of 0 and 1.

    >>> best_f1_threshold(np.array([0.875, 0.75, 0.5, 0.25]), np.array([1, 0, 1, 0]))
    0.375
    """
    if not np.any(targets == 1):
        return float("nan")
    curve = threshold_curve(scores, targets)
    return float(curve.thresholds[np.argmax(curve.f1)])


def best_global_threshold(scores: FloatArray, targets: IntArray) -> float:
    """The one threshold for all classes with the highest macro F1, exact up to rounding; the highest among equals; NaN without positives.

    Args:
        scores: float64 (n, K) in [0, 1].
        targets: int64 (n, K) of 0 and 1.
    """
    thresholds, macro_f1 = macro_f1_curve(scores, targets)
    return float(thresholds[np.argmax(macro_f1 >= macro_f1.max() - ROUNDING)]) if len(macro_f1) else float("nan")


def macro_f1_curve(scores: FloatArray, targets: IntArray) -> tuple[FloatArray, FloatArray]:
    """Every threshold that tells scores apart, falling, and macro F1 over the classes with positives at it; empty where there are none.

    Each score at which a decision changes moves the F1 of one class; these steps, in the order of the scores, sum up to
    macro F1 at every threshold: O(n K log(n K)).

    Args:
        scores: float64 (n, K) in [0, 1].
        targets: int64 (n, K) of 0 and 1.
    """
    positives = targets.sum(axis=0)
    defined = positives > 0
    if not defined.any():
        return np.empty(0), np.empty(0)
    scores, targets, positives = scores[:, defined], targets[:, defined], positives[defined]
    order = np.argsort(-scores, axis=0, kind="stable")
    found = np.cumsum(np.take_along_axis(targets, order, axis=0), axis=0)
    f1 = 2 * found / (positives + np.arange(1, len(scores) + 1)[:, None])
    steps = np.diff(f1, axis=0, prepend=0.0).ravel()
    flat = np.take_along_axis(scores, order, axis=0).ravel()
    fall = np.argsort(-flat, kind="stable")
    levels, last = _levels(flat[fall])
    return _between(levels), np.cumsum(steps[fall])[last] / len(positives)


def ratio_threshold(scores: FloatArray, ratio: float) -> float:
    """The threshold from which the share of predicted rows comes closest to a ratio; in [0, 1], so that 1.0 is predicted.

    Args:
        scores: float64 (n,) in [0, 1].
        ratio: wanted share, in [0, 1].

    >>> ratio_threshold(np.array([0.9, 0.5, 0.3, 0.1]), 0.5)
    0.4
    """
    levels, last = _levels(np.sort(scores)[::-1])
    shares = np.append(0, last + 1) / len(scores)
    nearest = int(np.argmin(np.abs(shares - ratio)))
    return float(_between(np.append(1.0, levels))[nearest])


def choose_thresholds(
    scores: FloatArray,
    targets: IntArray,
    strategy: Strategy,
    *,
    fixed: float = PLAIN,
    ratio: FloatArray | None = None,
    at_least_one: bool = False,
    seed: int = 0,
) -> Thresholds:
    """Thresholds by a strategy, chosen on the given rows.

    - `fixed`: one stated value, nothing is chosen;
    - `global`: the one value with the highest macro F1 (`best_global_threshold`);
    - `per_class`: each class's best F1 threshold, chosen on all folds but one, for each fold, and averaged; folds hold
      equal shares of each class's positives. Then shrunk on the log-odds scale: w own + (1 - w) global, w = n / (n + 5)
      for n positives. A class without positives gets the global value;
    - `ratio`: each class is predicted as often as it is labelled.

    A class that no training image carries (`ratio` 0) has learned nothing: it has no say in the global value, and what
    is chosen for it is never below plain 0.5.

    Args:
        scores: float64 (n, K) in [0, 1].
        targets: int64 (n, K) of 0 and 1.
        strategy: see above.
        fixed: the value of `fixed`, and of all strategies where no class has a positive.
        ratio: float64 (K,), label share of each class in training; for `ratio` that of `targets` when not given.
        at_least_one: judge the estimate with at least one label a row (see `decide_multilabel`).
        seed: of the folds.

    Raises:
        InputError: no rows, an unknown strategy, or shapes that do not fit together.
    """
    _check(scores, targets, strategy)
    choose = partial(_choose, strategy=strategy, fixed=fixed, ratio=ratio)
    random = np.random.default_rng(seed)
    values = choose(scores, targets, random=random)
    if strategy == "fixed":
        decided = decide_multilabel(scores, values, at_least_one)
    else:
        decided = _decide_out_of_fold(scores, targets, choose, at_least_one, random)
    estimate = float(_macro_micro(decided, targets, np.ones(len(targets)))["macro_f1"]) if len(targets) > 1 else float("nan")
    return Thresholds(values, strategy, _note(strategy, fixed, len(targets), values, ratio), estimate)


def compare_thresholds(
    fit_scores: FloatArray,
    fit_targets: IntArray,
    parts: Mapping[str, tuple[FloatArray, IntArray]],
    *,
    groups: Mapping[str, StrArray] | None = None,
    fixed: float = PLAIN,
    ratio: FloatArray | None = None,
    at_least_one: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Plain 0.5 and every strategy side by side, on each part; thresholds are fitted on the first arguments only.

    Args:
        fit_scores: float64 (n, K), of the rows that thresholds are chosen on.
        fit_targets: int64 (n, K).
        parts: name → scores and targets that they are judged on. The part that they were chosen on flatters them: compare
            with `estimate`. Parts without rows are left out.
        groups: name → str (n,) groups of a part, resampled whole.
        fixed: as for `choose_thresholds`; likewise `ratio`, `at_least_one` and `seed`.
        ratio: see there.
        at_least_one: a row without any label gets one, in every line of the table.
        level: confidence level.
        resamples: bootstrap resamples.
        seed: of the folds and the bootstrap.

    Returns:
        For `plain` and each strategy: `thresholds` (K numbers), `note`, `estimate` (macro F1 on rows that were kept out
        of the choice, None where undefined), and `parts`: name → `macro_f1`, `micro_f1`, `macro_f1_gain`, each {value,
        low, high, method}. The gain is over plain 0.5 on the same resampled rows: where its interval lies below 0, the
        strategy has lost to a constant.

    Raises:
        InputError: as `choose_thresholds`.
    """
    choose = partial(choose_thresholds, fit_scores, fit_targets, ratio=ratio, at_least_one=at_least_one, seed=seed)
    chosen = {"plain": choose("fixed", fixed=PLAIN)} | {strategy: choose(strategy, fixed=fixed) for strategy in STRATEGIES}
    judged = {
        name: _judge(chosen, *part, (groups or {}).get(name), at_least_one, level, resamples, seed)
        for name, part in parts.items()
        if len(part[1])
    }
    return {
        name: {
            "thresholds": thresholds.values.tolist(),
            "note": thresholds.note,
            "estimate": None if np.isnan(thresholds.estimate) else thresholds.estimate,
            "parts": {part: {number: value.to_json() for number, value in numbers[name].items()} for part, numbers in judged.items()},
        }
        for name, thresholds in chosen.items()
    }


def decide_multilabel(scores: FloatArray, thresholds: float | FloatArray, at_least_one: bool = False) -> IntArray:
    """Decisions int64 (n, K): 1 where a score is at least the threshold of its class.

    Args:
        scores: float64 (n, K) in [0, 1].
        thresholds: one, or float64 (K,).
        at_least_one: a row that no class reaches gets the class with the highest score / threshold, the first among
            equals.

    >>> decide_multilabel(np.array([[0.5, 0.1], [0.2, 0.15]]), np.array([0.4, 0.2]), at_least_one=True).tolist()
    [[1, 0], [0, 1]]
    """
    decided = scores >= thresholds
    if at_least_one:
        empty = np.flatnonzero(~decided.any(axis=1))
        decided[empty, np.argmax(scores[empty] / thresholds, axis=1)] = True
    return decided.astype(np.int64)


def stratified_folds(targets: IntArray, folds: int, random: np.random.Generator) -> IntArray:
    """Deal rows to folds so that each has its share of the positives of every class: int64 (n,) in [0, folds).

    Rarest class first, its rows go where the fewest of its positives are (Sechidis et al. 2011); rows without labels last.

    Args:
        targets: int64 (n, K) of 0 and 1.
        folds: how many.
        random: breaks ties.
    """
    fold = np.full(len(targets), -1, dtype=np.int64)
    for k in [*np.argsort(targets.sum(axis=0), kind="stable"), None]:
        member = np.ones(len(targets), np.bool_) if k is None else targets[:, k] == 1
        rows = random.permutation(np.flatnonzero(member & (fold < 0)))
        placed = np.bincount(fold[member & (fold >= 0)], minlength=folds)
        size = np.bincount(fold[fold >= 0], minlength=folds)
        level = (placed + np.arange(len(rows))[:, None]).ravel()
        order = np.lexsort((random.random(level.size), np.tile(size, len(rows)), level))
        fold[rows] = order[: len(rows)] % folds
    return fold


def _choose(
    scores: FloatArray, targets: IntArray, *, strategy: Strategy, fixed: float, ratio: FloatArray | None, random: np.random.Generator
) -> FloatArray:
    classes = scores.shape[1]
    if strategy == "fixed":
        return np.full(classes, fixed)
    if strategy == "ratio":
        shares = targets.mean(axis=0) if ratio is None else ratio
        return np.array([ratio_threshold(scores[:, k], float(shares[k])) for k in range(classes)])
    learned = _learned(ratio, classes)
    together = np.nan_to_num(best_global_threshold(scores[:, learned], targets[:, learned]), nan=fixed)
    if strategy == "global":
        return _at_least_plain(np.full(classes, together), learned)
    own = _cross_fitted(scores, targets, random)
    positives = targets.sum(axis=0)
    weight = np.where(np.isnan(own), 0.0, positives / (positives + EVIDENCE))
    own, together = (logit(np.clip(values, EXTREME, 1 - EXTREME)) for values in (np.nan_to_num(own), np.float64(together)))
    return _at_least_plain(expit(weight * own + (1 - weight) * together), learned)


def _learned(ratio: FloatArray | None, classes: int) -> BoolArray:
    """Which classes a training image carries, bool (K,); all where the shares are not known."""
    return np.ones(classes, np.bool_) if ratio is None else ratio > 0


def _at_least_plain(values: FloatArray, learned: BoolArray) -> FloatArray:
    return np.where(learned, values, np.maximum(values, PLAIN))


def _cross_fitted(scores: FloatArray, targets: IntArray, random: np.random.Generator) -> FloatArray:
    """Each class's best threshold on all folds but one, averaged over the folds: (K,); NaN without positives."""
    fold = stratified_folds(targets, FOLDS, random)
    own = [[best_f1_threshold(scores[fold != f, k], targets[fold != f, k]) for k in range(scores.shape[1])] for f in range(FOLDS)]
    return defined_mean(np.array(own).T)


def _decide_out_of_fold(
    scores: FloatArray, targets: IntArray, choose: partial[FloatArray], at_least_one: bool, random: np.random.Generator
) -> IntArray:
    """Decisions on each fold by thresholds chosen on the others."""
    fold = stratified_folds(targets, min(FOLDS, len(targets)), random)
    decided = np.zeros_like(targets)
    for f in np.unique(fold):
        values = choose(scores[fold != f], targets[fold != f], random=random) if np.any(fold != f) else np.full(scores.shape[1], PLAIN)
        decided[fold == f] = decide_multilabel(scores[fold == f], values, at_least_one)
    return decided


def _judge(
    chosen: Mapping[str, Thresholds],
    scores: FloatArray,
    targets: IntArray,
    groups: StrArray | None,
    at_least_one: bool,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Number]]:
    """Macro and micro F1 of each choice on one part, and the gain in macro F1 over plain 0.5."""
    decided = {name: decide_multilabel(scores, thresholds.values, at_least_one) for name, thresholds in chosen.items()}

    def measure(weights: FloatArray) -> dict[str, FloatArray]:
        values = {name: _macro_micro(decisions, targets, weights) for name, decisions in decided.items()}
        numbers = {f"{name} {number}": value for name, pair in values.items() for number, value in pair.items()}
        return numbers | {f"{name} macro_f1_gain": pair["macro_f1"] - values["plain"]["macro_f1"] for name, pair in values.items()}

    several = groups if groups is not None and len(np.unique(groups)) > 1 else None
    method, units = ("bootstrap", len(targets)) if several is None else ("bootstrap over groups", len(np.unique(several)))
    whole = measure(np.ones((1, len(targets))))
    draws = resample(measure, len(targets), groups=several, resamples=resamples, seed=seed)
    numbers = {key: percentile(float(whole[key][0]), draws[key], level, method, units) for key in whole}
    return {name: {number: numbers[f"{name} {number}"] for number in ("macro_f1", "micro_f1", "macro_f1_gain")} for name in chosen}


def _macro_micro(decided: IntArray, targets: IntArray, weights: FloatArray) -> dict[str, FloatArray]:
    found, true, predicted = (weights @ counted.astype(np.float64) for counted in (decided & targets, targets, decided))
    micro = counted_scores(found.sum(axis=-1), true.sum(axis=-1), predicted.sum(axis=-1))["f1"]
    return {"macro_f1": defined_mean(counted_scores(found, true, predicted)["f1"]), "micro_f1": micro}


def _levels(falling: FloatArray) -> tuple[FloatArray, IntArray]:
    """The different values of falling scores, and the place of the last row of each."""
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else np.zeros(0, np.int64)
    return falling[last], last


def _between(levels: FloatArray) -> FloatArray:
    """A threshold below each of the falling levels, half-way to the next (to 0 after the last), and never at the next."""
    following = np.append(levels[1:], 0.0)
    middle = following + (levels - following) / 2
    return np.where((middle > following) & (middle <= levels), middle, levels)


def _check(scores: FloatArray, targets: IntArray, strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise InputError(f"the threshold strategy '{strategy}' is unknown; expected one of {', '.join(STRATEGIES)}")
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise InputError(f"thresholds need scores and targets (rows, classes) alike; found {scores.shape} and {targets.shape}")
    if not len(scores):
        raise InputError("thresholds need rows with labels; the validation part is empty: raise split.validation or say thresholds=fixed")


def _note(strategy: Strategy, fixed: float, rows: int, values: FloatArray, ratio: FloatArray | None) -> str:
    if strategy == "fixed":
        return f"{fixed:g} for every class, nothing chosen"
    if strategy == "ratio":
        return f"a threshold a class, predicted as often as labelled, on {rows} rows"
    learned = _learned(ratio, len(values))
    but = "" if learned.all() else f", but at least {PLAIN} for the {(~learned).sum()} that no training image carries"
    if strategy == "global":
        value = values[learned][0] if learned.any() else fixed
        return f"{value:.3f} for every class, of the highest macro F1 on {rows} rows{but}"
    return f"a threshold a class of the highest F1, averaged over {FOLDS} folds of {rows} rows and shrunk towards the global one{but}"
