"""Every row once, groups whole, small classes with a message."""

import time
from pathlib import Path

import numpy as np
import pytest

from coverslip.config import SplitConfig
from coverslip.data.split import join_units, split_frame, split_table
from coverslip.errors import InputError
from coverslip.structures import PARTS, Table, Task


def make_table(sizes, *, groups=None, preset=None, labelled=True):
    targets = np.repeat(np.arange(len(sizes)), sizes)
    return Table(
        root=Path("images"),
        images=tuple(f"{i}.png" for i in range(len(targets))),
        classes=tuple(f"class{k}" for k in range(len(sizes))),
        targets=targets if labelled else None,
        task=Task.MULTICLASS,
        groups=None if groups is None else np.asarray(groups),
        preset=None if preset is None else np.asarray(preset),
    )


def make_multilabel(targets, *, groups=None, preset=None):
    targets = np.asarray(targets, dtype=np.int64)
    return Table(
        root=Path("images"),
        images=tuple(f"{i}.png" for i in range(len(targets))),
        classes=tuple(f"class{k}" for k in range(targets.shape[1])),
        targets=targets,
        task=Task.MULTILABEL,
        groups=None if groups is None else np.asarray(groups),
        preset=None if preset is None else np.asarray(preset),
    )


def counts(table, split, part):
    if table.targets.ndim == 2:
        return table.targets[split.part == part].sum(axis=0).tolist()
    return np.bincount(table.targets[split.part == part], minlength=len(table.classes)).tolist()


def test_default_shares_are_exact_where_they_divide():
    table = make_table([100, 50, 10])
    split = split_table(table, SplitConfig())
    assert [counts(table, split, part) for part in PARTS] == [[70, 35, 7], [10, 5, 1], [20, 10, 2]]
    assert split.notes == ()
    assert split.method == "stratified"


def test_many_small_classes_keep_the_overall_shares():
    table = make_table([5] * 100)
    split = split_table(table, SplitConfig(test=0.2, validation=0.1))
    assert counts(table, split, "test") == [1] * 100
    assert np.sum(split.part == "validation") == 50


def test_three_to_one_as_in_the_chart_recipe():
    table = make_table([300, 100])
    split = split_table(table, SplitConfig(test=0.25, validation=0))
    assert counts(table, split, "test") == [75, 25]
    assert not np.any(split.part == "validation")


def test_random_does_not_look_at_classes_but_keeps_the_sizes():
    table = make_table([90, 10])
    split = split_table(table, SplitConfig(method="random"))
    assert [len(split.rows(part)) for part in PARTS] == [70, 10, 20]
    assert split.method == "random"


def test_a_table_without_labels_is_split_at_random():
    split = split_table(make_table([50, 50], labelled=False), SplitConfig())
    assert [len(split.rows(part)) for part in PARTS] == [70, 10, 20]
    assert split.method == "random"


def test_class_with_one_image_is_trained_on_and_noted():
    table = make_table([40, 1])
    split = split_table(table, SplitConfig())
    assert split.part[-1] == "train"
    assert any("class1" in note and "one image" in note for note in split.notes)


def test_class_with_two_images_is_trained_on_and_judged():
    for seed in range(20):
        table = make_table([40, 2])
        split = split_table(table, SplitConfig(seed=seed))
        assert sorted(split.part[-2:].tolist()) == ["test", "train"]


def test_a_table_with_one_row_is_trained_on():
    split = split_table(make_table([1]), SplitConfig())
    assert split.part.tolist() == ["train"]
    assert len(split.notes) == 3


def test_groups_stay_whole_and_shares_are_met():
    rng = np.random.default_rng(0)
    groups = rng.integers(60, size=600).astype(str)
    table = make_table([300, 200, 100], groups=groups)
    split = split_table(table, SplitConfig())
    for group in np.unique(groups):
        assert len(set(split.part[groups == group])) == 1
    for part, share in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        assert np.mean(split.part == part) == pytest.approx(share, abs=0.02)
        assert np.array(counts(table, split, part)) / [300, 200, 100] == pytest.approx(share, abs=0.05)
    assert "kept together" in split.method


def test_a_group_with_nearly_everything_is_noted():
    table = make_table([60, 40], groups=["big"] * 58 + ["b", "c"] + ["big"] * 38 + ["b", "c"])
    split = split_table(table, SplitConfig())
    assert set(split.part[table.groups == "big"]) == {"train"}
    assert any("'big' alone holds 96.0%" in note for note in split.notes)


def test_a_class_in_two_groups_is_trained_on_and_judged():
    groups = [f"g{i}" for i in np.arange(200) // 5]
    table = make_table([190, 10], groups=groups)
    for seed in range(10):
        split = split_table(table, SplitConfig(seed=seed))
        assert sorted(set(split.part[190:].tolist())) == ["test", "train"]


def test_ties_and_groups_join_through_chains():
    groups = np.array(["a", "a", "b", "b", "c", "d"])
    ties = np.array([-1, 5, 5, -1, -1, -1])
    assert join_units(6, groups, ties).tolist() == [0, 0, 0, 0, 1, 2]


def test_duplicates_move_together():
    ties = np.repeat(np.arange(50), 2)
    split = split_table(make_table([60, 40]), SplitConfig(folds=5), ties=ties)
    for values in (split.part, split.folds[0]):
        assert (values[0::2] == values[1::2]).all()
    assert np.mean(split.part == "test") == pytest.approx(0.2, abs=0.02)


def test_preset_is_kept():
    preset = ["train", "validation", "test", "test"] * 5
    split = split_table(make_table([10, 10], preset=preset), SplitConfig())
    assert split.part.tolist() == preset
    assert split.method == "preset"
    assert split.notes == ()


def test_validation_is_split_off_the_train_rows_of_a_preset():
    preset = (["train"] * 40 + ["test"] * 10) * 2
    table = make_table([50, 50], preset=preset)
    split = split_table(table, SplitConfig(validation=0.1))
    assert counts(table, split, "validation") == [4, 4]
    assert ((split.part == "test") == (table.preset == "test")).all()
    assert any("8 of its 80 train rows" in note for note in split.notes)
    none = split_table(table, SplitConfig(validation=0))
    assert not np.any(none.part == "validation")


def test_preset_without_test_is_noted():
    split = split_table(make_table([10, 10], preset=["train", "validation"] * 10), SplitConfig())
    assert split.method == "preset"
    assert any("no test rows" in note for note in split.notes)


@pytest.mark.parametrize(
    ("preset", "message"), [(["train", "val"], "'val'; expected only train, validation, test"), (["test", "test"], "no train rows")]
)
def test_a_preset_that_cannot_be_used(preset, message):
    with pytest.raises(InputError, match=message):
        split_table(make_table([1, 1], preset=preset), SplitConfig())


def test_folds_are_stratified_and_skip_the_test_part():
    table = make_table([100, 50])
    split = split_table(table, SplitConfig(folds=5, repeats=3))
    assert split.folds.shape == (3, 150)
    assert ((split.folds == -1) == (split.part == "test")).all()
    for fold in split.folds:
        assert [np.bincount(table.targets[fold == i]).tolist() for i in range(5)] == [[16, 8]] * 5
    assert (split.folds[0] != split.folds[1]).any()


def test_grouped_repeats_differ():
    groups = np.repeat(np.arange(30), np.arange(1, 31)).astype(str)
    split = split_table(make_table([len(groups)], groups=groups), SplitConfig(folds=3, repeats=2, test=0, validation=0))
    for fold in split.folds:
        assert all(len(set(fold[groups == group])) == 1 for group in np.unique(groups))
        assert np.bincount(fold) / len(groups) == pytest.approx(1 / 3, abs=0.03)
    assert (split.folds[0] != split.folds[1]).any()


def test_classes_smaller_than_the_folds_are_noted():
    split = split_table(make_table([50, 3]), SplitConfig(folds=5))
    assert any("fewer rows than the 5 folds" in note and "class1" in note for note in split.notes)


def test_more_folds_than_groups_become_fewer_folds():
    split = split_table(make_table([9], groups=["a", "b", "c"] * 3), SplitConfig(folds=5, test=0, validation=0))
    assert sorted(set(split.folds[0].tolist())) == [0, 1, 2]
    assert any("only 3 rows or groups" in note for note in split.notes)
    with pytest.raises(InputError, match="at least 2"):
        split_table(make_table([9], groups=["a"] * 9), SplitConfig(folds=5))


def test_same_seed_same_split_and_a_drawn_seed_repeats():
    table = make_table([60, 40])
    first, again, other = (split_table(table, SplitConfig(seed=seed)) for seed in (1, 1, 2))
    assert (first.part == again.part).all()
    assert (first.part != other.part).any()
    drawn = split_table(table, SplitConfig(seed="random"))
    assert (split_table(table, SplitConfig(seed=drawn.seed)).part == drawn.part).all()


def test_an_empty_table_is_refused():
    with pytest.raises(InputError, match="no rows"):
        split_table(make_table([0]), SplitConfig())


SETS = np.repeat([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], [100, 50, 50, 20], axis=0)


@pytest.mark.parametrize("method", ["stratified", "iterative"])
def test_several_labels_are_stratified_iteratively_by_either_name(method):
    table = make_multilabel(SETS)
    split = split_table(table, SplitConfig(method=method))
    assert split.method == "stratified iteratively, as images have several labels"
    assert [counts(table, split, part) for part in PARTS] == [[105, 70, 49], [15, 10, 7], [30, 20, 14]]
    assert split.notes == ()


def test_random_does_not_look_at_several_labels_but_keeps_groups():
    groups = np.repeat(np.arange(44), 5).astype(str)
    table = make_multilabel(SETS, groups=groups)
    split = split_table(table, SplitConfig(method="random"))
    assert split.method == "random, groups and duplicates kept together"
    assert [len(split.rows(part)) for part in PARTS] == pytest.approx([154, 22, 44], abs=5)
    assert all(len(set(split.part[groups == group])) == 1 for group in np.unique(groups))
    other = make_multilabel(SETS[::-1], groups=groups)
    assert (split_table(other, SplitConfig(method="random")).part == split.part).all()


def test_one_label_can_be_split_iteratively():
    table = make_table([100, 50, 10])
    split = split_table(table, SplitConfig(method="iterative", folds=4))
    assert [counts(table, split, part) for part in PARTS] == [[70, 35, 7], [10, 5, 1], [20, 10, 2]]
    assert [np.bincount(table.targets[split.folds[0] == i]).tolist() for i in range(4)] == [[20, 10, 2]] * 4
    assert split.method == "stratified iteratively; 4 folds"


def test_folds_of_several_labels_keep_duplicates_and_differ_between_repeats():
    table = make_multilabel(np.tile(SETS, (2, 1)))
    ties = np.tile(np.arange(220), 2)
    split = split_table(table, SplitConfig(folds=4, repeats=2), ties=ties)
    for values in (split.part, *split.folds):
        assert (values[:220] == values[220:]).all()
    assert ((split.folds == -1) == (split.part == "test")).all()
    kept = table.targets[split.part != "test"].sum(axis=0)
    for fold in split.folds:
        for number in range(4):
            assert table.targets[fold == number].sum(axis=0) == pytest.approx(kept / 4, abs=4)
    assert (split.folds[0] != split.folds[1]).any()
    assert "groups and duplicates kept together" in split.method


def test_a_preset_of_several_labels_is_kept_and_gives_validation():
    preset = np.tile(["train", "test"], 110)
    table = make_multilabel(SETS, preset=preset)
    split = split_table(table, SplitConfig(validation=0.1))
    assert ((split.part == "test") == (preset == "test")).all()
    assert counts(table, split, "validation") == pytest.approx([7.5, 5, 3.5], abs=0.5)
    assert any("11 of its 110 train rows" in note for note in split.notes)


def test_classes_of_several_labels_that_cannot_reach_every_part_are_noted():
    targets = np.zeros((200, 4), np.int64)
    targets[:, 0] = 1
    targets[0, 1] = targets[1:3, 2] = targets[3:13, 3] = 1
    groups = np.arange(200)
    groups[3:13] = 3
    table = make_multilabel(targets, groups=groups.astype(str))
    notes = " / ".join(split_table(table, SplitConfig(folds=3)).notes)
    assert "one image only, so it cannot be both learned and judged: class1" in notes
    assert "no validation image, so its threshold cannot be chosen there: class2, class3" in split_table(table, SplitConfig()).notes
    assert "rows that stay together in too few groups for every fold: some folds score none of class3" in notes
    assert "no test image, so its numbers will be undefined: class3" in notes


def test_with_folds_the_validation_part_is_learned_from_and_chooses_no_threshold():
    targets = np.zeros((60, 3), np.int64)
    targets[::2, 0] = targets[::3, 1] = 1
    targets[:4, 2] = 1  # one group: it reaches one part only
    table = make_multilabel(targets, groups=np.array([f"g{row // 4}" for row in range(60)]), preset=["validation"] * 12 + ["train"] * 48)
    without = " ".join(split_table(table, SplitConfig(preset="part")).notes)
    assert "no train image, so it cannot be learned: class2" in without
    folded = " ".join(split_table(table, SplitConfig(preset="part", folds=3)).notes)
    assert "no train image" not in folded
    assert "no validation image" not in folded


def test_frame_holds_what_is_known():
    table = make_table([6, 4], groups=list("aabbccddee"))
    frame = split_frame(table, split_table(table, SplitConfig(folds=2)))
    assert list(frame.columns) == ["image", "label", "group", "part", "fold"]
    assert frame["image"].tolist() == list(table.images)
    assert frame["label"].tolist() == [table.label_text(i) for i in range(10)]
    repeated = split_frame(make_table([6, 4], labelled=False), split_table(table, SplitConfig(folds=2, repeats=2)))
    assert list(repeated.columns) == ["image", "part", "fold_1", "fold_2"]


def test_two_hundred_thousand_grouped_rows_take_seconds():
    rng = np.random.default_rng(0)
    table = make_table([50_000] * 4, groups=rng.integers(4000, size=200_000).astype(str))
    start = time.perf_counter()
    split = split_table(table, SplitConfig(folds=5))
    assert time.perf_counter() - start < 10
    assert np.mean(split.part == "test") == pytest.approx(0.2, abs=0.001)
