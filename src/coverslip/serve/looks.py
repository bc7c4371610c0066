"""Small pictures of stored pixels, for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from coverslip.data.composite import composite
from coverslip.data.decoding import PixelArray

SIDE = 256
_PLAIN = (("grey",), ("red", "green", "blue"))


def thumbnail(pixels: PixelArray, channels: Sequence[str]) -> str:
    """Stored pixels (h, w, c) as the data URI of a JPEG of at most `SIDE` pixels; other than grey and RGB in colours of the channels."""
    shown = _stretched(pixels) if tuple(channels) in _PLAIN else composite(pixels, channels)
    image = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _stretched(pixels: PixelArray) -> PixelArray:
    """Any numbers as uint8, from the lowest to the highest; uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    stretched: PixelArray = ((pixels.astype(np.float32) - low) * (255.0 / max(high - low, 1e-9))).round().astype(np.uint8)
    return stretched
