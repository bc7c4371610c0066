from itertools import chain, combinations
from math import factorial

import numpy as np
import pytest
import torch

from coverslip.explain.hiding import background_of, channel_parts, hide_region, highlighted, occlusion


def sum_at(top: int, left: int) -> object:
    """A model that adds up the pixels of one 8x8 place, twice for its second label."""

    def score(batch: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
        one = batch[:, 0, top : top + 8, left : left + 8].sum(dim=(1, 2)).double().numpy()
        return np.stack([one, -2 * one], axis=1)

    return score


def test_occlusion_finds_the_place_that_a_model_looks_at() -> None:
    image = torch.zeros(1, 2, 64, 64)
    image[0, :, 8:56, 8:56] = 1.0
    found = occlusion(sum_at(40, 16), image, windows=8)  # type: ignore[arg-type]
    background = float(background_of(image)[0, 0, 0, 0])
    assert background == 1.0, "the median of this image"
    assert not found.any(), "hiding the background by the background changes nothing"
    image = torch.zeros(1, 2, 64, 64)
    image[0, :, 40:48, 16:24] = 1.0
    found = occlusion(sum_at(40, 16), image, windows=8)  # type: ignore[arg-type]
    assert found.shape == (2, 64, 64)
    assert 50 < found[0].max() <= 64, "the whole place lies in one window, whose centre lies between two pixels"
    peak = np.unravel_index(found[0].argmax(), (64, 64))
    assert (peak[0] - 43.5) ** 2 + (peak[1] - 19.5) ** 2 < 5**2
    np.testing.assert_allclose(found[1], -2 * found[0], rtol=1e-5)
    assert found[0, :24].max() == 0


def test_occlusion_of_one_channel_leaves_the_others() -> None:
    image = torch.zeros(1, 2, 64, 64)
    image[0, :, 40:48, 16:24] = 1.0
    assert occlusion(sum_at(40, 16), image, 8, channel=0).max() > 50  # type: ignore[arg-type]
    assert not occlusion(sum_at(40, 16), image, 8, channel=1).any()  # type: ignore[arg-type]


def test_no_more_is_highlighted_than_was_asked_for() -> None:
    values = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    chosen = highlighted(values, 0.1)
    assert chosen.sum() == 60
    assert values[chosen].min() >= values[~chosen].max()
    assert highlighted(np.ones((20, 30), np.float32), 0.1).sum() == 60
    assert highlighted(-np.ones((20, 30), np.float32), 0.1).sum() == 0
    few = np.zeros((20, 30), np.float32)
    few[3, 4] = 1
    assert highlighted(few, 0.1).sum() == 1


def test_hiding_what_matters_is_told_from_hiding_what_does_not() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 40:48, 16:24] = 1.0
    region = np.zeros((64, 64), dtype=np.bool_)
    region[38:50, 14:26] = True

    def probability(batch: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
        return batch[:, 0, 40:48, 16:24].mean(dim=(1, 2)).double().numpy()

    right = hide_region(probability, image, region, seed=0)
    assert (right.score, right.hidden) == (1.0, 0.0)
    assert right.elsewhere > 0.7
    assert right.lower_than == 1.0
    wrong = hide_region(probability, image, np.roll(region, 30, axis=1), seed=0)
    assert wrong.hidden == 1.0
    assert wrong.lower_than == 0.0
    assert hide_region(probability, image, region, seed=0) == right


def shapley(value: dict[frozenset[int], float], channels: int) -> list[float]:
    """The textbook sum over subsets."""
    found = []
    for channel in range(channels):
        others = [one for one in range(channels) if one != channel]
        subsets = chain.from_iterable(combinations(others, size) for size in range(channels))
        found.append(
            sum(
                factorial(len(s)) * factorial(channels - len(s) - 1) / factorial(channels)
                * (value[frozenset(s) | {channel}] - value[frozenset(s)])
                for s in subsets
            )
        )  # fmt: skip
    return found


def of_channels(batch: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
    """A model in which channels work together: 3a + b c + d."""
    a, b, c, d = (batch[:, plane, 0, 0].double() for plane in range(4))
    return (3 * a + b * c + d)[:, None].numpy()


def test_parts_of_channels_are_shapley_values() -> None:
    image = torch.zeros(1, 4, 9, 9)
    image[0, :, 0, 0] = torch.tensor([1.0, 2.0, 3.0, -1.0])
    found = channel_parts(of_channels, image)
    subsets = [frozenset(s) for size in range(5) for s in combinations(range(4), size)]
    value = {s: float(of_channels(torch.stack([image[0, k] * (k in s) for k in range(4)])[None])[0, 0]) for s in subsets}
    assert len(value) == 16
    np.testing.assert_allclose(found[0], shapley(value, 4))
    np.testing.assert_allclose(found[0], [3, 3, 3, -1])


def test_parts_of_many_channels_add_up_too() -> None:
    image = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))

    def score(batch: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
        return (batch.mean(dim=(2, 3)).prod(dim=1) * 1e4 + batch.sum(dim=(1, 2, 3)))[:, None].double().numpy()

    found = channel_parts(score, image)
    hidden = background_of(image).expand_as(image)
    assert found.sum() == pytest.approx((score(image) - score(hidden))[0, 0], rel=1e-5)
