import json
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.data.decoding import ImageReadError
from coverslip.data.geometry import GREY, RGB, Fit, Geometry
from coverslip.data.normalisation import Normalisation, dataset_percentiles, image_percentiles, pixel_statistics
from coverslip.data.resize import HALF

Floats = npt.NDArray[np.float64]
PerImage = Literal["none", "together", "each"]
NAMES = {1: GREY, 3: RGB}


def triangle_weights(old: int, new: int) -> Floats:
    """(new, old): a triangle around the centre of each new pixel, as wide as the reduction, summing to one."""
    ratio = old / new
    reach = max(ratio, 1.0)
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * ratio
        for j in range(old):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def expected_resize(image: npt.NDArray[np.generic], height: int, width: int) -> Floats:
    rows, columns = triangle_weights(image.shape[0], height), triangle_weights(image.shape[1], width)
    return np.asarray(np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float64), columns))


def noise(height: int, width: int, channels: int, bits: int = 8, seed: int = 0) -> npt.NDArray[Any]:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, (height, width, channels)).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(*[st.integers(2, 40)] * 2, *[st.integers(8, 40)] * 2, st.sampled_from([1, 3]), st.sampled_from([8, 16]))
def test_resize_equals_a_triangle_filter_written_out(h: int, w: int, height: int, width: int, channels: int, bits: int) -> None:
    image = noise(h, w, channels, bits)
    found = Geometry(height, width, "squash", NAMES[channels], bits).apply(image)
    expected = expected_resize(image, height, width)
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert found.shape == (height, width, channels)
    assert np.abs(found - expected).max() <= 1 - HALF + 2e-6 * 2**bits


@pytest.mark.parametrize("column", range(300, 312))
def test_a_thin_dark_line_on_white_survives(column: int) -> None:
    """One pixel of 750 is 0.299 of a pixel of 224: area averaging takes at least half of that from some column."""
    image = np.full((500, 750, 1), 255, dtype=np.uint8)
    image[:, column] = 0
    small = Geometry(224, 224, "squash", GREY, 8).apply(image)
    share = 224 / 750
    darkest = 255 - small.min(axis=1).astype(float)
    assert darkest.min() >= 255 * share / 2 - 1
    assert (255.0 - small).sum(axis=1) == pytest.approx(255 * share, abs=3)  # no ink is lost


def test_an_image_of_the_right_size_is_kept_bit_for_bit() -> None:
    image = noise(16, 24, 3, bits=16)
    assert np.array_equal(Geometry(16, 24, "squash", RGB, 16).apply(image), image)


def test_grey_becomes_rgb_by_copying_at_any_size() -> None:
    for side in (16, 40):
        image = noise(side, side, 1)
        found = Geometry(16, 16, "squash", RGB, 8).apply(image)
        grey = Geometry(16, 16, "squash", GREY, 8).apply(image)
        assert np.array_equal(found, np.repeat(grey, 3, axis=2))


def test_rgb_becomes_grey_by_luma() -> None:
    for colour, grey in {
        (255, 0, 0): 76,
        (0, 255, 0): 150,
        (0, 0, 255): 29,
        (255, 255, 255): 255,
        (10, 200, 90): 131,
    }.items():  # ITU-R BT.601
        image = np.tile(np.array(colour, dtype=np.uint8), (20, 30, 1))
        found = Geometry(16, 16, "squash", GREY, 8).apply(image)
        assert np.abs(found.astype(int) - grey).max() <= 1


def test_sixteen_bits_are_kept_and_depths_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16, 1)
    assert np.array_equal(Geometry(16, 16, "squash", GREY, 16).apply(ramp), ramp)
    eight = Geometry(16, 16, "squash", GREY, 8).apply(ramp)
    assert np.abs(eight / 255 - ramp / 65535).max() <= 0.51 / 255
    assert len(np.unique(eight)) > 200
    byte = noise(16, 16, 1)
    assert np.array_equal(Geometry(16, 16, "squash", GREY, 16).apply(byte), byte.astype(np.uint16) * 257)


# Fits and boxes -------------------------------------------------------------------------------------------------------


def quadrants(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Left to right 0..255, so that a column tells where it came from."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8)[None, :, None], (height, 1, 1))


def test_squash_keeps_everything() -> None:
    found = Geometry(32, 32, "squash", GREY, 8).apply(quadrants(50, 200))
    assert found[:, 0].max() < 8
    assert found[:, -1].min() > 247


def test_crop_keeps_the_aspect_ratio_and_the_middle() -> None:
    found = Geometry(32, 32, "crop", GREY, 8).apply(quadrants(50, 200))
    middle = np.linspace(0, 255, 200)[75:125]
    assert found.shape == (32, 32, 1)
    assert found[0, 0] == pytest.approx(middle[0], abs=3)
    assert found[0, -1] == pytest.approx(middle[-1], abs=3)


def test_letterbox_keeps_everything_and_the_aspect_ratio_and_pads_with_the_mean() -> None:
    image = quadrants(50, 200)
    found = Geometry(32, 32, "letterbox", GREY, 8).apply(image)
    inner, outer = found[12:20], np.concatenate([found[:12], found[20:]])
    assert np.abs(inner - expected_resize(image, 8, 32)).max() <= 0.51
    assert len(np.unique(outer)) == 1
    assert int(outer[0, 0, 0]) == pytest.approx(image.mean(), abs=1)


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 300), w=st.integers(1, 300), height=st.integers(8, 64), width=st.integers(8, 64))
def test_every_fit_gives_the_asked_size_and_keeps_a_flat_image_flat(fit: Fit, h: int, w: int, height: int, width: int) -> None:
    found = Geometry(height, width, fit, GREY, 8).apply(np.full((h, w, 1), 77, dtype=np.uint8))
    assert found.shape == (height, width, 1)
    assert np.unique(found).tolist() == [77]


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_a_circle_stays_a_circle(fit: Fit) -> None:
    rows, columns = np.mgrid[:100, :300]
    image = (255 * ((rows - 49.5) ** 2 + (columns - 149.5) ** 2 < 40**2)).astype(np.uint8)[..., None]
    found = (
        Geometry(60, 60, fit, GREY, 8).apply(image)[..., 0] > 127
        if fit == "crop"
        else Geometry(90, 90, fit, GREY, 8).apply(image)[..., 0] > 127
    )
    tall, wide = found.any(axis=1).sum(), found.any(axis=0).sum()
    assert abs(int(tall) - int(wide)) <= 1
    assert tall == pytest.approx({"crop": 80 * 0.6, "letterbox": 80 * 0.3}[fit], abs=2)


def test_the_box_is_cut_out_before_the_resize() -> None:
    image = noise(100, 200, 1)
    boxed = Geometry(16, 16, "squash", GREY, 8, box=(0.1, 0.25, 0.6, 0.75)).apply(image)
    assert np.array_equal(boxed, Geometry(16, 16, "squash", GREY, 8).apply(image[10:60, 50:150]))


@given(
    h=st.integers(2, 12),
    w=st.integers(2, 12),
    top=st.floats(0, 0.99),
    left=st.floats(0, 0.99),
    high=st.floats(0.001, 1),
    wide=st.floats(0.001, 1),
)
@settings(max_examples=40, deadline=None)
def test_a_narrow_box_never_leaves_an_empty_image(h: int, w: int, top: float, left: float, high: float, wide: float) -> None:
    box = (top, left, min(1.0, top + high), min(1.0, left + wide))
    assert Geometry(8, 8, "squash", GREY, 8, box=box).apply(noise(h, w, 1)).shape == (8, 8, 1)


def test_the_source_is_left_as_it_was() -> None:
    image = noise(16, 16, 3)
    before = image.copy()
    Geometry(16, 16, "squash", RGB, 8).apply(image)[:] = 0
    Geometry(16, 16, "squash", GREY, 8).apply(image)
    assert np.array_equal(image, before)


def test_names_and_numbers_of_a_geometry() -> None:
    grey, colour = Geometry(8, 9, "crop", GREY, 8), Geometry(8, 9, "crop", RGB, 16)
    assert (grey.channels, colour.channels) == (("grey",), ("red", "green", "blue"))
    assert (grey.full, colour.full) == (255, 65535)
    assert [grey.dtype.name, colour.dtype.name] == ["uint8", "uint16"]
    assert (colour.shape, colour.size) == ((8, 9, 3), (8, 9))


BYTES = Normalisation((0.0,), (255.0,))

# Normalisation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mean_and_deviation_apply_to_each_channel_after_inversion(invert: bool, bits: int, channels: int) -> None:
    pixels = np.stack([noise(5, 7, channels, bits, seed) for seed in range(3)])
    mean, deviation = tuple(0.1 * (1 + i) for i in range(channels)), tuple(0.3 + 0.1 * i for i in range(channels))
    found = Normalisation((0.0,), (2**bits - 1.0,), invert=invert, mean=mean, deviation=deviation).apply(torch.from_numpy(pixels))
    values = pixels / (2**bits - 1)
    expected = ((1 - values if invert else values) - mean) / deviation
    assert found.dtype == torch.float32
    assert found.shape == (3, channels, 5, 7)
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-5)


@pytest.mark.parametrize("invert", [False, True])
def test_each_image_by_itself(invert: bool) -> None:
    pixels = np.stack([noise(6, 6, 3, 8, seed) // (seed + 1) for seed in range(3)])
    found = Normalisation((0.0,), (255.0,), invert=invert, per_image="together").apply(torch.from_numpy(pixels)).numpy()
    for image, source in zip(found, pixels.astype(float), strict=True):
        assert image.mean() == pytest.approx(0, abs=1e-5)
        assert image.std() == pytest.approx(1, abs=1e-4)
        correlation = np.corrcoef(image.transpose(1, 2, 0).ravel(), source.ravel())[0, 1]
        assert correlation == pytest.approx(-1 if invert else 1, abs=1e-5)


@pytest.mark.parametrize("per_image", ["together", "each"])
def test_a_flat_image_by_itself_is_finite(per_image: Literal["together", "each"]) -> None:
    flat = torch.full((1, 4, 4, 1), 200, dtype=torch.uint8)
    assert Normalisation((0.0,), (255.0,), per_image=per_image).apply(flat).abs().max() < 1e-2


def test_a_normalisation_survives_json() -> None:
    whole = Normalisation(
        low=(0.0, 1.5),
        high=(65535.0, 7.25),
        percentiles=(0.1, 99.9),
        clip=True,
        invert=True,
        per_image="each",
        mean=(0.1, 0.2),
        deviation=(0.4, 0.5),
    )
    for normalisation in (whole, BYTES, replace(whole, percentiles=None)):
        assert Normalisation.from_json(json.loads(json.dumps(normalisation.to_json()))) == normalisation


@pytest.mark.parametrize("bits", [8, 16])
def test_statistics_are_those_of_the_named_rows(bits: int) -> None:
    array = np.stack([noise(6, 5, 3, bits, seed) // (1 + seed) for seed in range(9)])
    rows = np.array([1, 4, 6, 8])
    mean, deviation = pixel_statistics(array, rows, Normalisation((0.0,), (2**bits - 1.0,)))
    values = array[rows].reshape(-1, 3) / (2**bits - 1)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-6)


def test_statistics_of_many_rows_look_at_rows_from_first_to_last() -> None:
    array = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1).repeat(2, axis=1)
    mean, deviation = pixel_statistics(array, np.arange(100), BYTES, most=5)
    assert mean[0] * 255 == pytest.approx(np.mean([0, 25, 50, 74, 99]), abs=0.5)
    assert deviation[0] * 255 > 30


def test_a_flat_set_has_a_deviation_to_divide_by() -> None:
    _, deviation = pixel_statistics(np.full((3, 4, 4, 1), 9, dtype=np.uint8), np.arange(3), BYTES)
    assert deviation[0] > 0


# Ranges ---------------------------------------------------------------------------------------------------------------


def floats(n: int, height: int, width: int, channels: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Each channel on a scale of its own, some of it below 0."""
    values = np.random.default_rng(seed).normal(size=(n, height, width, channels)).astype(np.float32)
    return values * np.float32(10.0) ** np.arange(channels, dtype=np.float32)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("invert", [False, True])
def test_a_fixed_range_of_each_channel_becomes_zero_to_one_then_is_clipped_then_inverted(clip: bool, invert: bool) -> None:
    pixels, low, high = floats(2, 5, 7, 3), (-0.5, -4.0, 10.0), (1.0, 3.0, 50.0)
    found = Normalisation(low, high, clip=clip, invert=invert).apply(torch.from_numpy(pixels)).numpy().transpose(0, 2, 3, 1)
    expected = (pixels.astype(np.float64) - low) / (np.array(high) - low)
    assert expected.min() < 0
    assert expected.max() > 1
    expected = np.minimum(np.maximum(expected, 0), 1) if clip else expected
    np.testing.assert_allclose(found, 1 - expected if invert else expected, rtol=1e-5, atol=1e-5)


def test_mean_and_deviation_come_after_range_clip_and_inversion() -> None:
    pixel = torch.tensor([0, 50, 100, 150, 200], dtype=torch.uint8).reshape(1, 1, 5, 1)
    found = Normalisation((50.0,), (150.0,), clip=True, invert=True, mean=(0.25,), deviation=(0.5,)).apply(pixel)
    assert found.flatten().tolist() == [1.5, 1.5, 0.5, -0.5, -0.5]


@pytest.mark.parametrize("percentiles", [(0.0, 100.0), (0.1, 99.9), (1.0, 99.0), (25.0, 60.0)])
@pytest.mark.parametrize("side", [2, 7, 64])
def test_percentiles_of_an_image_are_those_of_numpy(percentiles: tuple[float, float], side: int) -> None:
    pixels = floats(3, side, side, 2)
    low, high = image_percentiles(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), percentiles)
    expected = np.percentile(pixels, percentiles, axis=(1, 2))
    np.testing.assert_allclose(low[..., 0, 0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(high[..., 0, 0], expected[1], rtol=1e-5, atol=1e-5)
    found = Normalisation((0.0,), (1.0,), percentiles=percentiles).apply(torch.from_numpy(pixels)).numpy().transpose(0, 2, 3, 1)
    ranged = (pixels - expected[0][:, None, None]) / (expected[1] - expected[0])[:, None, None]
    np.testing.assert_allclose(found, ranged, rtol=1e-4, atol=1e-4)


def test_percentiles_of_a_large_image_rest_on_some_of_its_pixels_and_are_close() -> None:
    pixels = floats(1, 300, 500, 1)
    low, high = image_percentiles(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), (1.0, 99.0))
    assert [low.item(), high.item()] == pytest.approx(np.percentile(pixels, (1, 99)), abs=0.15)


def test_percentiles_of_the_data_set_are_those_of_its_training_rows() -> None:
    array = floats(6, 8, 9, 3)
    array[[0, 3]] = 1e6
    low, high = dataset_percentiles(array, np.array([1, 2, 4, 5]), (1.0, 99.0))
    expected = np.percentile(array[[1, 2, 4, 5]].reshape(-1, 3), (1, 99), axis=0)
    np.testing.assert_allclose([low, high], expected, rtol=1e-6)
    large = np.random.default_rng(0).integers(0, 65536, (3, 300, 200, 1)).astype(np.uint16)
    low, high = dataset_percentiles(large, np.arange(3), (5.0, 95.0))
    assert [low[0], high[0]] == pytest.approx([0.05 * 65535, 0.95 * 65535], rel=0.05)


@pytest.mark.parametrize("value", [0.0, -3.0, 200.0, 1e9])
def test_a_flat_channel_has_a_range_that_can_be_divided_by(value: float) -> None:
    flat = np.full((2, 4, 4, 1), value, dtype=np.float32)
    low, high = dataset_percentiles(flat, np.arange(2), (0.1, 99.9))
    for ranged in (Normalisation(tuple(low), tuple(high)), Normalisation((0.0,), (1.0,), percentiles=(0.1, 99.9))):
        assert ranged.apply(torch.from_numpy(flat)).tolist() == np.zeros((2, 1, 4, 4)).tolist()


@pytest.mark.parametrize("percentiles", [None, (1.0, 99.0)])
@pytest.mark.parametrize("per_image", ["none", "together", "each"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_stored_pixels_are_left_as_they_were(percentiles: tuple[float, float] | None, per_image: PerImage, dtype: type) -> None:
    pixels = torch.from_numpy(np.abs(floats(2, 5, 6, 2) * 5).astype(dtype))
    before = pixels.clone()
    for clip in (False, True):
        whole = Normalisation((1.0, 2.0), (9.0, 8.0), percentiles, clip, True, per_image, (0.3,), (0.2,))
        first = whole.apply(pixels)
        assert torch.equal(pixels, before)
        assert torch.equal(whole.apply(pixels), first)
    Normalisation((0.0,), (1.0,)).apply(pixels).fill_(7)
    assert torch.equal(pixels, before)


def test_each_channel_of_each_image_by_itself() -> None:
    found = Normalisation((0.0,), (1.0,), per_image="each").apply(torch.from_numpy(floats(3, 9, 8, 4))).numpy()
    np.testing.assert_allclose(found.mean(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(2, 3)), 1, atol=1e-4)
    together = Normalisation((0.0,), (1.0,), per_image="together").apply(torch.from_numpy(floats(3, 9, 8, 4))).numpy()
    assert together[:, 3].std() > 30 * together[:, 0].std()


@pytest.mark.parametrize("ranged", [Normalisation((-2.0,), (3.0,), clip=True, invert=True), Normalisation((0.0,), (1.0,), (5.0, 90.0))])
def test_statistics_are_those_after_the_range(ranged: Normalisation) -> None:
    array = floats(5, 6, 7, 2)
    mean, deviation = pixel_statistics(array, np.arange(5), replace(ranged, mean=(9.0,), deviation=(7.0,), per_image="each"))
    values = ranged.apply(torch.from_numpy(array)).double().numpy().transpose(0, 2, 3, 1).reshape(-1, 2)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-6)
    seen = replace(ranged, mean=tuple(mean), deviation=tuple(deviation)).apply(torch.from_numpy(array)).double()
    np.testing.assert_allclose(seen.mean(dim=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(dim=(0, 2, 3), correction=0), 1, atol=1e-5)


# Floating point and named channels ------------------------------------------------------------------------------------


def test_floating_point_is_stored_as_it_is() -> None:
    image = floats(1, 16, 24, 3)[0]
    geometry = Geometry(16, 24, "squash", ("a", "b", "c"), 32)
    assert np.array_equal(geometry.apply(image), image)
    assert (geometry.dtype.name, geometry.full) == ("float32", 1)
    resized = replace(geometry, height=9, width=11).apply(image)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected_resize(image, 9, 11), rtol=1e-4, atol=1e-4)
    grey = replace(geometry, channels=GREY).apply(image)
    np.testing.assert_allclose(grey[..., 0], image @ np.array([0.299, 0.587, 0.114]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_named_channels_are_resized_each_by_itself(channels: int) -> None:
    image = noise(30, 40, channels, 16)
    names = tuple(f"stain {number}" for number in range(channels))
    found = Geometry(16, 20, "letterbox", names, 16).apply(image)
    assert found.shape == (16, 20, channels)
    for plane in range(channels):
        assert np.array_equal(found[..., plane], Geometry(16, 20, "letterbox", GREY, 16).apply(image[..., [plane]])[..., 0])


@pytest.mark.parametrize(("channels", "names"), [(1, ("a", "b")), (1, ("a", "b", "c")), (3, ("a",)), (4, RGB), (2, GREY)])
def test_channels_are_never_made_up(channels: int, names: tuple[str, ...]) -> None:
    with pytest.raises(ImageReadError, match=rf"{channels} channels, where {len(names)} are expected \({', '.join(names)}\)"):
        Geometry(16, 16, "squash", names, 8).apply(noise(20, 20, channels))
