"""An interval on every number: exact and Wilson for proportions, the bootstrap for the rest.

The bootstrap never copies rows: a resample is a vector of row weights (how often each row was drawn), and a statistic
maps weights (b, n) to b values at once, so that all numbers come from the same resamples. Plain numpy and scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

from coverslip.structures import FloatArray, IntArray, StrArray

Statistic = Callable[[FloatArray], Mapping[str, FloatArray]]
"""Row weights float64 (b, n) → {name: float64 (b, ...)}; NaN where a value is undefined."""

CHUNK = 2_000_000
"""Row weights held at a time; bounds the memory of the bootstrap."""

UNDEFINED_SHARE = 0.05
"""Above this share of undefined resamples the method says so."""


@dataclass(frozen=True)
class Number:
    """A value with its interval.

    Attributes:
        value: the estimate; NaN when it is undefined.
        low: lower end; NaN when undefined.
        high: upper end; NaN when undefined.
        method: how the interval was made, in words.
    """

    value: float
    low: float
    high: float
    method: str

    @property
    def defined(self) -> bool:
        """Whether there is a value at all."""
        return not math.isnan(self.value)

    def to_json(self) -> dict[str, float | str | None]:
        """Plain values for `metrics.json`; what is undefined is None."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(end) if math.isfinite(end) else None for name, end in ends.items()} | {"method": self.method}


UNDEFINED = Number(math.nan, math.nan, math.nan, "undefined")


def exact_interval(successes: npt.ArrayLike, trials: npt.ArrayLike, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Exact interval of proportions (Clopper and Pearson 1934): two arrays of the inputs' shape in [0, 1].

    Covers the truth with at least `level`, whatever the truth. NaN where there were no trials.

    >>> low, high = exact_interval([21, 22], [22, 22])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.772, 0.846], [0.999, 1.0])
    """
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    tail = (1 - level) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def wilson_interval(successes: npt.ArrayLike, trials: npt.ArrayLike, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Score interval of proportions (Wilson 1927): two arrays of the inputs' shape in [0, 1].

    Narrower than the exact one; covers the truth with `level` on average. NaN where there were no trials.

    >>> low, high = wilson_interval(21, 22)
    >>> round(float(low), 3), round(float(high), 3)
    (0.782, 0.992)
    """
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    z = float(ndtri((1 + level) / 2))
    trial = np.where(n > 0, n, np.nan)
    share = k / trial
    centre = (share + z**2 / (2 * trial)) / (1 + z**2 / trial)
    half = z / (1 + z**2 / trial) * np.sqrt(share * (1 - share) / trial + z**2 / (4 * trial**2))
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def exact(successes: float, trials: float, level: float = 0.95) -> Number:
    """A proportion with its exact interval; undefined without trials.

    >>> exact(21, 22).method, exact(0, 0).defined
    ('exact', False)
    """
    low, high = exact_interval(successes, trials, level)
    return Number(successes / trials, float(low), float(high), "exact") if trials else UNDEFINED


def wilson(successes: float, trials: float, level: float = 0.95) -> Number:
    """A proportion with its Wilson interval; undefined without trials."""
    low, high = wilson_interval(successes, trials, level)
    return Number(successes / trials, float(low), float(high), "wilson") if trials else UNDEFINED


def resample(
    statistic: Statistic, n: int, *, groups: StrArray | IntArray | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, FloatArray]:
    """Values of a statistic on resamples of the rows, or of whole groups (Efron 1979; Field and Welsh 2007).

    Args:
        statistic: see `Statistic`; called on some hundred resamples at a time.
        n: number of rows.
        groups: (n,), rows that are drawn together.
        resamples: how many.
        seed: the same seed gives the same resamples, for any statistic.

    Returns:
        {name: float64 (resamples, ...)}.
    """
    random = np.random.default_rng(seed)
    member = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    size = int(member.max()) + 1
    step = max(1, CHUNK // max(n, size))
    pieces: list[Mapping[str, FloatArray]] = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = random.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        # A column a resample in memory: the sparse sums of the metrics then run without copies.
        pieces.append(statistic(times.T[member].astype(np.float64, order="C").T))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    groups: StrArray | IntArray | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Number]:
    """Percentile bootstrap of statistics with one value a resample: {name: Number}.

    >>> heights = np.array([1.0, 2.0, 3.0, 4.0])
    >>> mean = bootstrap(lambda weights: {"mean": weights @ heights / weights.sum(axis=1)}, 4)["mean"]
    >>> mean.value, mean.low < 2.5 < mean.high, mean.method
    (2.5, True, 'bootstrap')
    """
    draws = resample(statistic, n, groups=groups, resamples=resamples, seed=seed)
    values = statistic(np.ones((1, n)))
    method, units = ("bootstrap", n) if groups is None else ("bootstrap over groups", len(np.unique(groups)))
    return {name: percentile(float(values[name][0]), draws[name], level, method, units) for name in draws}


def percentile(value: float, draws: FloatArray, level: float = 0.95, method: str = "bootstrap", units: int | None = None) -> Number:
    """The middle `level` of the resampled values, widened to hold the value where bias has moved them.

    Args:
        value: the number on all rows.
        draws: float64 (resamples,); NaN are left out, and said when they are more than 5 %.
        level: confidence level.
        method: what to call it.
        units: how many independent rows or groups were resampled. Few of them make the bootstrap too sure of itself;
            the percentiles are moved outwards as a t-interval is wider than a normal one (Hesterberg 2015).
    """
    kept = draws[~np.isnan(draws)]
    if math.isnan(value) or not kept.size:
        return UNDEFINED if math.isnan(value) else Number(value, math.nan, math.nan, f"{method}, all resamples undefined")
    tail = _expanded_tail((1 - level) / 2, units)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Number(value, min(float(low), value), max(float(high), value), method + _undefined(draws))


def mirrored(value: float, draws: FloatArray, level: float = 0.95, method: str = "bootstrap", units: int | None = None) -> Number:
    """The percentiles, and their mirror image about the value (Davison and Hinkley 1997), whichever reaches further.

    For numbers from 0 that resampling biases upwards. Calibration error is one: resamples of a perfectly calibrated
    model look miscalibrated, so that the truth lies below them all. Never below 0.
    """
    straight = percentile(value, draws, level, method, units)
    low = max(0.0, min(straight.low, 2 * value - straight.high))
    return Number(value, low, max(straight.high, 2 * value - straight.low), straight.method) if straight.low <= straight.high else straight


def _expanded_tail(tail: float, units: int | None) -> float:
    if units is None or units < 2:
        return tail
    return float(ndtr(math.sqrt(units / (units - 1)) * stdtrit(units - 1, tail)))


def _undefined(draws: FloatArray) -> str:
    share = float(np.isnan(draws).mean())
    return f", {share:.0%} of resamples undefined" if share > UNDEFINED_SHARE else ""
