"""Pictures for people: the image, and the image with a heat map over it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_dilation

from coverslip.data.composite import composite
from coverslip.data.decoding import PixelArray
from coverslip.explain.hiding import highlighted
from coverslip.explain.placing import Map, to_size

SIDE = 1024
"""Longest side of a picture, in pixels."""
OPAQUE = 0.72
"""How much of the image the hottest colour covers."""
FLAT = 0.15
"""Share of the highest value up to which a map leaves the image as it is."""

Picture = npt.NDArray[np.uint8]


def picture_of(image: PixelArray, channels: Sequence[str]) -> Picture:
    """uint8 (h, w, 3), at most 1,024 pixels a side, of a decoded image.

    Args:
        image: uint8, uint16 or float32 (h, w, c).
        channels: names of its planes where they are neither grey nor RGB, each drawn in a colour of its own; else empty.
    """
    step = -(-max(image.shape[:2]) // (4 * SIDE))
    coarse = image[::step, ::step]
    if channels:
        shown = composite(coarse, channels)
    elif coarse.dtype == np.uint8:
        shown = coarse
    else:
        low, high = np.percentile(coarse, (0.1, 99.9))
        shown = ((coarse.astype(np.float32) - low) * (255 / max(float(high - low), 1e-9))).clip(0, 255).round().astype(np.uint8)
    plain = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown).convert("RGB")
    plain.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(plain)


def overlay(picture: Picture, values: Map, highest: float | None = None) -> Picture:
    """A picture with a heat map over it; a line goes around the tenth of the image with the highest values.

    Args:
        picture: uint8 (h, w, 3).
        values: float32 (any h, w): covers the whole picture. Negative values are drawn as 0.
        highest: the value of the hottest colour, for maps that are compared, which get no line; the highest of this one when None.

    Returns:
        uint8 (h, w, 3).
    """
    heat = to_size(np.maximum(values, 0), *picture.shape[:2])
    hottest = float(heat.max()) if highest is None else highest
    if hottest <= 0 or heat.max() <= 0:
        return picture
    heat = (heat / hottest).clip(0, 1)
    strength = ((heat - FLAT) / (1 - FLAT)).clip(0, 1)
    cover = (OPAQUE * np.sqrt(strength))[..., None]
    mixed = picture * (1 - cover) + 255 * _colours()[(heat * 255).round().astype(np.int64)] * cover
    drawn: Picture = mixed.clip(0, 255).round().astype(np.uint8)
    if highest is not None:
        return drawn
    region = highlighted(heat)
    width = 1 + max(picture.shape[:2]) // 400
    drawn[~region & _grown(region, width)] = 0
    drawn[region & _grown(~region, width)] = 255
    return drawn


def png(picture: Picture) -> bytes:
    """A picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


@cache
def _colours() -> npt.NDArray[np.float64]:
    """Colours of the heat map, (256, 3) in [0, 1], from the coldest to the hottest."""
    import matplotlib

    return np.asarray(matplotlib.colormaps["plasma"](np.linspace(0, 0.93, 256)))[:, :3]


def _grown(region: npt.NDArray[np.bool_], by: int) -> npt.NDArray[np.bool_]:
    """A region with what lies at most so many steps beside it; beyond the edge of the picture there is nothing."""
    grown: npt.NDArray[np.bool_] = binary_dilation(region, iterations=by)
    return grown
