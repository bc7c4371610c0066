from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from coverslip.serve.looks import SIDE, thumbnail

random = np.random.default_rng(0)


def opened(uri: str) -> Image.Image:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("dtype", "channels", "mode"),
    [
        ("uint8", ("grey",), "L"), ("uint16", ("grey",), "L"), ("float32", ("grey",), "L"), ("uint8", ("red", "green", "blue"), "RGB"),
        ("uint16", ("red", "green", "blue"), "RGB"), ("uint16", ("dna", "actin"), "RGB"), ("float32", ("a", "b", "c", "d", "e"), "RGB"),
    ],
)  # fmt: skip
def test_stored_pixels_of_every_kind_become_a_small_picture(dtype: str, channels: tuple[str, ...], mode: str) -> None:
    pixels = (random.random((300, 600, len(channels))) * (1 if dtype == "float32" else np.iinfo(dtype).max)).astype(dtype)
    picture = opened(thumbnail(pixels, channels))
    assert (picture.size, picture.mode) == ((SIDE, SIDE // 2), mode)
    assert np.asarray(picture).std() > 5


def test_dark_sixteen_bit_pixels_can_be_seen_and_flat_ones_are_no_trouble() -> None:
    dim = np.zeros((40, 40, 1), np.uint16)
    dim[10:30, 10:30] = 90
    seen = np.asarray(opened(thumbnail(dim, ("grey",))))
    assert seen[20, 20] > 240
    assert seen[0, 0] < 15
    for channels in (("grey",), ("dna", "actin")):
        flat = np.full((8, 8, len(channels)), 7, np.uint16)
        assert opened(thumbnail(flat, channels)).size == (8, 8)
