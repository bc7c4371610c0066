"""Class groups: several classifiers that answer as one."""

from __future__ import annotations

import copy

import pytest
import torch

from coverslip.config import ModelConfig
from coverslip.errors import BundleError, ConfigError
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.models.groups import GroupedClassifier, describe, group_columns, members_of, rebuild

CLASSES = ("a", "b", "c", "d", "e")


def member(classes: int, seed: int) -> Classifier:
    config = ModelConfig(backbone="small_30k", weights="none")
    return build_classifier(config, channels=2, classes=classes, size=(32, 32), seed=seed).eval()


def test_every_score_comes_from_the_member_of_its_class() -> None:
    first, second = member(2, 0), member(3, 1)
    grouped = GroupedClassifier([first, second], [(4, 1), (0, 2, 3)]).eval()
    images = torch.randn(3, 2, 32, 32)
    scores = grouped(images)
    assert scores.shape == (3, 5)
    torch.testing.assert_close(scores[:, [4, 1]], first(images))
    torch.testing.assert_close(scores[:, [0, 2, 3]], second(images))


def test_a_description_and_the_tensors_of_each_member_give_the_same_scores() -> None:
    grouped = GroupedClassifier([member(2, 0), member(3, 1)], [(4, 1), (0, 2, 3)]).eval()
    states = [copy.deepcopy(one.state_dict()) for one in members_of(grouped)]
    again = rebuild(describe(grouped), states).eval()
    images = torch.randn(2, 2, 32, 32)
    torch.testing.assert_close(again(images), grouped(images))
    with pytest.raises(BundleError, match="2 sets of weights, but there are 1"):
        rebuild(describe(grouped), states[:1])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_groups_of_neighbours_hold_every_class_once_and_differ_by_one_at_most(count: int) -> None:
    columns = group_columns(count, CLASSES)
    assert [place for group in columns for place in group] == list(range(5))
    assert max(map(len, columns)) - min(map(len, columns)) <= 1


@pytest.mark.parametrize(("count", "size"), [(2, 14), (4, 7)])
def test_28_classes_in_equal_groups(count: int, size: int) -> None:
    columns = group_columns(count, [str(number) for number in range(28)])
    assert columns == [tuple(range(start, start + size)) for start in range(0, 28, size)]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (6, "only 5 classes"),
        ([["a", "b"], ["c", "d"]], "in none or in several: e"),
        ([["a", "b", "c"], ["c", "d", "e"]], "in none or in several: c"),
        ([["a", "b", "c"], ["d", "ee"]], "'ee', which is no class"),
    ],
)
def test_groups_that_do_not_hold_every_class_once(stated: int | list[list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        group_columns(stated, CLASSES)


def test_several_members_of_the_same_classes_answer_with_their_mean() -> None:
    first, second, third, fourth = member(2, 0), member(3, 1), member(2, 2), member(3, 3)
    columns = [(4, 1), (0, 2, 3)] * 2
    together = GroupedClassifier([first, second, third, fourth], columns).eval()
    images = torch.randn(3, 2, 32, 32)
    scores = together(images)
    assert (together.classes, together.voices, scores.shape) == (5, 2, (3, 5))
    torch.testing.assert_close(scores[:, [4, 1]], (first(images) + third(images)) / 2)
    torch.testing.assert_close(scores[:, [0, 2, 3]], (second(images) + fourth(images)) / 2)
    again = rebuild(describe(together), [one.state_dict() for one in members_of(together)]).eval()
    torch.testing.assert_close(again(images), scores)
