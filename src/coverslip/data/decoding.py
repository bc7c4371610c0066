"""What every decoder of image files shares: the error, the bound on sizes, and Pillow's pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from coverslip.errors import CoverslipError


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
