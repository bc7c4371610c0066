"""Intervals against closed forms, and their coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from coverslip.evaluation.intervals import (
    UNDEFINED,
    bootstrap,
    exact,
    exact_interval,
    mirrored,
    percentile,
    resample,
    wilson,
    wilson_interval,
)


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=-1)}


def test_21_of_22_is_77_to_999():
    number = exact(21, 22)
    assert number.value == pytest.approx(0.9545, abs=1e-4)
    assert (round(number.low, 2), round(number.high, 3)) == (0.77, 0.999)


def test_all_right_has_the_closed_form_low():
    """(alpha / 2) ** (1 / n) solves p ** n = alpha / 2."""
    for n in (1, 3, 22, 1000):
        assert exact(n, n).low == pytest.approx(0.025 ** (1 / n))
        assert exact(n, n).high == 1.0
        assert exact(0, n).high == pytest.approx(1 - 0.025 ** (1 / n))


def test_exact_ends_solve_the_binomial_tails():
    low, high = exact_interval(7, 20, level=0.9)
    assert stats.binom.sf(6, 20, low) == pytest.approx(0.05)
    assert stats.binom.cdf(7, 20, high) == pytest.approx(0.05)


def test_wilson_ends_solve_the_score_equation():
    low, high = wilson_interval(7, 20)
    for end in (low, high):
        assert abs(7 / 20 - end) / math.sqrt(end * (1 - end) / 20) == pytest.approx(stats.norm.ppf(0.975))


@pytest.mark.parametrize("truth", [0.02, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [10, 22, 100])
def test_exact_covers_at_least_the_level_and_wilson_about_it(truth, n):
    hits = np.arange(n + 1)
    chance = stats.binom.pmf(hits, n, truth)
    low, high = exact_interval(hits, n)
    assert chance[(low <= truth) & (truth <= high)].sum() >= 0.95
    low, high = wilson_interval(hits, n)
    assert chance[(low <= truth) & (truth <= high)].sum() > 0.88


def test_no_trials_is_undefined():
    assert not exact(0, 0).defined
    assert not wilson(0, 0).defined
    assert np.isnan(exact_interval([0, 1], [0, 1])[0]).tolist() == [True, False]
    assert UNDEFINED.to_json() == {"value": None, "low": None, "high": None, "method": "undefined"}


def test_bootstrap_of_a_mean_covers_it():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        number = bootstrap(mean_of(rng.normal(size=50)), 50, resamples=400, seed=seed)["mean"]
        covered += number.low <= 0 <= number.high
    assert 0.90 <= covered / 200 <= 0.98


def test_bootstrap_over_groups_covers_where_rows_do_not():
    """40 groups of 10 rows that share most of their value: rows are far from independent."""
    rng = np.random.default_rng(1)
    groups, covered = np.repeat(np.arange(40), 10), {"rows": 0, "groups": 0}
    for seed in range(200):
        values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=400)
        for name, by in (("rows", None), ("groups", groups)):
            number = bootstrap(mean_of(values), 400, groups=by, resamples=300, seed=seed)["mean"]
            covered[name] += number.low <= 0 <= number.high
    assert covered["groups"] / 200 >= 0.88
    assert covered["rows"] / 200 <= 0.7


def test_each_resample_draws_as_many_rows_as_there_are():
    seen = resample(lambda weights: {"sum": weights.sum(axis=1), "most": weights.max(axis=1)}, 30, resamples=500, seed=3)
    assert (seen["sum"] == 30).all()
    assert seen["sum"].shape == (500,)
    assert seen["most"].max() >= 4


def test_rows_of_a_group_are_drawn_together():
    groups = np.array(["a", "b", "a", "c"])
    seen = resample(lambda weights: {"weights": weights}, 4, groups=groups, resamples=50)["weights"]
    assert (seen[:, 0] == seen[:, 2]).all()
    assert (seen[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_same_seed_gives_the_same_resamples():
    first, again, other = (bootstrap(mean_of(np.arange(20.0)), 20, seed=seed)["mean"] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_undefined_resamples_are_left_out_and_said():
    draws = np.array([np.nan] * 100 + [0.5] * 450 + [0.7] * 450)
    number = percentile(0.6, draws)
    assert (number.low, number.high, number.method) == (0.5, 0.7, "bootstrap, 10% of resamples undefined")
    assert percentile(0.6, draws[97:]).method == "bootstrap"
    assert percentile(math.nan, draws) == UNDEFINED
    assert percentile(0.6, np.full(10, np.nan)).to_json()["low"] is None


def test_mirrored_reaches_below_a_biased_bootstrap():
    """Resamples lie 0.02 above the value, so the truth lies below it."""
    draws = 0.05 + 0.02 + np.linspace(-0.01, 0.01, 1001)
    number = mirrored(0.05, draws)
    assert number.low == pytest.approx(0.0205, abs=1e-4)
    assert number.high == pytest.approx(0.0795, abs=1e-4)
    assert mirrored(0.01, draws).low == 0.0
    assert not mirrored(math.nan, draws).defined
    assert math.isnan(mirrored(0.1, np.full(10, np.nan)).low)


def test_few_units_widen_the_percentiles_to_those_of_t():
    draws = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    for units in (5, 20, 200):
        assert percentile(0.0, draws, units=units).high == pytest.approx(
            stats.t.ppf(0.975, units - 1) * (units / (units - 1)) ** 0.5, rel=2e-3
        )
    assert percentile(0.0, draws, units=1).high == pytest.approx(1.96, abs=1e-2)


def test_the_mean_of_five_groups_is_covered():
    rng = np.random.default_rng(2)
    numbers = (bootstrap(mean_of(rng.normal(size=5)), 5, resamples=400, seed=seed)["mean"] for seed in range(300))
    assert 0.85 <= np.mean([number.low <= 0 <= number.high for number in numbers]) <= 0.98
