"""The grey levels of colour images in floating point, not rounded: what is resized, and what the audit looks at.

Pillow makes them in one pass over the bytes; as floats in numpy or torch, a photograph of three planes takes four times as long.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from coverslip.data.decoding import PixelArray


@dataclass(frozen=True)
class Luma:
    """ITU-R 601 luma of one image, on [0, 255].

    Attributes:
        picture: mode `F`.
        values: float32 (h, w), the same numbers, in the same memory where Pillow keeps them in one piece.
    """

    picture: Image.Image
    values: npt.NDArray[np.float32]


def luma_of(image: PixelArray) -> Luma | None:
    """(299 R + 587 G + 114 B) / 1000 of a uint8 (h, w, 3) image; None for every other kind."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        return None
    whole = whole_of(image)
    if whole is image:
        picture = Image.fromarray(image)
    else:
        picture = Image.frombuffer("RGBA", (image.shape[1], image.shape[0]), whole, "raw", "RGBA", 0, 1)
    picture = picture.convert("F")
    return Luma(picture, _values(picture))


def whole_of(image: PixelArray) -> PixelArray:
    """The uint8 (h, w, 4) array of which an image is the first three planes; the image itself where there is none.

    To go over four planes in one piece of memory is faster than to step over every fourth byte.
    """
    whole = image.base
    if not isinstance(whole, np.ndarray) or whole.dtype != np.uint8 or whole.shape != (*image.shape[:2], 4) or image.shape[2] != 3:
        return image
    same = whole.flags.c_contiguous and image.strides == whole.strides and image.ctypes.data == whole.ctypes.data
    return whole if same else image


def _values(picture: Image.Image) -> npt.NDArray[np.float32]:
    """The pixels of a picture of mode `F` without a copy, except where it is so large that Pillow keeps it in several pieces."""
    try:
        array = pa.array(picture)
    except ValueError:
        return np.array(picture, dtype=np.float32)
    floats = (ctypes.c_float * len(array)).from_address(array.buffers()[1].address)
    floats.owner = array  # type: ignore[attr-defined]  # keeps the memory for as long as numpy refers to these floats
    return np.ctypeslib.as_array(floats).reshape(picture.height, picture.width)
