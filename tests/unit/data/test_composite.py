"""Channels become one picture: each in a colour of its own, black where there is nothing to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from coverslip.data.composite import channel_colours, composite

Array = npt.NDArray[Any]


def spot(dtype: Any, *, low: float = 0, high: float = 200, channels: int = 1, lit: int = 0) -> Array:
    """A bright square on a dark ground in one channel, nothing in the others."""
    image = np.full((40, 50, channels), low, dtype)
    image[10:30, 10:30, lit] = high
    return image


def parts(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


@pytest.mark.parametrize(
    ("name", "strongest"),
    [("DAPI", 2), ("Hoechst 33342", 2), ("nucleus", 2), ("EGFP", 1), ("FITC", 1), ("mCherry", 0), ("red", 0), ("blue", 2), ("green", 1)],
)
def test_a_stain_has_its_colour(name: str, strongest: int) -> None:
    picture = composite(spot(np.uint8), [name])
    assert picture.dtype == np.uint8
    assert picture.shape == (40, 50, 3)
    bright = picture[20, 20]
    assert bright.tolist() == parts(channel_colours([name])[name])
    assert int(bright.argmax()) == strongest
    assert bright.max() == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("low", "high"), [(0, 200), (90, 95)])
def test_dark_is_black_and_bright_is_full_at_any_depth(dtype: Any, low: float, high: float) -> None:
    picture = composite(spot(dtype, low=low, high=high), ["GFP"])
    assert (picture[:10] == 0).all()
    assert (picture[10:30, 10:30] == [0, 255, 0]).all()


def test_values_between_are_shades_between() -> None:
    ramp = np.tile(np.linspace(0, 65535, 500).astype(np.uint16)[None, :, None], (20, 1, 1))
    green = composite(ramp, ["GFP"])[0, :, 1].astype(int)
    assert (np.diff(green) >= 0).all()
    assert np.abs(green - np.linspace(0, 255, 500)).max() < 2


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_channel_without_contrast_is_black(dtype: Any, value: int) -> None:
    with np.errstate(all="raise"):
        picture = composite(np.full((9, 9, 2), value, dtype), ["DAPI", "GFP"])
    assert not picture.any()


def test_channels_are_stretched_by_themselves_and_added_up() -> None:
    both = np.concatenate([spot(np.uint16, high=20), spot(np.uint16, high=60_000)], axis=2)
    both[:, :5, 1] = 60_000
    names = ["mCherry", "GFP"]
    picture = composite(both, names)
    alone = [composite(both[..., [place]], [name]).astype(int) for place, name in enumerate(names)]
    assert np.array_equal(picture, (alone[0] + alone[1]).clip(0, 255))
    assert alone[0][20, 20].max() == alone[1][20, 20].max() == 255
    assert not alone[0][20, 2].any()
    assert alone[1][20, 2].any()


def test_a_flat_channel_leaves_the_others_as_they_are() -> None:
    names = ["DAPI", "GFP", "mCherry"]
    assert np.array_equal(composite(spot(np.uint8, low=5, channels=3, lit=1), names), composite(spot(np.uint8, low=5), ["GFP"]))


def test_unknown_names_get_colours_that_no_other_has() -> None:
    colours = channel_colours(["w1", "DAPI", "w2", "GFP", "w3"])
    assert list(colours) == ["w1", "DAPI", "w2", "GFP", "w3"]
    assert len(set(colours.values())) == 5
    assert all(max(parts(colour)) > 150 for colour in colours.values())
    assert len(channel_colours([f"w{number}" for number in range(20)])) == 20


def test_the_source_is_left_as_it_was() -> None:
    image = spot(np.float32)
    before = image.copy()
    composite(image, ["x"])
    assert np.array_equal(image, before)


def test_large_images_are_stretched_like_small_ones() -> None:
    image = np.random.default_rng(0).normal(100, 10, (1500, 1100, 1)).astype(np.float32)
    whole, part = composite(image, ["GFP"])[..., 1].astype(int), composite(image[:500, :500], ["GFP"])[..., 1].astype(int)
    assert np.abs(whole[:500, :500] - part).mean() < 5
