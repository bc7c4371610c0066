"""Several labels a row: every class and every set of labels in its share, units whole, rare classes everywhere."""

import itertools
import time

import numpy as np
import pytest

from coverslip.data.stratify import stratify

THREE = np.array([0.7, 0.1, 0.2])


def draw(targets, shares, units=None, *, seed=0, essential=()):
    units = np.arange(len(targets)) if units is None else np.asarray(units)
    return stratify(np.asarray(targets), np.asarray(shares), np.random.default_rng(seed), units, essential)


def counts(targets, part, parts):
    return np.stack([np.asarray(targets)[part == j].sum(axis=0) for j in range(parts)])


def imbalanced(n, seed=0):
    """28 classes between 0.1 and 40 %, drawn independently: many sets of labels, some rows without any."""
    return (np.random.default_rng(seed).random((n, 28)) < np.geomspace(0.001, 0.4, 28)).astype(np.int64)


def test_sets_of_labels_that_divide_are_shared_out_exactly():
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    targets = np.random.default_rng(0).permutation(np.repeat(sets, [10, 20, 30, 40, 50], axis=0))
    part = draw(targets, THREE)
    for wanted, size in zip(sets, [10, 20, 30, 40, 50], strict=True):
        rows = (targets == wanted).all(axis=1)
        assert np.bincount(part[rows]).tolist() == [0.7 * size, 0.1 * size, 0.2 * size]


def test_every_class_is_within_a_row_of_its_share_and_every_set_within_a_row_of_folds():
    targets = imbalanced(3000)
    for shares in ([0.8, 0.2], THREE, [0.2] * 5):
        part = draw(targets, shares)
        asked = np.outer(shares, targets.sum(axis=0))
        assert np.abs(counts(targets, part, len(shares)) - asked).max() < 1
        assert np.abs(np.bincount(part) - np.multiply(shares, 3000)).max() < 15
        sets, which = np.unique(targets, axis=0, return_inverse=True)
        several = sets.sum(axis=1) > 1
        held = np.stack([np.bincount(which.ravel()[part == j], minlength=len(sets)) for j in range(len(shares))])[:, several]
        assert held.shape[1] > 500
        below = held - np.floor(np.outer(shares, held.sum(axis=0)) + 1e-9)
        assert below.min() >= 0
        assert below.max() < len(shares)


def test_small_tables_come_close_to_the_best_of_all_splits():
    shares, ranks = np.array([0.6, 0.4]), []
    every = np.array(list(itertools.product([0, 1], repeat=10)))
    for seed in range(40):
        targets = (np.random.default_rng(seed).random((10, 3)) < 0.4).astype(np.int64)
        targets[0] = 1
        columns = np.column_stack([targets, np.ones(10)])
        total = columns.sum(axis=0)
        distances = (((every @ columns - 0.4 * total) ** 2) / total).sum(axis=1)
        reached = (((draw(targets, shares, seed=seed) @ columns - 0.4 * total) ** 2) / total).sum()
        ranks.append(np.mean(distances < reached - 1e-9))
    assert np.median(ranks) == 0
    assert max(ranks) < 0.15


def test_far_closer_to_the_shares_than_a_random_split():
    targets = imbalanced(2000, seed=3)
    part = draw(targets, [0.8, 0.2])
    asked = 0.2 * targets.sum(axis=0)
    ours = np.abs(targets[part == 1].sum(axis=0) - asked).mean()
    random = np.random.default_rng(0)
    plain = np.mean([np.abs(targets[random.permutation(2000)[:400]].sum(axis=0) - asked).mean() for _ in range(50)])
    assert ours < 0.15 * plain


@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.2] * 5, [0.05, 0.95]])
def test_uneven_groups_stay_whole_and_parts_fill_evenly(shares):
    random = np.random.default_rng(1)
    units = random.choice(1500, size=20_000, p=random.dirichlet(np.full(1500, 0.5)))
    targets = imbalanced(20_000, seed=2)
    part = draw(targets, shares, units)
    sides = np.zeros((1500, len(shares)), bool)
    sides[units, part] = True
    assert (sides[np.unique(units)].sum(axis=1) == 1).all()
    assert np.bincount(part) / 20_000 == pytest.approx(shares, abs=0.002)
    reached = counts(targets, part, len(shares)) / targets.sum(axis=0)
    assert np.abs(reached - np.array(shares)[:, None])[:, -10:].max() < 0.005


def test_one_unit_with_most_rows_goes_to_the_large_part_and_the_rest_balance():
    units = np.concatenate([np.zeros(6000, np.int64), np.arange(1, 4001)])
    targets = imbalanced(10_000)
    for seed in range(5):
        part = draw(targets, [0.3, 0.7], units, seed=seed)
        assert set(part[units == 0]) == {1}
        assert np.mean(part == 0) == pytest.approx(0.3, abs=0.001)
        reached = targets[part == 0].sum(axis=0) / targets.sum(axis=0)
        assert np.abs(reached - 0.3)[-10:].max() < 0.005


def test_rare_classes_reach_every_part_where_they_have_a_unit_for_each():
    targets = np.zeros((1000, 6), np.int64)
    targets[:, 5] = 1
    for column, size in enumerate([1, 2, 3, 4, 5]):
        targets[column * 10 : column * 10 + size, column] = 1
    for seed in range(20):
        held = counts(targets, draw(targets, np.full(5, 0.2), seed=seed), 5)
        assert (held[:, :5].max(axis=0) == 1).all()
        assert (held[:, 4] == 1).all()


def test_essential_parts_come_first_for_classes_with_few_units():
    targets = np.zeros((400, 4), np.int64)
    targets[:200, 3] = 1
    targets[:1, 0] = targets[1:3, 1] = targets[3:6, 2] = 1
    units = np.repeat(np.arange(200), 2)
    units[:6] = np.arange(1000, 1006)
    for seed in range(20):
        held = counts(targets, draw(targets, THREE, units, seed=seed, essential=[0, 2]), 3)
        assert held[:, 0].tolist() == [1, 0, 0]
        assert held[:, 1].tolist() == [1, 0, 1]
        assert held[0, 2] > 0
        assert held[2, 2] > 0


def test_an_essential_part_keeps_the_only_row_of_a_class_against_its_share():
    targets = np.zeros((300, 2), np.int64)
    targets[:2, 0] = targets[::2, 1] = 1
    for seed in range(10):
        held = counts(targets, draw(targets, [0.85, 0.05, 0.1], seed=seed, essential=[0, 2]), 3)
        assert held[:, 0].tolist() == [1, 0, 1]


def test_rows_that_all_differ_fill_small_parts_alongside_large_ones():
    targets = (np.random.default_rng(0).random((4000, 20)) < 0.5).astype(np.int64)
    part = draw(targets, [0.9, 0.1])
    assert len(np.unique(targets, axis=0)) > 3900
    assert abs(np.sum(part == 1) - 400) <= 10
    assert np.abs(targets[part == 1].sum(axis=0) - 0.1 * targets.sum(axis=0)).max() <= 2


def test_rows_without_labels_and_tables_without_classes_fill_the_sizes():
    targets = np.zeros((100, 3), np.int64)
    targets[:30] = 1
    part = draw(targets, THREE)
    assert np.bincount(part[:30]).tolist() == [21, 3, 6]
    assert np.bincount(part[30:]).tolist() == [49, 7, 14]
    assert np.bincount(draw(np.zeros((50, 0), np.int64), THREE)).tolist() == [35, 5, 10]
    assert draw(np.zeros((0, 3), np.int64), THREE).shape == (0,)


def test_as_many_folds_as_units_fill_every_fold():
    part = draw(np.eye(6, 2, dtype=np.int64), np.full(6, 1 / 6))
    assert sorted(part.tolist()) == list(range(6))


def test_seeds_repeat_and_differ_and_names_of_units_do_not_matter():
    targets, units = imbalanced(600), np.random.default_rng(0).integers(80, size=600)
    part = draw(targets, THREE, units)
    assert (part == draw(targets, THREE, units)).all()
    assert (part == draw(targets, THREE, 7 * units - 1000)).all()
    assert (part != draw(targets, THREE, units, seed=1)).any()


@pytest.mark.parametrize(
    ("targets", "shares", "units", "message"),
    [
        (np.array([0, 1]), [0.5, 0.5], np.arange(2), r"shape \(2,\): expected \(n, classes\) of 0 and 1"),
        (np.array([[0, 2]]), [0.5, 0.5], np.arange(1), "of 0 and 1"),
        (np.array([[0, 1]]), [0.5, 0.4], np.arange(1), "sum 1"),
        (np.array([[0, 1]]), [1.0, 0.0], np.arange(1), "positive numbers"),
        (np.array([[0, 1]]), [0.5, 0.5], np.arange(2), "one for each of the 1 rows"),
    ],
)
def test_what_makes_no_sense_is_refused(targets, shares, units, message):
    with pytest.raises(ValueError, match=message):
        draw(targets, shares, units)


def test_two_hundred_thousand_rows_in_five_thousand_groups_take_seconds():
    targets, units = imbalanced(200_000), np.random.default_rng(0).integers(5000, size=200_000)
    start = time.perf_counter()
    part = draw(targets, THREE, units)
    assert time.perf_counter() - start < 15
    assert np.bincount(part) / 200_000 == pytest.approx(THREE, abs=0.0005)
    assert np.abs(counts(targets, part, 3) / targets.sum(axis=0) - THREE[:, None]).max() < 0.02
