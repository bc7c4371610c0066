import math

import numpy as np
import pytest
from scipy.special import expit, softmax

from coverslip.evaluation.uncertainty import (
    Conformal,
    calibrate_conformal,
    centre,
    conformal_rank,
    fewest_images,
    too_few,
    uncertain_texts,
    uncertainty_numbers,
)
from coverslip.structures import FloatArray, IntArray, Predictions, Task

Drawn = tuple[FloatArray, IntArray]


def one_label(n: int, generator: np.random.Generator) -> Drawn:
    """Scores of a model that is too sure of itself, and the true classes."""
    logits = generator.normal(0, 1.5, (n, 3))
    targets = np.array([generator.choice(3, p=row) for row in softmax(logits, axis=1)])
    return softmax(3 * logits, axis=1), targets


def several_labels(n: int, generator: np.random.Generator) -> Drawn:
    logits = generator.normal(-1, 3, (n, 4))
    return expit(2 * logits), (generator.random((n, 4)) < expit(logits)).astype(np.int64)


@pytest.mark.parametrize(("draw", "task"), [(one_label, Task.MULTICLASS), (several_labels, Task.MULTILABEL)])
@pytest.mark.parametrize(("coverage", "images"), [(0.9, 40), (0.95, 100)])
def test_the_stated_coverage_holds_on_new_images(draw: object, task: Task, coverage: float, images: int) -> None:
    """Averaged over calibration sets, as the theorem says; 300 sets leave a standard error well below the margin."""
    thresholds = np.array([0.3, 0.5, 0.5, 0.6])
    covered, wrong = [], []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        found = calibrate_conformal(*draw(images, generator), thresholds, task, coverage)  # type: ignore[operator]
        assert found is not None
        scores, targets = draw(200, generator)  # type: ignore[operator]
        predicted = (scores >= thresholds).astype(np.int64) if task is Task.MULTILABEL else scores.argmax(axis=1)
        right = (predicted == targets).reshape(200, -1).all(axis=1)
        covered.append(found.covered(scores, targets, thresholds, task).mean())
        wrong.append((~right & ~found.doubtful(scores, predicted, thresholds, task)).mean())
    assert len(covered) == 300
    assert np.mean(covered) >= coverage - 0.006
    assert np.mean(covered) <= coverage + 1.5 / images + 0.01, "no more is left than has to be"
    assert np.mean(wrong) <= 1 - coverage + 0.006


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95, 0.99])
def test_how_many_images_a_coverage_needs(coverage: float) -> None:
    needed = fewest_images(coverage)
    assert conformal_rank(needed, coverage) == needed
    assert conformal_rank(needed - 1, coverage) is None
    for images in range(needed, needed + 200):
        rank = conformal_rank(images, coverage)
        assert rank is not None
        assert rank / (images + 1) >= coverage - 1e-12
        assert (rank - 1) / (images + 1) < coverage


def test_too_few_images_are_said_with_a_way_out() -> None:
    scores, targets = one_label(18, np.random.default_rng(0))
    assert calibrate_conformal(scores, targets, 0.5, Task.MULTICLASS, 0.95) is None
    text = too_few(18, 0.95)
    assert "at least 19 validation images, and there are 18" in text
    assert "decision.coverage = 0.94" in text
    assert calibrate_conformal(scores, targets, 0.5, Task.MULTICLASS, 0.94) is not None
    assert "decision.coverage" not in too_few(0, 0.95)


def test_a_decision_is_in_doubt_when_anything_else_is_left_or_nothing() -> None:
    found = Conformal(0.9, 100, 0.3)
    scores = np.array([[0.95, 0.03, 0.02], [0.65, 0.3, 0.05], [0.72, 0.2, 0.08], [0.1, 0.1, 0.8]])
    predicted = np.array([0, 0, 0, 1])
    assert found.doubtful(scores, predicted, 0.5, Task.MULTICLASS).tolist() == [False, True, False, True]
    wide = Conformal(0.9, 100, 0.75)
    assert wide.doubtful(scores, predicted, 0.5, Task.MULTICLASS).tolist() == [False, True, False, True]


def test_a_score_as_high_as_the_coverage_is_no_reason_for_doubt() -> None:
    """All calibration images had scores of 1: 0.97 is lower than all of them, and still certain enough for 95 %."""
    found = calibrate_conformal(np.array([[1.0, 0.0]] * 50), np.zeros(50, np.int64), 0.5, Task.BINARY, 0.95)
    assert found is not None
    assert (found.limit, found.bound) == (0.0, pytest.approx(0.05))
    scores = np.array([[0.97, 0.03], [0.93, 0.07]])
    assert found.doubtful(scores, np.array([0, 0]), 0.5, Task.BINARY).tolist() == [False, True]


def test_several_labels_are_in_doubt_by_their_worst() -> None:
    found = Conformal(0.9, 100, 0.3)
    thresholds = np.array([0.2, 0.5])
    scores = np.array([[0.01, 0.99], [0.9, 0.99], [0.15, 0.99], [0.01, 0.45]])
    predicted = (scores >= thresholds).astype(np.int64)
    assert found.doubtful(scores, predicted, thresholds, Task.MULTILABEL).tolist() == [False, False, True, True]


def test_centring_puts_thresholds_in_the_middle_and_keeps_the_order() -> None:
    scores = np.linspace(0, 1, 101)[:, None]
    for line in (0.05, 0.5, 0.9):
        centred = centre(scores, line)
        assert (np.diff(centred[:, 0]) > 0).all()
        assert centre(np.array([[0.0, line, 1.0]]), line)[0].tolist() == pytest.approx([0, 0.5, 1])
    np.testing.assert_allclose(centre(scores, 0.5), scores)


def test_what_the_column_says() -> None:
    doubtful, unlike = np.array([False, True, False, True]), np.array([False, False, True, True])
    said = uncertain_texts(doubtful, unlike)
    assert said is not None
    assert said.tolist() == ["no", "score", "unlike", "score|unlike"]
    assert uncertain_texts(None, None) is None
    assert [str(text) for text in uncertain_texts(None, unlike)] == ["no", "no", "unlike", "unlike"]  # type: ignore[union-attr]


def test_what_marks_are_worth() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45], [0.2, 0.8], [0.95, 0.05]])
    targets = np.array([0, 0, 1, 1, 1])
    marks = np.array(["no", "score", "score", "no", "no"])
    found = Predictions(("a", "b", "c", "d", "e"), scores, scores.argmax(axis=1), ("x", "y"), Task.BINARY, targets, uncertain=marks)
    numbers = uncertainty_numbers(found, Conformal(0.8, 10, 0.3), 0.5)
    values = {name: number["value"] for name, number in numbers.items()}
    assert values == {"uncertain": 0.4, "wrong_unmarked": 0.2, "right_unmarked": pytest.approx(2 / 3), "covered": 0.4}
    assert all(number["low"] < number["value"] < number["high"] for number in numbers.values())
    assert uncertainty_numbers(Predictions(("a",), scores[:1], np.array([0]), ("x", "y"), Task.BINARY, targets[:1]), None, 0.5) == {}


def test_a_calibration_survives_json_and_says_how_far_it_can_be_trusted() -> None:
    found = Conformal(0.95, 19, 1 / 3)
    assert Conformal.from_json(found.to_json()) == found
    low, high = math.pow(0.025, 1 / 19), math.pow(0.975, 1 / 19)
    assert f"between {low:.1%} and {high:.1%}" in found.note, "of 19 images the worst one sets the limit: Beta(19, 1)"
