"""Planted label errors are found."""

import numpy as np
import pytest

from coverslip.errors import InputError
from coverslip.evaluation.label_errors import suspected_label_errors
from coverslip.structures import Predictions, Task


def scored(targets, scores):
    images = tuple(f"{i}.png" for i in range(len(targets)))
    return Predictions(images, scores, scores.argmax(axis=1), ("a", "b", "c"), Task.MULTICLASS, targets)


def test_planted_errors_come_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=600)
    logits = rng.normal(size=(600, 3))
    logits[np.arange(600), truth] += 4
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = rng.choice(600, 30, replace=False)
    targets = truth.copy()
    targets[planted] = (targets[planted] + 1) % 3
    suspects = suspected_label_errors(scored(targets, scores), limit=30)
    found = {suspect.row for suspect in suspects} & set(planted.tolist())
    assert len(found) >= 20
    assert len(found) >= 0.9 * len(suspects)
    margins = [suspect.score for suspect in suspects]
    assert margins == sorted(margins, reverse=True)
    first = suspects[0]
    assert first.image == f"{first.row}.png"
    assert first.label == "abc"[targets[first.row]]
    assert first.suggestion == "abc"[truth[first.row]]


def test_agreeing_scores_suspect_nobody():
    targets = np.array([0, 1, 2, 0])
    assert suspected_label_errors(scored(targets, np.eye(3)[targets])) == []


def test_a_timid_class_is_judged_by_its_own_threshold():
    """Class b never scores above 0.5; 0.45 is confident for it, and the row labelled a stands out."""
    scores = np.array([[0.9, 0.1, 0.0]] * 5 + [[0.55, 0.45, 0.0]] + [[0.56, 0.44, 0.0]] * 5)
    suspects = suspected_label_errors(scored(np.array([0] * 6 + [1] * 5), scores))
    assert [(suspect.row, suspect.suggestion) for suspect in suspects] == [(5, "b")]


def test_labels_are_needed():
    with pytest.raises(InputError, match="no labels"):
        suspected_label_errors(Predictions(("a",), np.ones((1, 1)), np.zeros(1, int), ("a",), Task.MULTICLASS))
