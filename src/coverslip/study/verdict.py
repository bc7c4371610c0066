"""Which run is best, and which cannot be told from it: pure functions of predictions on images that no run learned from.

The best run is held against every other. One label an image: McNemar's exact test on the images that one gets right and the
other wrong; with groups, or several labels an image, the paired bootstrap of accuracy or macro F1 (over groups where there
are groups). Runs that were judged on other images cannot be paired: Fisher's exact test, or two bootstraps. The p-values are
corrected for their number by Holm's method (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from coverslip.evaluation.comparison import mcnemar_exact
from coverslip.evaluation.intervals import Number, exact_interval, percentile, resample, wilson_interval
from coverslip.evaluation.metrics import defined_mean
from coverslip.evaluation.multilabel_metrics import counted_scores
from coverslip.evaluation.sheet import known_targets
from coverslip.structures import BoolArray, FloatArray, Predictions, Task

Rank = tuple[float, ...]
"""Numbers by which runs are ordered, most important first, larger is better."""

TIES = {"accuracy": ("macro_f1", "roc_auc"), "macro_f1": ("micro_f1", "macro_roc_auc")}
TEST_WORDS = {"exact McNemar": "McNemar's exact test", "exact Fisher": "Fisher's exact test"}
MOST_NAMES = 8
"""Names that a sentence lists."""


def judged_part(metrics: Mapping[str, Any]) -> str | None:
    """The part of metrics.json that a comparison looks at: out-of-fold predictions where there are folds, else test, else validation."""
    return next((part for part in ("folds", "test", "validation") if part in metrics), None)


def main_number(metrics: Mapping[str, Any]) -> str:
    """What runs are compared by: accuracy, or macro F1 with several labels an image."""
    return "macro_f1" if metrics.get("task") == Task.MULTILABEL else "accuracy"


def rank(metrics: Mapping[str, Any]) -> Rank:
    """The main number of a run, then what breaks ties: other numbers, and the log loss. Undefined is worst."""
    numbers, name = metrics.get(judged_part(metrics) or "", {}), main_number(metrics)
    values = [numbers.get(each, {}).get("value") for each in (name, *TIES[name], "log_loss")]
    rising = [*values[:-1], None if values[-1] is None else -values[-1]]
    return tuple(-math.inf if value is None else float(value) for value in rising)


@dataclass(frozen=True)
class Contender:
    """A run that was judged.

    Attributes:
        name: of the run.
        predictions: on images that it did not learn from.
        rank: its place among the others.
        number: the main number with its interval, as metrics.json holds it.
        split: how the images were split, in any words: runs of other splits are not paired.
    """

    name: str
    predictions: Predictions
    rank: Rank
    number: Mapping[str, Any]
    split: str = ""


@dataclass(frozen=True)
class Compared:
    """The best run held against another.

    Attributes:
        name: of the other run.
        difference: the best's number minus the other's, with its interval.
        p: of "they are equally good", as it comes from the test.
        corrected: `p` after Holm's correction.
        test: its name.
        apart: whether the best can be told from it.
    """

    name: str
    difference: Number
    p: float
    corrected: float
    test: str
    apart: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for verdict.json."""
        return {
            "model_id": self.name, "difference": self.difference.to_json(), "p": self.p, "p_corrected": self.corrected,
            "test": self.test, "worse": self.apart,
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The best run, and what can be said of the others.

    Attributes:
        best: its name; empty when no run was judged.
        sentence: the verdict in one plain sentence.
        method: how runs were told apart, in a sentence; empty where there is nothing to tell apart.
        notes: what a reader must know before believing it.
        number: `accuracy` or `macro_f1`.
        images: how many judged the best run.
        level: 1 minus the share of false alarms that is accepted.
        paired: whether all runs were judged on the same images.
        compared: the others, in the order of their ranks.
    """

    best: str
    sentence: str
    method: str = ""
    notes: tuple[str, ...] = ()
    number: str = "accuracy"
    images: int = 0
    level: float = 0.95
    paired: bool = True
    compared: tuple[Compared, ...] = field(default=())

    @property
    def equals(self) -> list[str]:
        """The runs that cannot be told from the best."""
        return [each.name for each in self.compared if not each.apart]

    @property
    def worse(self) -> list[str]:
        """The runs that the best is better than."""
        return [each.name for each in self.compared if each.apart]

    def to_json(self) -> dict[str, Any]:
        """Plain values for verdict.json."""
        return {
            "best": self.best, "sentence": self.sentence, "method": self.method, "notes": list(self.notes), "number": self.number,
            "images": self.images, "level": self.level, "paired": self.paired, "cannot_be_told_from_best": self.equals,
            "worse": self.worse, "compared": [each.to_json() for each in self.compared],
        }  # fmt: skip


def judge(contenders: Sequence[Contender], *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Verdict:
    """The verdict on some runs.

    Args:
        contenders: of one task; the first of equals is the best.
        level: confidence level of the intervals, and 1 minus the level of the tests.
        resamples: of the bootstrap, at least; more where the correction needs finer p-values.
        seed: of the bootstrap.
    """
    if not contenders:
        return Verdict("", "No run has numbers, so there is nothing to compare.", level=level)
    best = max(contenders, key=lambda one: one.rank)
    others = sorted((one for one in contenders if one is not best), key=lambda one: one.rank, reverse=True)
    number = "macro_f1" if best.predictions.task is Task.MULTILABEL else "accuracy"
    drawn = max(resamples, math.ceil(4 * len(others) / (1 - level)))
    found = [_compare(best, one, level, drawn, seed) for one in others]
    corrected = holm(np.array([p for _, p, _ in found]))
    compared = tuple(
        Compared(one.name, difference, p, float(fixed), test, bool(fixed < 1 - level))
        for one, (difference, p, test), fixed in zip(others, found, corrected, strict=True)
    )
    paired = all(_same_images(best, one) for one in others)
    verdict = Verdict(best.name, "", number=number, images=len(best.predictions), level=level, paired=paired, compared=compared)
    return replace(verdict, sentence=_sentence(verdict, best.number), method=_method(verdict), notes=(*_guessing(best), *_notes(verdict)))


def holm(p: FloatArray) -> FloatArray:
    """p-values corrected for their number, so that a false alarm among all of them is as rare as in one test (Holm 1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _compare(best: Contender, other: Contender, level: float, resamples: int, seed: int) -> tuple[Number, float, str]:
    """Difference with its interval, p-value and name of the test."""
    a, b = best.predictions, other.predictions
    simple = a.task is not Task.MULTILABEL and a.groups is None
    if _same_images(best, other):
        difference, p = _paired_bootstrap(a, b, level, resamples, seed)
        return (difference, mcnemar_exact(right(a), right(b)), "exact McNemar") if simple else (difference, p, _name("paired", a))
    return _two_proportions(a, b, level) if simple else _two_bootstraps(a, b, level, resamples, seed)


def right(predictions: Predictions) -> BoolArray:
    """Which rows were decided rightly, in all their labels: bool (n,)."""
    agree = predictions.predicted == known_targets(predictions)
    return np.asarray(agree.all(axis=1) if agree.ndim == 2 else agree)


def _same_images(a: Contender, b: Contender) -> bool:
    return a.split == b.split and a.predictions.images == b.predictions.images


def _name(way: str, predictions: Predictions) -> str:
    return f"{way} bootstrap" + ("" if predictions.groups is None else " over groups")


def _draws(predictions: Predictions, resamples: int, seed: int) -> tuple[float, FloatArray]:
    """The main number, and its values on resamples of rows or groups: the same seed draws the same rows."""
    if predictions.task is Task.MULTILABEL:
        truth, decided = known_targets(predictions).astype(np.bool_), predictions.predicted.astype(np.bool_)
        columns = np.hstack([truth & decided, truth, decided]).astype(np.float64)

        def measure(weights: FloatArray) -> FloatArray:
            found, true, said = np.split(np.asarray(weights @ columns), 3, axis=-1)
            return defined_mean(counted_scores(found, true, said)["f1"])
    else:
        hits = right(predictions).astype(np.float64)

        def measure(weights: FloatArray) -> FloatArray:
            return np.asarray(weights @ hits / weights.sum(axis=-1))

    n = len(predictions)
    drawn = resample(lambda weights: {"number": measure(weights)}, n, groups=predictions.groups, resamples=resamples, seed=seed)
    return float(measure(np.ones((1, n)))[0]), drawn["number"]


def _units(predictions: Predictions) -> int:
    return len(predictions) if predictions.groups is None else len(np.unique(predictions.groups))


def _paired_bootstrap(a: Predictions, b: Predictions, level: float, resamples: int, seed: int) -> tuple[Number, float]:
    (value_a, draws_a), (value_b, draws_b) = _draws(a, resamples, seed), _draws(b, resamples, seed)
    value, differences = value_a - value_b, draws_a - draws_b
    if np.array_equal(a.predicted, b.predicted):
        most = float(exact_interval(0, _units(a), level)[1])
        return Number(0.0, -most, most, "exact, the same decisions on every image"), 1.0
    return percentile(value, differences, level, _name("paired", a), _units(a)), _bootstrap_p(differences)


def _two_bootstraps(a: Predictions, b: Predictions, level: float, resamples: int, seed: int) -> tuple[Number, float, str]:
    (value_a, draws_a), (value_b, draws_b) = _draws(a, resamples, seed), _draws(b, resamples, seed + 1)
    name, differences = _name("unpaired", a), draws_a - draws_b
    units = min(_units(a), _units(b))
    return percentile(value_a - value_b, differences, level, name, units), _bootstrap_p(differences), name


def _bootstrap_p(differences: FloatArray) -> float:
    """Two-sided p of "no difference": how rarely a resample falls on the other side of zero (never 0: one more is counted)."""
    kept = differences[~np.isnan(differences)]
    tail = min(int((kept <= 0).sum()), int((kept >= 0).sum())) + 1
    return min(1.0, 2 * tail / (len(kept) + 1))


def _two_proportions(a: Predictions, b: Predictions, level: float) -> tuple[Number, float, str]:
    """Fisher's exact test, and Newcombe's interval of the difference of two proportions (1998, his method 10)."""
    hits, sizes = np.array([right(a).sum(), right(b).sum()]), np.array([len(a), len(b)])
    shares = hits / sizes
    low, high = wilson_interval(hits, sizes, level)
    value = float(shares[0] - shares[1])
    below = math.hypot(shares[0] - low[0], high[1] - shares[1])
    above = math.hypot(high[0] - shares[0], shares[1] - low[1])
    p = float(stats.fisher_exact(np.stack([hits, sizes - hits])).pvalue)
    return Number(value, value - below, value + above, "Newcombe"), p, "exact Fisher"


def _sentence(verdict: Verdict, number: Mapping[str, Any]) -> str:
    runs, equals, worse = len(verdict.compared) + 1, verdict.equals, verdict.worse
    reached = _reached(verdict, number)
    if runs == 1:
        return f"{verdict.best} is the only run with numbers: {reached}."
    start = f"{verdict.best} is the best of {runs} runs, {reached}"
    if not equals:
        return f"{start}, and it is better than every other."
    if not worse:
        return f"{start}, but no other run can be told from it: the differences are within chance."
    if len(equals) <= MOST_NAMES or len(equals) <= len(worse):
        others = worse[0] if len(worse) == 1 else f"the other {len(worse)}"
        return f"{start}; it cannot be told from {_listed(equals)}, and is better than {others}."
    return f"{start}; it cannot be told from {len(equals)} others, and is better than {_listed(worse)} only."


def _reached(verdict: Verdict, number: Mapping[str, Any]) -> str:
    value, low, high = number.get("value"), number.get("low"), number.get("high")
    if value is None:
        return "with an undefined number"
    if verdict.number == "accuracy":
        ends = "" if low is None or high is None else f" ({100 * verdict.level:g} % interval {100 * low:.1f} to {100 * high:.1f} %)"
        share = "all" if value == 1 else f"{100 * value:.1f} % of"
        return f"with {share} {verdict.images} images right{ends}"
    ends = "" if low is None or high is None else f" ({100 * verdict.level:g} % interval {low:.3f} to {high:.3f})"
    return f"with a macro F1 of {value:.3f}{ends}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _method(verdict: Verdict) -> str:
    count = len(verdict.compared)
    tests = dict.fromkeys(TEST_WORDS.get(each.test, f"the {each.test}") for each in verdict.compared)
    corrected = f", p-values corrected for {count} comparisons (Holm); the intervals are not" if count > 1 else ""
    return f"Told apart by {' and '.join(tests)} at the level of {100 * (1 - verdict.level):.3g} %{corrected}." if count else ""


def _guessing(best: Contender) -> tuple[str, ...]:
    """A note when the interval of the best run's accuracy holds that of always answering the most frequent class."""
    predictions, low = best.predictions, best.number.get("low")
    if predictions.task is Task.MULTILABEL or low is None:
        return ()
    counts = np.bincount(known_targets(predictions), minlength=len(predictions.classes))
    share = float(counts.max() / counts.sum())
    if low > share:
        return ()
    always = predictions.classes[int(counts.argmax())]
    return (f"{best.name} cannot be told from always answering {always!r}, which is right on {100 * share:.1f} % of the images.",)


def _notes(verdict: Verdict) -> tuple[str, ...]:
    if not verdict.compared:
        return ()
    runs = len(verdict.compared) + 1
    where = "on the same images " if verdict.paired else ""
    flattered = f"The best of {runs} runs {where}owes part of its lead to luck: expect less of it on new images."
    split = "The runs were not all judged on the same images; those are compared unpaired, and only large differences show."
    return (flattered,) if verdict.paired else (split, flattered)
