"""What every decoder of image files shares: the error, the bound on sizes, and Pillow's pixels."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from coverslip.errors import CoverslipError

PixelArray = npt.NDArray[Any]
"""uint8, uint16 or float32."""
Projection = Literal["max", "mean"] | int
"""How the planes of a z-stack become one: the brightest or the mean value of each pixel, or the plane with this number, from 0."""


BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
)
"""What decoders raise, of their own or by accident, on a file that is damaged."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of one file, and what it says of them.

    Attributes:
        pixels: uint8, uint16 or float32 (h, w, c).
        format: `PNG`, `TIFF`, ...
        mode: the pixel mode in Pillow's words; for channels such as `4 x uint16`.
        bits: bits of a channel as stored.
        names: the names of the channels, `""` where the file gives none; empty for grey and colour images, with or without
            transparency, which need no names.
        orientation: as EXIF numbers them; 1 = upright.
    """

    pixels: npt.NDArray[Any]
    format: str
    mode: str
    bits: int
    names: tuple[str, ...] = ()
    orientation: int = 1


class ImageReadError(CoverslipError, ValueError):
    """One image cannot be read. The message is a short reason without the path, which the caller adds."""


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuse sizes that are not to be decoded.

    Raises:
        ImageReadError: more than `max_pixels`, or no pixels at all.
    """
    if height * width > max_pixels:
        raise ImageReadError(f"too large: {height}x{width} pixels; at most {max_pixels:,} in all are opened (data.max_pixels)")
    if height * width < 1:
        raise ImageReadError(f"too small: {height}x{width} pixels")


def pillow_pixels(image: Image.Image) -> npt.NDArray[Any]:
    """uint8 (h, w) or (h, w, 2, 3 or 4): grey, grey with alpha, RGB or RGBA, whatever the mode was."""
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return np.asarray(image)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
