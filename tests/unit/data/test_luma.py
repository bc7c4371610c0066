"""Grey levels of colour images, against their definition in double precision."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from coverslip.data.images import over_background
from coverslip.data.luma import luma_of, whole_of

random = np.random.default_rng(0)
COLOUR = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def expected(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("kept", ["alone", "beside a fourth plane", "every second pixel"])
def test_luma_is_not_rounded(kept):
    opaque = np.dstack([COLOUR, np.full((40, 60), 255, np.uint8)])
    image = {"alone": COLOUR, "beside a fourth plane": over_background(opaque, "#ffffff"), "every second pixel": COLOUR[::2, ::2]}[kept]
    luma = luma_of(image)
    assert luma is not None
    assert luma.values.dtype == np.float32
    assert np.abs(luma.values - expected(image)).max() < 1e-4
    assert np.array_equal(np.asarray(luma.picture), luma.values)


def test_large_images_and_memory_that_outlives_the_picture():
    image = random.integers(0, 256, (3000, 2000, 3), dtype=np.uint8)  # more than Pillow keeps in one piece
    assert np.abs(luma_of(image).values - expected(image)).max() < 1e-4
    values = luma_of(COLOUR).values
    before = values.copy()
    gc.collect()
    others = [luma_of(255 - COLOUR) for _ in range(50)]
    assert np.array_equal(values, before)
    assert not np.array_equal(others[0].values, before)


def test_other_kinds_have_no_luma():
    for image in (COLOUR[..., :1], COLOUR.astype(np.uint16), COLOUR.astype(np.float32), np.dstack([COLOUR, COLOUR[..., 0]])):
        assert luma_of(image) is None


def test_the_whole_of_a_view():
    opaque = np.dstack([COLOUR, np.full((40, 60), 255, np.uint8)])
    assert whole_of(opaque[..., :3]) is opaque
    for image in (opaque, COLOUR, opaque[..., 1:], opaque[:, ::-1, :3], opaque[1:, :, :3], opaque[::-1, :, :3]):
        assert whole_of(image) is image
