"""Classifiers that answer as one: those of some of the classes each, and several of the same classes, whose logits are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coverslip.errors import BundleError, ConfigError, did_you_mean
from coverslip.models.backbones import Backbone
from coverslip.models.classifier import Classifier, architecture_json, from_architecture
from coverslip.models.networks import State

Columns = tuple[int, ...]
"""Places of a group's classes among all classes."""


class GroupedClassifier(nn.Module):
    """One score a class: that of the classifier that has it, or the mean of several.

    Attributes:
        members: the classifiers.
        columns: for each of them, the places of its classes; every class equally often.
        classes: number of scores.
        voices: how many members score a class.
    """

    def __init__(self, members: Sequence[Classifier], columns: Sequence[Columns]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.columns = tuple(columns)
        places = np.concatenate(columns)
        self.classes = len(set(places.tolist()))
        self.voices = len(places) // self.classes
        self.order: Tensor
        self.register_buffer("order", torch.tensor(np.argsort(places, kind="stable")), persistent=False)

    @property
    def backbone(self) -> Backbone:
        """That of the first group; all have one architecture and one input."""
        backbone: Backbone = self.members[0].backbone  # type: ignore[assignment]
        return backbone

    @property
    def head(self) -> nn.Module:
        """The heads of all groups."""
        return nn.ModuleList(member.head for member in members_of(self))

    def forward(self, images: Tensor) -> Tensor:
        """float (n, channels, height, width) -> float32 (n, classes), logits."""
        return self.joined([member(images) for member in self.members])

    def joined(self, logits: Sequence[Tensor]) -> Tensor:
        """The logits of all members, float32 (n, their classes) each, as one: float32 (n, classes)."""
        in_order = torch.cat(list(logits), dim=1).index_select(1, self.order)
        return in_order if self.voices == 1 else in_order.reshape(-1, self.classes, self.voices).mean(dim=2)


def features_and_logits(classifier: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors that the heads look at, (n, features), those of class groups side by side; and logits, float32 (n, classes).

    Args:
        classifier: a `Classifier` or `GroupedClassifier`, or a folded copy of one.
        images: float (n, channels, height, width).
    """
    members = members_of(classifier)  # type: ignore[arg-type]
    vectors = [member.backbone(images) for member in members]
    logits = [member.head(one).float() for member, one in zip(members, vectors, strict=True)]
    if not isinstance(classifier, GroupedClassifier):
        return vectors[0], logits[0]
    return torch.cat(vectors, dim=1), classifier.joined(logits)


def group_columns(stated: int | Sequence[Sequence[str]] | None, classes: Sequence[str]) -> list[Columns]:
    """The places of the classes of each group: so many groups of neighbours, or as named; one group when nothing is stated.

    Raises:
        ConfigError: more groups than classes, an unknown class, or one that is in no group or in two.

    >>> group_columns(2, ["a", "b", "c", "d"]), group_columns([["b", "c"], ["a"]], ["a", "b", "c"])
    ([(0, 1), (2, 3)], [(1, 2), (0,)])
    """
    if stated is None or isinstance(stated, int):
        count = stated or 1
        if count > len(classes):
            raise ConfigError(f"model.class_groups = {count}, but there are only {len(classes)} classes: {', '.join(classes)}")
        return [tuple(part.tolist()) for part in np.array_split(np.arange(len(classes)), count)]
    named = [name for group in stated for name in group]
    for name in named:
        if name not in classes:
            raise ConfigError(
                f"model.class_groups names {name!r}, which is no class.{did_you_mean(name, classes)} Classes: {', '.join(classes)}"
            )
    wrong = [name for name in classes if named.count(name) != 1]
    if wrong:
        raise ConfigError(f"model.class_groups must hold every class once; in none or in several: {', '.join(wrong)}")
    return [tuple(list(classes).index(name) for name in group) for group in stated]


def members_of(classifier: Classifier | GroupedClassifier) -> list[Classifier]:
    """The classifiers that one is made of: itself, or one a group."""
    return list(classifier.members) if isinstance(classifier, GroupedClassifier) else [classifier]  # type: ignore[arg-type]


def describe(classifier: Classifier | GroupedClassifier) -> dict[str, Any]:
    """Plain JSON values from which `rebuild` makes the same module; kept as `architecture` in a bundle."""
    if isinstance(classifier, Classifier):
        return architecture_json(classifier)
    pairs = zip(members_of(classifier), classifier.columns, strict=True)
    return {"groups": [{"columns": list(columns), **architecture_json(member)} for member, columns in pairs]}


def rebuild(value: Mapping[str, Any], states: Sequence[State]) -> Classifier | GroupedClassifier:
    """Build a classifier from what `describe` gave and the tensors of each of its members.

    Raises:
        BundleError: keys are missing, or tensors do not fit.
    """
    groups = value.get("groups")
    expected = 1 if groups is None else len(groups)
    if len(states) != expected:
        raise BundleError(f"the architecture has {expected} sets of weights, but there are {len(states)}")
    if groups is None:
        return from_architecture(value, states[0])
    members = [from_architecture(group, state) for group, state in zip(groups, states, strict=True)]
    return GroupedClassifier(members, [tuple(group["columns"]) for group in groups])
