from __future__ import annotations

import numpy as np
import pytest

from coverslip.training.symmetry import invisible, visibility

N, SIDE = 120, 12


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, SIDE, SIDE))


def test_noise_may_be_flipped_and_turned(noise: np.ndarray) -> None:
    labels = np.arange(N) % 2
    for changed in (noise[:, :, ::-1], noise[:, ::-1], noise.transpose(0, 2, 1)):
        area = visibility(flat(noise), flat(changed), labels, seed=0)
        assert area[0] == pytest.approx(0.5, abs=0.12)
        assert invisible(area, 2)


def test_light_from_above_shows_a_vertical_flip_and_no_horizontal_one(noise: np.ndarray) -> None:
    images = noise + np.linspace(2, -2, SIDE)[None, :, None]
    labels = np.arange(N) % 2
    assert not invisible(visibility(flat(images), flat(images[:, ::-1]), labels, seed=0), 2)
    assert invisible(visibility(flat(images), flat(images[:, :, ::-1]), labels, seed=0), 2)


def test_a_flip_that_turns_one_class_into_the_other_is_seen(noise: np.ndarray) -> None:
    labels = np.arange(N) % 2
    slope = np.linspace(2, -2, SIDE)[None, None, :]
    images = noise + np.where(labels[:, None, None] == 0, slope, -slope)
    assert not invisible(visibility(flat(images), flat(images[:, :, ::-1]), labels, seed=0), 2)


def test_classes_too_small_to_ask_allow_nothing(noise: np.ndarray) -> None:
    labels = np.arange(N) // 10
    assert not invisible(visibility(flat(noise), flat(noise[:, ::-1]), labels, seed=0), 12)
