"""Thresholds: exact against brute force, honest about what they promise."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve

from coverslip.errors import InputError
from coverslip.evaluation.decisions import decide
from coverslip.evaluation.thresholds import (
    EVIDENCE,
    STRATEGIES,
    best_f1_threshold,
    best_global_threshold,
    choose_thresholds,
    compare_thresholds,
    decide_multilabel,
    ratio_threshold,
    stratified_folds,
    threshold_curve,
)
from coverslip.structures import Task


def drawn(n, seed, share=(0.4, 0.15, 0.05, 0.02), shift=0.0, signal=2.5):
    """Scores that would be calibrated but for a shift of the log-odds."""
    rng = np.random.default_rng(seed)
    share = np.array(share)
    targets = (rng.random((n, len(share))) < share).astype(np.int64)
    evidence = rng.normal(size=targets.shape) + signal * targets
    odds = np.log(share / (1 - share)) + signal * evidence - signal**2 / 2 + shift
    return 1 / (1 + np.exp(-odds)), targets


def macro_f1(targets, decided):
    return f1_score(targets, decided, average="macro", zero_division=np.nan)


@pytest.mark.parametrize("seed", range(10))
def test_the_best_threshold_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    scores, targets = np.round(rng.random(30), 1 + seed % 2), rng.integers(2, size=30)
    reached = {level: f1_score(targets, scores >= level) for level in np.unique(scores)}
    found = best_f1_threshold(scores, targets)
    assert f1_score(targets, scores >= found) == pytest.approx(max(reached.values()))
    assert found not in scores or found == 0
    assert scores[scores >= found].min() == max(level for level in reached if np.isclose(reached[level], max(reached.values())))


@pytest.mark.parametrize("seed", range(10))
def test_the_global_threshold_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    scores, targets = np.round(rng.random((25, 4)), 2), (rng.random((25, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.int64)
    candidates = [*np.unique(scores), 1.01]
    best = max(np.mean([f1_score(t, s >= c) for t, s in zip(targets.T, scores.T, strict=True) if t.any()]) for c in candidates)
    found = best_global_threshold(scores, targets)
    assert np.mean([f1_score(t, s >= found) for t, s in zip(targets.T, scores.T, strict=True) if t.any()]) == pytest.approx(best)


def test_the_curve_is_that_of_scikit_learn():
    scores, targets = (array[:, 1] for array in drawn(200, 0))
    scores = np.round(scores, 2)
    curve = threshold_curve(scores, targets)
    precision, recall, levels = precision_recall_curve(targets, scores)
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])
    np.testing.assert_allclose(curve.f1, [f1_score(targets, scores >= level) for level in levels[::-1]])
    np.testing.assert_allclose(curve.thresholds, (levels + np.append(0, levels[:-1]))[::-1] / 2)


def test_neighbouring_floats_keep_a_threshold_between_them():
    low, high = 0.5, np.nextafter(0.5, 1)
    found = best_f1_threshold(np.array([low, high]), np.array([0, 1]))
    assert low < found <= high


def test_zero_scores_and_no_positives():
    assert best_f1_threshold(np.array([0.0, 0.0]), np.array([1, 0])) == 0
    assert np.isnan(best_f1_threshold(np.array([0.2, 0.3]), np.array([0, 0])))
    assert np.isnan(best_global_threshold(np.full((2, 2), 0.3), np.zeros((2, 2), int)))


@pytest.mark.parametrize("ratio", [0.0, 0.013, 0.25, 0.5, 0.99, 1.0])
def test_ratio_thresholds_come_as_close_as_scores_allow(ratio):
    scores = np.round(0.99 * np.random.default_rng(0).random(90), 2)
    off = {level: abs(np.mean(scores >= level) - ratio) for level in [*np.unique(scores), 1.1]}
    found = ratio_threshold(scores, ratio)
    assert 0 <= found <= 1
    assert abs(np.mean(scores >= found) - ratio) == pytest.approx(min(off.values()))


def test_folds_share_the_positives_of_every_class():
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 12)) < 0.5 * 0.55 ** np.arange(12)).astype(np.int64)
    assert targets.sum(axis=0).min() < 10
    fold = stratified_folds(targets, 5, rng)
    counts = np.array([targets[fold == f].sum(axis=0) for f in range(5)])
    assert np.abs(np.bincount(fold, minlength=5) - 600).max() <= 60
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= max(2, 0.1 * counts.max())
    rarest = targets.sum(axis=0).argmin()
    assert counts[:, rarest].max() - counts[:, rarest].min() <= 1


def test_thresholds_of_each_strategy():
    scores, targets = drawn(2000, 0)
    chosen = {strategy: choose_thresholds(scores, targets, strategy) for strategy in STRATEGIES}
    assert chosen["fixed"].values.tolist() == [0.5] * 4
    assert chosen["fixed"].estimate == pytest.approx(macro_f1(targets, scores >= 0.5))
    assert choose_thresholds(scores, targets, "fixed", fixed=0.3).values.tolist() == [0.3] * 4
    assert chosen["global"].values.tolist() == [best_global_threshold(scores, targets)] * 4
    np.testing.assert_allclose(np.mean(scores >= chosen["ratio"].values, axis=0), targets.mean(axis=0), atol=1e-3)
    asked = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(np.mean(scores >= choose_thresholds(scores, targets, "ratio", ratio=asked).values, axis=0), asked, atol=1e-3)
    assert all(np.isfinite(each.estimate) and each.values.shape == (4,) and each.note for each in chosen.values())


def test_own_thresholds_are_shrunk_by_their_evidence():
    """A common class keeps its own threshold, a class of two positives goes most of the way to the global one."""
    rng = np.random.default_rng(1)
    targets = np.zeros((2000, 4), int)
    targets[:1000, 0], targets[:500, 1], targets[:2, 2], targets[:400, 3] = 1, 1, 1, 1
    scores = np.stack([np.where(targets[:, k] == 1, top, top - 0.05) for k, top in enumerate((0.85, 0.85, 0.15, 0.85))], axis=1)
    scores += rng.uniform(-0.01, 0.01, scores.shape)
    together = best_global_threshold(scores, targets)
    chosen = choose_thresholds(scores, targets, "per_class").values
    assert together == pytest.approx(0.825, abs=0.02)
    assert chosen[:2] == pytest.approx(0.825, abs=0.01)
    odds = np.log(chosen[2] / (1 - chosen[2]))
    expected = (2 * np.log(0.125 / 0.875) + EVIDENCE * np.log(together / (1 - together))) / (2 + EVIDENCE)
    assert odds == pytest.approx(expected, abs=0.15)


def test_a_class_without_positives_gets_the_global_threshold():
    scores, targets = drawn(400, 3)
    targets[:, 3] = 0
    chosen = choose_thresholds(scores, targets, "per_class")
    assert chosen.values[3] == pytest.approx(best_global_threshold(scores, targets))
    nothing = choose_thresholds(scores, np.zeros_like(targets), "per_class", fixed=0.4)
    assert nothing.values == pytest.approx(0.4)
    assert np.isnan(nothing.estimate)


@pytest.mark.parametrize("strategy", ["global", "per_class"])
def test_a_class_that_was_never_learned_has_no_say_and_is_not_predicted_from_a_low_score(strategy):
    scores, targets = drawn(800, 2, shift=-1.0)
    scores = np.append(scores, np.full((800, 1), 0.09), axis=1)
    targets = np.append(targets, np.ones((800, 1), np.int64), axis=1)  # all rows that choose carry it, none that were learned from
    chosen = choose_thresholds(scores, targets, strategy, ratio=np.append(targets[:, :4].mean(axis=0), 0.0))
    assert chosen.values[4] == 0.5
    assert "at least 0.5 for the 1 that no training image carries" in chosen.note
    without = choose_thresholds(scores[:, :4], targets[:, :4], "global").values[0]
    together = choose_thresholds(scores, targets, "global", ratio=np.array([0.4, 0.15, 0.05, 0.02, 0.0])).values
    np.testing.assert_array_equal(together[:4], without)
    known = choose_thresholds(scores, targets, strategy, ratio=np.append(targets[:, :4].mean(axis=0), 0.1))
    assert known.values[4] < 0.1
    assert "no training image" not in known.note


def test_the_estimate_promises_no_more_than_new_rows_give():
    """Own thresholds on few rows look good on these rows; the estimate, on average, is what 20,000 new rows give."""
    new_scores, new_targets = drawn(20_000, 999)
    seen, promised, given = [], [], []
    for seed in range(25):
        scores, targets = drawn(250, seed)
        chosen = choose_thresholds(scores, targets, "per_class", seed=seed)
        seen.append(macro_f1(targets, scores >= chosen.values))
        promised.append(chosen.estimate)
        given.append(macro_f1(new_targets, new_scores >= chosen.values))
    assert np.mean(seen) > np.mean(given) + 0.02
    assert np.mean(promised) == pytest.approx(np.mean(given), abs=0.03)


def test_calibrated_imbalanced_scores_gain_from_own_thresholds():
    """With few rows to choose on, cross-fitted and shrunk thresholds beat 0.5 and each class's raw optimum."""
    new_scores, new_targets = drawn(20_000, 999, signal=1.8)
    plain, raw, ours = [], [], []
    for seed in range(15):
        scores, targets = drawn(400, seed, signal=1.8)
        best = [best_f1_threshold(scores[:, k], targets[:, k]) for k in range(4)]
        for found, values in ((plain, 0.5), (raw, best), (ours, choose_thresholds(scores, targets, "per_class").values)):
            found.append(macro_f1(new_targets, new_scores >= values))
    assert np.mean(ours) > np.mean(plain) + 0.03
    assert np.mean(ours) > np.mean(raw) + 0.005


def test_the_table_of_all_strategies():
    scores, targets = drawn(800, 0)
    other = drawn(600, 1)
    groups = {"test": (np.arange(600) // 10).astype(str)}
    table = compare_thresholds(scores, targets, {"validation": (scores, targets), "test": other}, groups=groups, fixed=0.3, resamples=100)
    assert list(table) == ["plain", *STRATEGIES]
    for name, entry in table.items():
        values = np.array(entry["thresholds"])
        for part, (part_scores, part_targets) in {"validation": (scores, targets), "test": other}.items():
            decided = part_scores >= values
            numbers = entry["parts"][part]
            assert numbers["macro_f1"]["value"] == pytest.approx(macro_f1(part_targets, decided))
            assert numbers["micro_f1"]["value"] == pytest.approx(f1_score(part_targets, decided, average="micro"))
            gain = numbers["macro_f1"]["value"] - table["plain"]["parts"][part]["macro_f1"]["value"]
            assert numbers["macro_f1_gain"]["value"] == pytest.approx(gain)
            assert numbers["macro_f1"]["method"] == ("bootstrap over groups" if part == "test" else "bootstrap"), name
    assert table["fixed"]["thresholds"] == [0.3] * 4
    assert compare_thresholds(scores, targets, {"test": (scores[:0], targets[:0])})["plain"]["parts"] == {}
    json.dumps(table, allow_nan=False)


def test_the_table_shows_when_a_search_has_lost():
    """Thresholds chosen on shifted scores lose to 0.5 on others, and the interval of the gain says so."""
    chosen_on, judged_on = drawn(400, 0, shift=-3.0, signal=4), drawn(2000, 1, signal=4)
    gain = compare_thresholds(*chosen_on, {"test": judged_on}, resamples=200)["per_class"]["parts"]["test"]["macro_f1_gain"]
    assert gain["high"] < 0


def test_at_least_one_label():
    scores = np.array([[0.5, 0.1, 0.0], [0.2, 0.15, 0.0], [0.0, 0.0, 0.0]])
    thresholds = np.array([0.4, 0.2, 0.5])
    assert decide_multilabel(scores, thresholds).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert decide_multilabel(scores, thresholds, at_least_one=True).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert decide(scores, Task.MULTILABEL, thresholds, at_least_one=True).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert decide(scores, Task.MULTILABEL, 0.15).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert decide_multilabel(scores[:0], thresholds, at_least_one=True).shape == (0, 3)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_few_rows_are_enough_to_choose(strategy, rows):
    scores, targets = np.array([[0.9, 0.2], [0.3, 0.6], [0.5, 0.1]])[:rows], np.array([[1, 0], [0, 1], [1, 0]])[:rows]
    chosen = choose_thresholds(scores, targets, strategy)
    assert ((chosen.values >= 0) & (chosen.values <= 1)).all()
    assert np.isnan(chosen.estimate) == (rows == 1)


def test_what_cannot_be_chosen():
    scores, targets = drawn(20, 0)
    with pytest.raises(InputError, match=r"unknown.*per_class"):
        choose_thresholds(scores, targets, "best")
    with pytest.raises(InputError, match=r"\(20, 4\)"):
        choose_thresholds(scores, targets[:, 0], "global")
    with pytest.raises(InputError, match="empty"):
        choose_thresholds(scores[:0], targets[:0], "global")
