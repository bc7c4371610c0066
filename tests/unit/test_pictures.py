import numpy as np

from coverslip.pictures import explained_cases
from coverslip.structures import Predictions, Task


def judged(scores: list[list[float]], targets: list[int] | list[list[int]], task: Task) -> Predictions:
    array = np.array(scores)
    predicted = (array >= 0.5).astype(np.int64) if task is Task.MULTILABEL else array.argmax(axis=1)
    classes = tuple("abc"[: array.shape[1]])
    return Predictions(tuple(map(str, range(len(array)))), array, predicted, classes, task, np.array(targets))


def test_the_surest_wrong_and_right_cases_are_explained_classes_in_turn() -> None:
    scores = [[0.9, 0.1, 0], [0.95, 0.05, 0], [0.99, 0.01, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.1, 0.3, 0.6], [0.4, 0.35, 0.25]]
    found = explained_cases(judged(scores, [0, 0, 0, 1, 0, 0, 1], Task.MULTICLASS), most=3)
    assert [case for case in found if case[0] == "explained_wrong"] == [
        ("explained_wrong", 4, 1), ("explained_wrong", 5, 2), ("explained_wrong", 6, 0),
    ]  # fmt: skip
    assert [case for case in found if case[0] == "explained_right"] == [
        ("explained_right", 2, 0), ("explained_right", 3, 1), ("explained_right", 1, 0),
    ]  # fmt: skip


def test_with_several_labels_the_label_is_the_one_that_is_surest_of_those_said() -> None:
    scores = [[0.9, 0.8], [0.1, 0.05], [0.7, 0.1], [0.2, 0.1]]
    found = explained_cases(judged(scores, [[1, 1], [0, 1], [0, 0], [0, 0]], Task.MULTILABEL))
    assert found == [("explained_wrong", 2, 0), ("explained_wrong", 1, 1), ("explained_right", 0, 0)]


def test_nothing_wrong_or_nothing_right_is_no_case() -> None:
    assert {case[0] for case in explained_cases(judged([[1, 0], [0, 1]], [0, 1], Task.BINARY))} == {"explained_right"}
    assert {case[0] for case in explained_cases(judged([[1, 0], [0, 1]], [1, 0], Task.BINARY))} == {"explained_wrong"}


def test_the_surest_classes_come_first() -> None:
    scores = np.eye(3)[[0, 1, 2]] * [0.6, 0.9, 0.8] + 0.01
    found = explained_cases(judged(scores.tolist(), [0, 1, 2], Task.MULTICLASS), most=2)
    assert found == [("explained_right", 1, 1), ("explained_right", 2, 2)]
