"""What holds for every split, whatever the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.config import SplitConfig
from coverslip.data.split import split_frame, split_table
from coverslip.data.stratify import stratify
from coverslip.structures import Table, Task


@st.composite
def tables(draw, grouped):
    n = draw(st.integers(1, 120))
    classes = draw(st.integers(1, 6))
    targets = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)), dtype=np.int64)
    groups = np.array(draw(st.lists(st.integers(0, draw(st.integers(0, 40))), min_size=n, max_size=n))).astype(str) if grouped else None
    names = tuple(f"c{k}" for k in range(classes))
    return Table(Path("images"), tuple(f"{i}.png" for i in range(n)), names, targets, Task.MULTICLASS, groups=groups)


@st.composite
def multilabel_tables(draw, grouped):
    n, classes = draw(st.integers(1, 100)), draw(st.integers(1, 6))
    sets = draw(st.lists(st.integers(0, 2**classes - 1), min_size=1, max_size=12))
    chosen = np.array(draw(st.lists(st.sampled_from(sets), min_size=n, max_size=n)))
    targets = (chosen[:, None] >> np.arange(classes)) & 1
    groups = np.array(draw(st.lists(st.integers(0, draw(st.integers(0, 40))), min_size=n, max_size=n))).astype(str) if grouped else None
    names = tuple(f"c{k}" for k in range(classes))
    return Table(Path("images"), tuple(f"{i}.png" for i in range(n)), names, targets.astype(np.int64), Task.MULTILABEL, groups=groups)


configs = st.builds(
    lambda shares, seed, method: SplitConfig(test=shares[0], validation=shares[1], seed=seed, method=method),
    st.sampled_from([(0.2, 0.1), (0.25, 0.0), (0.0, 0.2), (0.1, 0.3), (0.0, 0.0), (0.4, 0.4)]),
    st.integers(0, 10_000),
    st.sampled_from(["stratified", "iterative", "random"]),
)


@settings(deadline=None)
@given(tables(grouped=False), configs)
def test_every_row_once_and_each_class_within_a_row_of_its_share(table, config):
    split = split_table(table, config)
    assert len(split.part) == len(table)
    assert sum(len(split.rows(part)) for part in ("train", "validation", "test")) == len(table)
    assert (split.part == "train").any()
    if config.method == "random":
        assert abs(len(split.rows("test")) - config.test * len(table)) <= 1
        return
    totals = np.bincount(table.targets, minlength=len(table.classes))
    for part, share in (("test", config.test), ("validation", config.validation)):
        reached = np.bincount(table.targets[split.part == part], minlength=len(table.classes))
        assert (np.abs(reached - share * totals) <= 1 + 1e-9).all()
    if config.test:
        assert ((np.bincount(table.targets[split.part == "test"], minlength=len(totals)) > 0) == (totals > 1)).all()


@settings(deadline=None)
@given(st.one_of(tables(grouped=True), multilabel_tables(grouped=True)), configs, st.data())
def test_no_group_and_no_duplicate_on_two_sides(table, config, data):
    n = len(table)
    ties = np.array(data.draw(st.lists(st.integers(-1, 60), min_size=n, max_size=n)))
    split = split_table(table, config, ties=ties)
    for group in np.unique(table.groups):
        assert len(set(split.part[table.groups == group])) == 1
    for tie in set(ties[ties >= 0].tolist()):
        assert len(set(split.part[ties == tie])) == 1
    assert set(split.part) <= {"train", "validation", "test"}
    assert (split.part == "train").any()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_small_groups_keep_the_shares_of_each_class(seed, classes):
    """Groups of at most five rows among 500: every share within five rows, and every class within ten."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(500), rng.integers(1, 6, 500))[:500]
    targets = rng.integers(classes, size=500)
    names = tuple(f"c{k}" for k in range(classes))
    table = Table(Path(), tuple(map(str, range(500))), names, targets, Task.MULTICLASS, groups=groups.astype(str))
    split = split_table(table, SplitConfig(seed=seed))
    for part, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        chosen = split.part == part
        assert abs(chosen.sum() - share * 500) <= 5
        assert (np.abs(np.bincount(targets[chosen], minlength=classes) - share * np.bincount(targets)) <= 10).all()


@settings(deadline=None)
@given(st.one_of(tables(grouped=True), multilabel_tables(grouped=True)), st.integers(2, 6), st.integers(1, 3), st.integers(0, 10_000))
def test_folds_cover_every_row_that_is_not_test(table, folds, repeats, seed):
    config = SplitConfig(folds=folds, repeats=repeats, seed=seed)
    kept = np.unique(table.groups)
    outside = split_table(table, config.model_copy(update={"folds": 0})).part != "test"
    if len(np.unique(table.groups[outside])) < 2:
        return
    split = split_table(table, config)
    for fold in split.folds:
        assert ((fold >= 0) == (split.part != "test")).all()
        assert sorted(set(fold[fold >= 0].tolist())) == list(range(fold.max() + 1))
        assert all(len(set(fold[table.groups == group])) == 1 for group in kept)


@settings(deadline=None)
@given(st.one_of(tables(grouped=True), multilabel_tables(grouped=True)), configs)
def test_the_same_config_gives_the_same_split_in_the_order_of_the_table(table, config):
    first, again = split_table(table, config), split_table(table, config)
    assert (first.part == again.part).all()
    frame = split_frame(table, first)
    assert tuple(frame["image"]) == table.images
    assert frame["label"].tolist() == [table.label_text(i) for i in range(len(table))]


@settings(deadline=None)
@given(multilabel_tables(grouped=False), configs)
def test_each_set_of_several_labels_is_within_the_parts_of_its_share(table, config):
    """A row more may have been moved for each class that would else have missed the train or the test part."""
    split = split_table(table, config)
    assert (split.part == "train").any()
    totals = table.targets.sum(axis=0)
    if config.method == "random":
        return
    sets, which = np.unique(table.targets, axis=0, return_inverse=True)
    used = [part for part, share in (("train", 1.0), ("validation", config.validation), ("test", config.test)) if share > 0]
    shares = {"train": 1 - config.validation - config.test, "validation": config.validation, "test": config.test}
    for part in used:
        held = np.bincount(which.ravel()[split.part == part], minlength=len(sets))
        asked = shares[part] * np.bincount(which.ravel())
        assert (np.abs(held - asked)[sets.sum(axis=1) > 1] <= len(used) + len(totals)).all()
    if config.test:
        alone = table.targets.sum(axis=1) == 1
        for k in np.flatnonzero(table.targets[alone].sum(axis=0) >= 2):
            for part in ("train", "test"):
                assert table.targets[split.part == part][:, k].any()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.booleans(), st.sampled_from([(0.7, 0.1, 0.2), (0.8, 0.2), (0.2,) * 5]))
def test_shares_of_several_labels_are_kept(seed, classes, grouped, shares):
    """500 rows, classes between 2 and 50 %: single rows miss no share by more than 3 rows, groups of at most five by 8."""
    random = np.random.default_rng(seed)
    targets = (random.random((500, classes)) < random.uniform(0.02, 0.5, classes)).astype(np.int64)
    units = np.repeat(np.arange(500), random.integers(1, 6, 500))[:500] if grouped else np.arange(500)
    part = stratify(targets, np.array(shares), random, units)
    for j, share in enumerate(shares):
        assert abs(np.sum(part == j) - share * 500) <= (8 if grouped else 3)
        assert (np.abs(targets[part == j].sum(axis=0) - share * targets.sum(axis=0)) <= (8 if grouped else 3)).all()


@settings(deadline=None)
@given(multilabel_tables(grouped=True), configs)
def test_names_of_groups_do_not_matter(table, config):
    renamed = replace(table, groups=np.char.add("plate ", table.groups))
    assert (split_table(renamed, config).part == split_table(table, config).part).all()
