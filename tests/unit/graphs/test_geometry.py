from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coverslip.data.geometry import GREY, RGB, WHOLE, Geometry
from coverslip.graphs.builder import GraphBuilder
from coverslip.graphs.geometry import resized

from .running import Array, outputs_of

FOUR = ("dna", "tubulin", "er", "protein")
SIZES = ((48, 48), (96, 96), (37, 61), (200, 17), (5, 9), (2, 2))
KINDS: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}


def picture(shape: tuple[int, ...], depth: int, seed: int = 0) -> Array:
    """Thin lines and noise: what a resize shows its faults on."""
    random = np.random.default_rng(seed)
    values = random.random(shape)
    values[::7] = 1
    values[:, ::5] *= 0.1
    return (values if depth == 32 else np.round(values * (2**depth - 1))).astype(KINDS[depth])


def by_graph(images: Array, geometry: Geometry, depth: int) -> Array:
    graph = GraphBuilder()
    return outputs_of(graph, resized(graph, "pixels", geometry, depth), {"pixels": images}).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("box", [WHOLE, (0.0625, 0.0, 0.9375, 1.0), (0.1234, 0.31, 0.77, 0.9996)])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
def test_any_size_becomes_the_stored_pixels(fit: Any, box: tuple[float, float, float, float]) -> None:
    geometry = Geometry(48, 32, fit, GREY, 8, box)
    different = total = 0
    for size in SIZES:
        images = np.stack([picture((*size, 1), 8, seed) for seed in range(3)])
        expected = np.stack([geometry.apply(image) for image in images])
        found = by_graph(images, geometry, 8)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1  # a half is rounded up or down by the last bit of a sum
        different += int((found != expected).sum())
        total += expected.size
    assert total == len(SIZES) * 3 * 48 * 32
    assert different <= 2e-4 * total


def test_pixels_halfway_between_two_grey_levels_are_rounded_alike() -> None:
    """Sizes of a simple ratio: with 5 to 3, many sums end in .5."""
    geometry = Geometry(288, 384, "squash", RGB, 8)
    images = np.random.default_rng(1).integers(0, 256, (2, 480, 640, 3)).astype(np.uint8)
    expected = np.stack([geometry.apply(image) for image in images])
    assert np.array_equal(by_graph(images, geometry, 8), expected)


@pytest.mark.parametrize("depth", [8, 16, 32])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_depths_and_channels(bits: int, depth: int) -> None:
    if (bits == 32) != (depth == 32):
        return
    counts = {GREY: (1, 3), RGB: (1, 3), FOUR: (4,)}
    for channels, found_in_files in counts.items():
        geometry = Geometry(24, 30, "squash", channels, bits)
        for count in found_in_files:
            image = picture((41, 53, count), depth)
            expected = geometry.apply(image).astype(np.float64)
            found = by_graph(image[None], geometry, depth)[0]
            assert found.shape == expected.shape == (24, 30, len(channels))
            allowed = 1e-6 if bits == 32 else 1.0
            assert np.abs(found - expected).max() <= allowed, (channels, count)
            assert (np.abs(found - expected) > 1e-6).mean() <= (1e-2 if bits == 16 else 1e-3), (channels, count)


def test_the_taps_are_those_of_the_resize_to_the_last_bit() -> None:
    """An image of one bright pixel shows one column of the matrix."""
    geometry = Geometry(48, 48, "squash", GREY, 32)
    for side in (31, 48, 96, 131, 500):
        images = np.zeros((side, side, side, 1), dtype=np.float32)
        images[np.arange(side), np.arange(side), np.arange(side)] = 1
        few = images[:: max(1, side // 12)]
        expected = np.stack([geometry.apply(image) for image in few])
        assert np.array_equal(by_graph(few, geometry, 32), expected), side
