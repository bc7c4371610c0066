"""Is A better than B?"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from coverslip.errors import InputError
from coverslip.evaluation.comparison import mcnemar_exact, paired_bootstrap
from coverslip.structures import Predictions, Task


def rated(right, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.arange(len(right)) % 2
    predicted = np.where(right, targets, 1 - targets)
    positive = np.where(predicted == 1, 0.6, 0.2) + 0.2 * rng.random(len(right))
    scores = np.stack([1 - positive, positive], axis=1)
    return Predictions(tuple(map(str, range(len(right)))), scores, predicted, ("no", "yes"), Task.BINARY, targets)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 3), (2, 11), (40, 25)])
def test_mcnemar_is_the_binomial_test_on_the_differing_rows(only_a, only_b):
    right_a = np.array([True] * 50 + [True] * only_a + [False] * only_b)
    right_b = np.array([True] * 50 + [False] * only_a + [True] * only_b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(right_a, right_b) == pytest.approx(expected)
    assert mcnemar_exact(right_b, right_a) == pytest.approx(expected)


def test_a_model_does_not_differ_from_itself():
    a = rated(np.random.default_rng(0).random(100) < 0.8)
    for number in paired_bootstrap(a, a, resamples=100).values():
        assert (number.value, number.low, number.high) == (0, 0, 0)


def test_pairing_sees_a_small_steady_difference():
    """B is wrong wherever A is, and on 8 rows more: the interval of the difference leaves out 0."""
    right = np.random.default_rng(1).random(400) < 0.8
    worse = right.copy()
    worse[np.flatnonzero(right)[:8]] = False
    number = paired_bootstrap(rated(right), rated(worse), resamples=500)["accuracy"]
    assert number.value == pytest.approx(8 / 400)
    assert 0 < number.low < 0.02 < number.high < 0.04


def test_other_rows_are_refused():
    a = rated(np.ones(10, bool))
    with pytest.raises(InputError, match="same images"):
        paired_bootstrap(a, replace(a, images=a.images[::-1]))
