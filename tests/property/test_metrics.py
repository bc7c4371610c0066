"""What holds for every set of predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.evaluation import metrics
from coverslip.evaluation.calibration import (
    EVIDENCE,
    apply_platt,
    calibrate_classes,
    class_temperature,
    label_calibration_error,
    platt,
)
from coverslip.evaluation.evaluate import evaluate
from coverslip.evaluation.intervals import exact_interval, wilson_interval
from coverslip.evaluation.multilabel_metrics import MultilabelMeasures, decision_losses
from coverslip.evaluation.thresholds import (
    STRATEGIES,
    best_f1_threshold,
    best_global_threshold,
    choose_thresholds,
    decide_multilabel,
    stratified_folds,
    threshold_curve,
)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
@given(ranked)
def test_ranks_do_not_see_a_monotone_change_of_scores(rows):
    relevant, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], float)
    for function in (metrics.roc_auc, metrics.average_precision):
        np.testing.assert_allclose(function(relevant, scores), function(relevant, np.exp(scores)))
    np.testing.assert_allclose(metrics.roc_auc(relevant, scores), 1 - metrics.roc_auc(~relevant, scores))


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


@st.composite
def labelled(draw, most=20):
    n, classes = draw(st.integers(1, most)), draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, classes)) < draw(st.sampled_from([0.0, 0.1, 0.4, 0.8]))).astype(np.int64)
    scores = rng.integers(0, draw(st.sampled_from([3, 12, 10**6])), (n, classes)).astype(float)
    scores /= max(1.0, scores.max())
    predicted = (scores >= draw(st.sampled_from([0.2, 0.5, 2.0]))).astype(np.int64)
    return Predictions(tuple(map(str, range(n))), scores, predicted, tuple(f"c{k}" for k in range(classes)), Task.MULTILABEL, targets)


@settings(deadline=None)
@given(labelled(), st.integers(0, 1000))
def test_whole_weights_are_copies_of_multilabel_rows_in_any_order(some, seed):
    times = 1 + np.arange(len(some)) % 3
    rows = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(some)), times))
    copied = Predictions(tuple(map(str, rows)), some.scores[rows], some.predicted[rows], some.classes, some.task, some.targets[rows])
    weighted = MultilabelMeasures(some, some.targets)(times[None].astype(float))
    plain = MultilabelMeasures(copied, copied.targets)(np.ones((1, len(rows))))
    assert weighted.keys() == plain.keys()
    for name, values in weighted.items():
        np.testing.assert_allclose(values, plain[name], atol=1e-12)


@settings(deadline=None)
@given(labelled())
def test_multilabel_numbers_lie_in_their_range_and_are_undefined_where_they_must(some):
    numbers = MultilabelMeasures(some, some.targets)(np.ones((1, len(some))))
    for name, values in numbers.items():
        defined = values[~np.isnan(values)]
        top = {"log_loss": 40, "labels_true": len(some.classes), "labels_predicted": len(some.classes)}.get(name, 1)
        assert ((defined >= -1e-12) & (defined <= top + 1e-9)).all()
    positives, predicted, n = some.targets.sum(axis=0), some.predicted.sum(axis=0), len(some)
    for name in ("recall", "f1", "average_precision"):
        np.testing.assert_array_equal(np.isnan(numbers[f"class_{name}"][0]), positives == 0)
    np.testing.assert_array_equal(np.isnan(numbers["class_precision"][0]), predicted == 0)
    np.testing.assert_array_equal(np.isnan(numbers["class_roc_auc"][0]), (positives == 0) | (positives == n))
    assert numbers["hamming_loss"][0] <= 1 - numbers["exact_match"][0] + 1e-12 <= 1 + 1e-9
    errors = [label_calibration_error(some.scores[:, k], some.targets[:, k]) for k in range(len(some.classes))]
    np.testing.assert_allclose(numbers["class_calibration_error"][0], errors, atol=1e-12)
    np.testing.assert_allclose(numbers["calibration_error"][0], label_calibration_error(some.scores, some.targets), atol=1e-12)
    assert numbers["calibration_error"][0] <= np.mean(errors) + 1e-12


@settings(deadline=None, max_examples=60)
@given(labelled(most=12), st.booleans())
def test_every_multilabel_interval_holds_its_value(some, grouped):
    if grouped:
        groups = np.array([str(i % 3) for i in range(len(some))])
        some = Predictions(some.images, some.scores, some.predicted, some.classes, some.task, some.targets, groups)
    numbers = evaluate(some, resamples=100)
    entries = [entry for entry in numbers.values() if isinstance(entry, dict) and "low" in entry]
    entries += [entry for per_class in numbers["per_class"].values() for entry in per_class.values() if isinstance(entry, dict)]
    assert len(entries) == 18 + 6 * len(some.classes)
    for entry in entries:
        if entry["value"] is None:
            assert entry["method"].startswith("undefined")
            assert entry["low"] is entry["high"] is None
        elif entry["low"] is not None:
            assert entry["low"] - 1e-12 <= entry["value"] <= entry["high"] + 1e-12
    if np.array_equal(some.predicted, some.targets):
        assert numbers["exact_match"]["low"] < 1
        assert numbers["micro_f1"]["value"] is None or numbers["micro_f1"]["low"] < 1


def f1_by_hand(decided, truth):
    return 2 * np.sum(decided & truth) / (np.sum(decided) + np.sum(truth))


@settings(deadline=None)
@given(labelled())
def test_no_threshold_beats_the_best(some):
    for k in range(len(some.classes)):
        scores, truth = some.scores[:, k], some.targets[:, k] == 1
        best = best_f1_threshold(scores, some.targets[:, k])
        if not truth.any():
            assert np.isnan(best)
            continue
        reached = max(f1_by_hand(scores >= level, truth) for level in [*scores, 2.0])
        assert 0 <= best <= 1
        assert f1_by_hand(scores >= best, truth) == pytest.approx(reached)
        curve = threshold_curve(scores, some.targets[:, k])
        np.testing.assert_allclose(curve.f1, [f1_by_hand(scores >= threshold, truth) for threshold in curve.thresholds])


@settings(deadline=None)
@given(labelled())
def test_no_constant_beats_the_global_threshold(some):
    truth = some.targets == 1
    defined = np.flatnonzero(truth.any(axis=0))
    best = best_global_threshold(some.scores, some.targets)
    if not defined.size:
        assert np.isnan(best)
        return
    reached = {
        level: np.mean([f1_by_hand(some.scores[:, k] >= level, truth[:, k]) for k in defined])
        for level in [*some.scores.ravel().tolist(), best]
    }
    assert reached[best] == pytest.approx(max(reached.values()))


@settings(deadline=None)
@given(labelled(), st.sampled_from(STRATEGIES), st.booleans())
def test_thresholds_are_shares_and_decide_as_they_say(some, strategy, at_least_one):
    chosen = choose_thresholds(some.scores, some.targets, strategy, at_least_one=at_least_one)
    again = choose_thresholds(some.scores, some.targets, strategy, at_least_one=at_least_one)
    np.testing.assert_array_equal(chosen.values, again.values)
    assert ((chosen.values >= 0) & (chosen.values <= 1)).all()
    assert np.isnan(chosen.estimate) or 0 <= chosen.estimate <= 1
    plain, full = decide_multilabel(some.scores, chosen.values), decide_multilabel(some.scores, chosen.values, at_least_one=True)
    np.testing.assert_array_equal(plain, some.scores >= chosen.values)
    labels = plain.sum(axis=1)
    np.testing.assert_array_equal(full.sum(axis=1), np.maximum(labels, 1))
    assert (full >= plain).all()


@settings(deadline=None)
@given(labelled(most=40), st.integers(1, 6))
def test_every_row_is_in_one_fold_and_the_rarest_class_is_dealt_evenly(some, folds):
    fold = stratified_folds(some.targets, folds, np.random.default_rng(0))
    assert fold.shape == (len(some),)
    assert ((fold >= 0) & (fold < folds)).all()
    positives = some.targets.sum(axis=0)
    if positives.any():
        rarest = np.flatnonzero(positives == positives[positives > 0].min())[0]
        counts = np.bincount(fold[some.targets[:, rarest] == 1], minlength=folds)
        assert counts.max() - counts.min() <= 1


@settings(deadline=None, max_examples=50)
@given(labelled(), st.sampled_from(["platt", "temperature"]))
def test_calibration_keeps_the_order_and_never_loses_to_the_mixture_of_losses(some, method):
    fitted = calibrate_classes(some.scores, some.targets, method)
    after = fitted.apply(some.scores)
    assert np.isfinite(after).all()
    for k in range(len(some.classes)):
        assert (np.diff(after[np.argsort(some.scores[:, k], kind="stable"), k]) >= 0).all()
    fit = platt if method == "platt" else lambda scores, targets: (1 / class_temperature(scores, targets), 0.0)
    pooled = fit(some.scores.ravel(), some.targets.ravel())
    for k in range(len(some.classes)):
        scores, targets = some.scores[:, k], some.targets[:, k]
        evidence = min(targets.sum(), len(some) - targets.sum())
        share = evidence / (evidence + EVIDENCE)
        ours, own, shared = (
            decision_losses(targets, apply_platt(scores, *line))[0].mean()
            for line in ((fitted.slopes[k], fitted.offsets[k]), fit(scores, targets), pooled)
        )
        assert ours <= share * own + (1 - share) * shared + 1e-6
