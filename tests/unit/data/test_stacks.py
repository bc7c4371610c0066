"""Axes of any order become (height, width, channels), and what cannot is refused by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.data.decoding import ImageReadError
from coverslip.data.stacks import as_pixels, check_axes, to_channels

random = np.random.default_rng(0)
MOST = 1_000_000
SIZES = {"Z": 3, "C": 2, "Y": 5, "X": 7}
STACK = random.integers(0, 65536, tuple(SIZES.values()), dtype=np.uint16)


def test_pixels_keep_their_values():
    for dtype in (np.uint8, np.uint16):
        array = np.arange(12, dtype=dtype)
        assert as_pixels(array) is array
        assert as_pixels(array.astype(array.dtype.newbyteorder(">"))).dtype == dtype
    assert as_pixels(np.array([False, True])).tolist() == [0, 255]
    for dtype in ("int8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", ">f4", ">i2"):
        values = np.array([0, 1, 100], dtype)
        pixels = as_pixels(values)
        assert pixels.dtype == np.float32
        assert pixels.tolist() == [0, 1, 100]
    single = np.ones(3, np.float32)
    assert as_pixels(single) is single


def test_values_that_are_no_pixels():
    for wrong in (np.nan, np.inf, -np.inf):
        values = np.full((3, 4), wrong)
        with pytest.raises(ImageReadError, match=r"12 pixels are NaN or infinite, the first at \[0, 0\] of 3x4; mend them in the file"):
            as_pixels(values)
    with pytest.raises(ImageReadError, match="1 pixel is NaN or infinite"):
        as_pixels(np.array([1e300, 1.0]))  # more than float32 can hold
    for array in (np.ones(2, np.complex64), np.array(["a"]), np.array([None])):
        with pytest.raises(ImageReadError, match="save the image as one of them"):
            as_pixels(array)


@given(st.permutations("ZCYXTQ"), st.sampled_from(["max", "mean", 0, 2]))
def test_any_order_of_axes_gives_the_same(order, projection):
    axes = "".join(order)
    full = STACK[..., None, None]  # Z C Y X T Q
    array = full.transpose(["ZCYXTQ".index(axis) for axis in axes])
    pixels, names = to_channels(array, axes, ["a", "b"], projection, max_pixels=MOST)
    expected = {"max": STACK.max(0), "mean": np.rint(STACK.mean(0)), 0: STACK[0], 2: STACK[2]}[projection]
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, expected.transpose(1, 2, 0))
    assert names == ("a", "b")
    assert pixels.flags.c_contiguous


def test_mean_is_rounded_for_integers_and_exact_for_floats():
    planes = np.array([0, 1, 255], np.uint8).reshape(3, 1, 1)
    assert to_channels(planes, "ZYX", [], "mean", max_pixels=MOST)[0].item() == 85
    pixels, names = to_channels(planes.astype(np.float64) / 2, "ZYX", [], "mean", max_pixels=MOST)
    assert pixels.dtype == np.float32
    assert pixels.item() == np.float32(256 / 6)
    assert names == ("",)
    half = np.full((3, 2, 2), 60_000, np.float16)
    assert to_channels(half, "ZYX", [], "mean", max_pixels=MOST)[0].max() == np.float32(np.float16(60_000))
    bilevel = np.array([True, False, False]).reshape(3, 1, 1)
    assert to_channels(bilevel, "ZYX", [], "mean", max_pixels=MOST)[0].item() == 85
    assert to_channels(bilevel, "ZYX", [], "max", max_pixels=MOST)[0].item() == 255


def test_only_the_chosen_plane_has_to_be_whole():
    planes = np.zeros((3, 2, 2), np.float32)
    planes[1] = np.nan
    assert to_channels(planes, "ZYX", [], 0, max_pixels=MOST)[0].shape == (2, 2, 1)
    with pytest.raises(ImageReadError, match="4 pixels are NaN"):
        to_channels(planes, "ZYX", [], "max", max_pixels=MOST)


def test_a_chosen_plane_does_not_keep_the_stack():
    pixels, _ = to_channels(STACK, "ZCYX", [], 1, max_pixels=MOST)
    assert not np.shares_memory(pixels, STACK)
    image = STACK[0, 0]
    assert np.shares_memory(to_channels(image, "YX", [], None, max_pixels=MOST)[0], image)


@pytest.mark.parametrize("axis", ["Q", "I"])
def test_unknown_pages(axis):
    pages = STACK[:, 0]
    pixels, names = to_channels(pages, axis + "YX", [], None, max_pixels=MOST)
    assert np.array_equal(pixels, pages.transpose(1, 2, 0))
    assert names == ("", "", "")
    assert np.array_equal(to_channels(pages, axis + "YX", [], "max", max_pixels=MOST)[0][..., 0], pages.max(0))
    both = STACK.transpose(1, 0, 2, 3)  # unknown pages of z planes
    assert np.array_equal(to_channels(both, axis + "ZYX", [], "max", max_pixels=MOST)[0], STACK.max(0).transpose(1, 2, 0))
    with_colour = np.dstack([pages[0]] * 3)[None].repeat(2, 0)
    assert to_channels(with_colour, axis + "YXS", [], "max", max_pixels=MOST)[0].shape == (5, 7, 3)
    with pytest.raises(ImageReadError, match="2 x 3 images whose axes cannot be told apart"):
        to_channels(with_colour, axis + "YXS", [], None, max_pixels=MOST)


def test_names_are_as_many_as_channels_or_none():
    for names, expected in (([], ("", "")), (["a", "b"], ("a", "b")), (["a"], ("", "")), (["a", "b", "c"], ("", ""))):
        assert to_channels(STACK[0], "CYX", names, None, max_pixels=MOST)[1] == expected


@pytest.mark.parametrize(
    ("shape", "axes", "projection", "reason"),
    [
        ((12, 5, 7), "ZYX", None, r"a z-stack of 12 planes; say how they become one: -s data.projection=max \(or mean, or the number"),
        ((12, 5, 7), "ZYX", 12, "data.projection = 12, but the z-stack has 12 planes, 0 to 11"),
        ((12, 5, 7), "ZYX", -1, "data.projection = -1, but the z-stack has 12 planes"),
        ((4, 5, 7), "TYX", "max", r"4 time points \(axis T\); save single images"),
        ((4, 5, 7), "PYX", None, r"4 positions \(axis P\)"),
        ((4, 5, 7), "MYX", None, r"4 mosaic tiles \(axis M\)"),
        ((4, 5, 7), "LYX", None, r"4 images \(axis L\)"),
        ((2, 5, 7, 3), "CYXS", None, "2 x 3 images whose axes cannot be told apart"),
        ((2, 3, 5, 7), "QQYX", None, "2 x 3 images whose axes cannot be told apart"),
        ((5, 7), "ZY", None, "expected one Y and one X"),
        ((5, 7), "ZYX", None, "expected one Y and one X"),
        ((0, 5, 7), "CYX", None, "too small"),
        ((5, 0), "YX", None, "too small"),
        ((2, 1000, 1000), "CYX", None, r"too large: 2x1000x1000 pixels; at most 1,000,000 in all are opened \(data.max_pixels\)"),
        ((2, 1000, 1000), "ZYX", 0, "too large: 2x1000x1000"),
        ((1000, 1000, 5), "YXS", None, "too large: 1000x1000x5"),
    ],
)
def test_what_is_refused_says_why(shape, axes, projection, reason):
    with pytest.raises(ImageReadError, match=reason) as caught:
        check_axes(shape, axes, projection, MOST)
    assert len(str(caught.value)) < 200
    with pytest.raises(ImageReadError, match=reason):
        to_channels(np.broadcast_to(np.uint8(0), shape), axes, [], projection, max_pixels=MOST)


def test_lines_of_one_pixel_and_single_axes_stay():
    for height, width in itertools.product((1, 4), repeat=2):
        array = np.zeros((1, 1, 1, height, width, 1), np.uint8)
        assert to_channels(array, "TZCYXS", [], None, max_pixels=MOST)[0].shape == (height, width, 1)
        assert to_channels(array, "TZCYXS", [], "max", max_pixels=MOST)[0].shape == (height, width, 1)
    check_axes((1000, 1000, 3), "YXS", None, MOST)
