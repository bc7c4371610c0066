from __future__ import annotations

import numpy as np
import pytest

from coverslip.record import out_of_sample
from coverslip.structures import Predictions, Task


def judged(images: str, scores: list[list[float]], predicted: object, task: Task = Task.BINARY) -> Predictions:
    classes = ("x", "y", "z")[: len(scores[0])]
    targets = np.zeros((len(images), len(classes)) if task is Task.MULTILABEL else len(images), dtype=np.int64)
    return Predictions(tuple(images), np.array(scores), np.array(predicted), classes, task, targets)


def test_an_image_that_was_scored_once_is_left_as_it_is() -> None:
    found = out_of_sample({"test": judged("ab", [[0.7, 0.3], [0.6, 0.4]], [0, 1])})
    assert found.images == ("a", "b")
    assert found.predicted.tolist() == [0, 1]  # b by a threshold below 0.4
    assert found.scores.tolist() == [[0.7, 0.3], [0.6, 0.4]]


@pytest.mark.parametrize(
    ("scores", "said", "together"),
    [([0.6, 0.1, 0.2], [1, 0, 0], 0), ([0.6, 0.7, 0.2], [1, 1, 0], 1), ([0.6, 0.1], [1, 0], 0), ([0.9, 0.4], [1, 0], 1)],
)
def test_repeats_decide_together(scores: list[float], said: list[int], together: int) -> None:
    repeats = {f"fold-{i + 1}-1": judged("a", [[1 - score, score]], [said[i]]) for i, score in enumerate(scores)}
    found = out_of_sample(repeats)
    assert found.predicted.tolist() == [together]
    np.testing.assert_allclose(found.scores, [[1 - np.mean(scores), np.mean(scores)]])


def test_repeats_of_several_labels_decide_each_class() -> None:
    first = judged("a", [[0.9, 0.2, 0.4]], [[1, 0, 0]], Task.MULTILABEL)
    second = judged("a", [[0.8, 0.7, 0.45]], [[1, 1, 0]], Task.MULTILABEL)
    assert out_of_sample({"fold-1-1": first, "fold-2-1": second}).predicted.tolist() == [[1, 0, 0]]


def test_three_classes() -> None:
    said = {"fold-1-1": ([0.5, 0.3, 0.2], 0), "fold-2-1": ([0.2, 0.5, 0.3], 1), "fold-3-1": ([0.1, 0.6, 0.3], 1)}
    found = out_of_sample({name: judged("a", [scores], [k], Task.MULTICLASS) for name, (scores, k) in said.items()})
    assert found.predicted.tolist() == [1]
