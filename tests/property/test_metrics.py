"""What holds for every set of predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.evaluation import metrics
from coverslip.evaluation.evaluate import evaluate
from coverslip.evaluation.intervals import exact_interval, wilson_interval
from coverslip.structures import Predictions, Task


@st.composite
def predictions(draw, most=25):
    n, classes = draw(st.integers(1, most)), draw(st.integers(2, 5))
    integers = st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)
    targets = np.array(draw(integers))
    raw = np.array(draw(st.lists(st.lists(st.integers(1, 20), min_size=classes, max_size=classes), min_size=n, max_size=n)), float)
    scores = raw / raw.sum(axis=1, keepdims=True)
    predicted = np.array(draw(integers)) if draw(st.booleans()) else scores.argmax(axis=1)
    names = tuple(f"c{k}" for k in range(classes))
    task = Task.BINARY if classes == 2 else Task.MULTICLASS
    return Predictions(tuple(map(str, range(n))), scores, predicted, names, task, targets)


ranked = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=30)


@given(ranked)
def test_roc_auc_is_the_share_of_pairs_in_order(rows):
    relevant, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    pairs = [(wp * wn, 1.0 if sp > sn else 0.5 if sp == sn else 0.0) for p, sp, wp in rows for q, sn, wn in rows if p and not q]
    total = sum(weight for weight, _ in pairs)
    ours = metrics.roc_auc(relevant, scores.astype(float), weights.astype(float))
    if total == 0:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(sum(weight * value for weight, value in pairs) / total)


@given(ranked)
def test_average_precision_sums_precision_over_steps_of_recall(rows):
    relevant, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], float)
    ours = metrics.average_precision(relevant, scores)
    if not relevant.any():
        assert np.isnan(ours)
        return
    expected, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        recall = relevant[chosen].sum() / relevant.sum()
        expected += (recall - before) * relevant[chosen].mean()
        before = recall
    assert ours == pytest.approx(expected)


@given(ranked)
def test_ranks_do_not_see_a_monotone_change_of_scores(rows):
    relevant, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], float)
    for function in (metrics.roc_auc, metrics.average_precision):
        np.testing.assert_allclose(function(relevant, scores), function(relevant, np.exp(scores)))
    np.testing.assert_allclose(metrics.roc_auc(relevant, scores), 1 - metrics.roc_auc(~relevant, scores))


@given(predictions(), st.integers(0, 1000))
def test_numbers_lie_in_their_range_and_do_not_see_the_order_of_rows(some, seed):
    n = len(some)
    order = np.random.default_rng(seed).permutation(n)
    moved = Predictions(some.images, some.scores[order], some.predicted[order], some.classes, some.task, some.targets[order])
    numbers = metrics.Measures(some, some.targets)(np.ones((1, n)))
    again = metrics.Measures(moved, moved.targets)(np.ones((1, n)))
    tops = {"mcc": (-1, 1), "log_loss": (0, 40), "brier": (0, 2)}
    for name, values in numbers.items():
        np.testing.assert_allclose(values, again[name], atol=1e-12)
        low, high = tops.get(name, (0, 1))
        defined = values[~np.isnan(values)]
        assert ((low - 1e-9 <= defined) & (defined <= high + 1e-9)).all()


@given(predictions())
def test_whole_weights_are_copies_of_rows(some):
    times = 1 + np.arange(len(some)) % 3
    rows = np.repeat(np.arange(len(some)), times)
    copied = Predictions(tuple(map(str, rows)), some.scores[rows], some.predicted[rows], some.classes, some.task, some.targets[rows])
    weighted = metrics.Measures(some, some.targets)(times[None].astype(float))
    plain = metrics.Measures(copied, copied.targets)(np.ones((1, len(rows))))
    for name, values in weighted.items():
        np.testing.assert_allclose(values, plain[name], atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(predictions(most=12), st.booleans())
def test_every_interval_holds_its_value_and_is_never_a_point_at_one(some, grouped):
    if grouped:
        groups = np.array([str(i % 3) for i in range(len(some))])
        some = Predictions(some.images, some.scores, some.predicted, some.classes, some.task, some.targets, groups)
    numbers = evaluate(some, resamples=100)
    entries = [entry for entry in numbers.values() if isinstance(entry, dict) and "low" in entry]
    entries += [entry for per_class in numbers["per_class"].values() for entry in per_class.values() if isinstance(entry, dict)]
    assert len(entries) >= 14 + 5 * len(some.classes)
    for entry in entries:
        if entry["value"] is not None and entry["low"] is not None:
            assert entry["low"] - 1e-12 <= entry["value"] <= entry["high"] + 1e-12
    if np.array_equal(some.predicted, some.targets):
        assert numbers["accuracy"]["low"] < 1


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.6, 0.999))
def test_proportion_intervals_hold_the_share_and_mirror(hits, trials, level):
    hits = min(hits, trials)
    for interval in (exact_interval, wilson_interval):
        low, high = interval(hits, trials, level)
        other_low, other_high = interval(trials - hits, trials, level)
        assert -1e-12 <= low <= hits / trials + 1e-12
        assert hits / trials - 1e-12 <= high <= 1
        assert low == pytest.approx(1 - other_high, abs=1e-9)
        assert high == pytest.approx(1 - other_low, abs=1e-9)
