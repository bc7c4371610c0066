import io

import numpy as np
import pytest
from PIL import Image

from coverslip.explain.overlay import overlay, picture_of, png


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint16", 1), ("float32", 4)])
def test_a_picture_is_colour_of_at_most_a_thousand_pixels(dtype: str, channels: int) -> None:
    generator = np.random.default_rng(0)
    image = (generator.random((1500, 40, channels)) * 200).astype(dtype)
    names = ["a", "b", "c", "d"] if channels == 4 else []
    picture = picture_of(image, names)
    assert (picture.dtype, picture.ndim, picture.shape[2], picture.shape[0]) == (np.uint8, 3, 3, 1024)
    assert picture.std() > 5
    with Image.open(io.BytesIO(png(picture))) as read:
        np.testing.assert_array_equal(np.asarray(read), picture)


def test_an_overlay_changes_the_hot_places_only() -> None:
    picture = np.full((100, 200, 3), 90, np.uint8)
    values = np.zeros((10, 20), np.float32)
    values[2, 3] = 5
    drawn = overlay(picture, values)
    changed = (drawn != picture).any(axis=2)
    assert changed[20:30, 30:40].mean() > 0.9
    assert not changed[50:].any()
    assert not changed[:, 70:].any()
    assert overlay(picture, -values) is picture
    assert overlay(picture, np.zeros_like(values)) is picture


def test_maps_that_are_compared_share_their_colours() -> None:
    picture = np.zeros((50, 50, 3), np.uint8)
    values = np.ones((50, 50), np.float32)
    assert overlay(picture, values, 1.0).mean() > overlay(picture, 0.4 * values, 1.0).mean() > 0
    assert not overlay(picture, 0.1 * values, 1.0).any()
