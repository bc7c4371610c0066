import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.data.pixels import Fit, Geometry, Normalisation, pixel_statistics
from coverslip.structures import GREY, RGB

Floats = npt.NDArray[np.float64]


def triangle_weights(old: int, new: int) -> Floats:
    """(new, old): a triangle around the centre of each new pixel, as wide as the reduction, summing to one."""
    ratio = old / new
    reach = max(ratio, 1.0)
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * ratio
        for j in range(old):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def expected_resize(image: npt.NDArray[np.generic], height: int, width: int) -> Floats:
    rows, columns = triangle_weights(image.shape[0], height), triangle_weights(image.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float64), columns)


def noise(height: int, width: int, channels: int, bits: int = 8, seed: int = 0) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, (height, width, channels)).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(*[st.integers(2, 40)] * 2, *[st.integers(8, 40)] * 2, st.sampled_from([1, 3]), st.sampled_from([8, 16]))
def test_resize_equals_a_triangle_filter_written_out(h: int, w: int, height: int, width: int, channels: int, bits: int) -> None:
    image = noise(h, w, channels, bits)
    found = Geometry(height, width, "squash", channels, bits).apply(image)
    expected = expected_resize(image, height, width)
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert found.shape == (height, width, channels)
    assert np.abs(found - expected).max() <= 0.5 + 2e-6 * 2**bits


@pytest.mark.parametrize("column", range(300, 312))
def test_a_thin_dark_line_on_white_survives(column: int) -> None:
    """One pixel of 750 is 0.299 of a pixel of 224: area averaging takes at least half of that from some column."""
    image = np.full((500, 750, 1), 255, dtype=np.uint8)
    image[:, column] = 0
    small = Geometry(224, 224, "squash", 1, 8).apply(image)
    share = 224 / 750
    darkest = 255 - small.min(axis=1).astype(float)
    assert darkest.min() >= 255 * share / 2 - 1
    assert (255.0 - small).sum(axis=1) == pytest.approx(255 * share, abs=3)  # no ink is lost


def test_an_image_of_the_right_size_is_kept_bit_for_bit() -> None:
    image = noise(16, 24, 3, bits=16)
    assert np.array_equal(Geometry(16, 24, "squash", 3, 16).apply(image), image)


def test_grey_becomes_rgb_by_copying_at_any_size() -> None:
    for side in (16, 40):
        image = noise(side, side, 1)
        found = Geometry(16, 16, "squash", 3, 8).apply(image)
        grey = Geometry(16, 16, "squash", 1, 8).apply(image)
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
        found = Geometry(16, 16, "squash", 1, 8).apply(image)
        assert np.abs(found.astype(int) - grey).max() <= 1


def test_sixteen_bits_are_kept_and_depths_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16, 1)
    assert np.array_equal(Geometry(16, 16, "squash", 1, 16).apply(ramp), ramp)
    eight = Geometry(16, 16, "squash", 1, 8).apply(ramp)
    assert np.abs(eight / 255 - ramp / 65535).max() <= 0.51 / 255
    assert len(np.unique(eight)) > 200
    byte = noise(16, 16, 1)
    assert np.array_equal(Geometry(16, 16, "squash", 1, 16).apply(byte), byte.astype(np.uint16) * 257)


# Fits and boxes -------------------------------------------------------------------------------------------------------


def quadrants(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Left to right 0..255, so that a column tells where it came from."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8)[None, :, None], (height, 1, 1))


def test_squash_keeps_everything() -> None:
    found = Geometry(32, 32, "squash", 1, 8).apply(quadrants(50, 200))
    assert found[:, 0].max() < 8
    assert found[:, -1].min() > 247


def test_crop_keeps_the_aspect_ratio_and_the_middle() -> None:
    found = Geometry(32, 32, "crop", 1, 8).apply(quadrants(50, 200))
    middle = np.linspace(0, 255, 200)[75:125]
    assert found.shape == (32, 32, 1)
    assert found[0, 0] == pytest.approx(middle[0], abs=3)
    assert found[0, -1] == pytest.approx(middle[-1], abs=3)


def test_letterbox_keeps_everything_and_the_aspect_ratio_and_pads_with_the_mean() -> None:
    image = quadrants(50, 200)
    found = Geometry(32, 32, "letterbox", 1, 8).apply(image)
    inner, outer = found[12:20], np.concatenate([found[:12], found[20:]])
    assert np.abs(inner - expected_resize(image, 8, 32)).max() <= 0.51
    assert len(np.unique(outer)) == 1
    assert int(outer[0, 0, 0]) == pytest.approx(image.mean(), abs=1)


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 300), w=st.integers(1, 300), height=st.integers(8, 64), width=st.integers(8, 64))
def test_every_fit_gives_the_asked_size_and_keeps_a_flat_image_flat(fit: Fit, h: int, w: int, height: int, width: int) -> None:
    found = Geometry(height, width, fit, 1, 8).apply(np.full((h, w, 1), 77, dtype=np.uint8))
    assert found.shape == (height, width, 1)
    assert np.unique(found).tolist() == [77]


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_a_circle_stays_a_circle(fit: Fit) -> None:
    rows, columns = np.mgrid[:100, :300]
    image = (255 * ((rows - 49.5) ** 2 + (columns - 149.5) ** 2 < 40**2)).astype(np.uint8)[..., None]
    found = (
        Geometry(60, 60, fit, 1, 8).apply(image)[..., 0] > 127 if fit == "crop" else Geometry(90, 90, fit, 1, 8).apply(image)[..., 0] > 127
    )
    tall, wide = found.any(axis=1).sum(), found.any(axis=0).sum()
    assert abs(int(tall) - int(wide)) <= 1
    assert tall == pytest.approx({"crop": 80 * 0.6, "letterbox": 80 * 0.3}[fit], abs=2)


def test_the_box_is_cut_out_before_the_resize() -> None:
    image = noise(100, 200, 1)
    boxed = Geometry(16, 16, "squash", 1, 8, box=(0.1, 0.25, 0.6, 0.75)).apply(image)
    assert np.array_equal(boxed, Geometry(16, 16, "squash", 1, 8).apply(image[10:60, 50:150]))


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
    assert Geometry(8, 8, "squash", 1, 8, box=box).apply(noise(h, w, 1)).shape == (8, 8, 1)


def test_the_source_is_left_as_it_was() -> None:
    image = noise(16, 16, 3)
    before = image.copy()
    Geometry(16, 16, "squash", 3, 8).apply(image)[:] = 0
    Geometry(16, 16, "squash", 1, 8).apply(image)
    assert np.array_equal(image, before)


def test_names_and_numbers_of_a_geometry() -> None:
    grey, colour = Geometry(8, 9, "crop", 1, 8), Geometry(8, 9, "crop", 3, 16)
    assert (grey.channel_names, colour.channel_names) == (GREY, RGB)
    assert (grey.full, colour.full) == (255, 65535)
    assert colour.shape == (8, 9, 3)


# Normalisation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mean_and_deviation_apply_to_each_channel_after_inversion(invert: bool, bits: int, channels: int) -> None:
    pixels = np.stack([noise(5, 7, channels, bits, seed) for seed in range(3)])
    mean, deviation = tuple(0.1 * (1 + i) for i in range(channels)), tuple(0.3 + 0.1 * i for i in range(channels))
    found = Normalisation(2**bits - 1, invert, False, mean, deviation).apply(torch.from_numpy(pixels))
    values = pixels / (2**bits - 1)
    expected = ((1 - values if invert else values) - mean) / deviation
    assert found.dtype == torch.float32
    assert found.shape == (3, channels, 5, 7)
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-5)


@pytest.mark.parametrize("invert", [False, True])
def test_each_image_by_itself(invert: bool) -> None:
    pixels = np.stack([noise(6, 6, 3, 8, seed) // (seed + 1) for seed in range(3)])
    found = Normalisation(255, invert, True, (0.0,) * 3, (1.0,) * 3).apply(torch.from_numpy(pixels)).numpy()
    for image, source in zip(found, pixels.astype(float), strict=True):
        assert image.mean() == pytest.approx(0, abs=1e-5)
        assert image.std() == pytest.approx(1, abs=1e-4)
        correlation = np.corrcoef(image.transpose(1, 2, 0).ravel(), source.ravel())[0, 1]
        assert correlation == pytest.approx(-1 if invert else 1, abs=1e-5)


def test_a_flat_image_by_itself_is_finite() -> None:
    flat = torch.full((1, 4, 4, 1), 200, dtype=torch.uint8)
    assert Normalisation(255, False, True, (0.0,), (1.0,)).apply(flat).abs().max() < 1e-2


def test_a_normalisation_survives_json() -> None:
    normalisation = Normalisation(65535, True, False, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Normalisation.from_json({**normalisation.to_json(), "mean": [0.1, 0.2, 0.3], "deviation": [0.4, 0.5, 0.6]}) == normalisation


@pytest.mark.parametrize("bits", [8, 16])
def test_statistics_are_those_of_the_named_rows(bits: int) -> None:
    array = np.stack([noise(6, 5, 3, bits, seed) // (1 + seed) for seed in range(9)])
    rows = np.array([1, 4, 6, 8])
    mean, deviation = pixel_statistics(array, rows, 2**bits - 1)
    values = array[rows].reshape(-1, 3) / (2**bits - 1)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-6)


def test_statistics_of_many_rows_look_at_rows_from_first_to_last() -> None:
    array = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1).repeat(2, axis=1)
    mean, deviation = pixel_statistics(array, np.arange(100), 255, most=5)
    assert mean[0] * 255 == pytest.approx(np.mean([0, 25, 50, 74, 99]), abs=0.5)
    assert deviation[0] * 255 > 30


def test_a_flat_set_has_a_deviation_to_divide_by() -> None:
    _, deviation = pixel_statistics(np.full((3, 4, 4, 1), 9, dtype=np.uint8), np.arange(3), 255)
    assert deviation[0] > 0
