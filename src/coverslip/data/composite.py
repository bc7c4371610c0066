"""Channels as one colour picture for people: each stretched by itself, in a colour of its own, and added up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt

from coverslip.data.decoding import PixelArray

PERCENTILES = (0.1, 99.8)
"""What is black and what is full brightness in the picture of a channel."""

_COLOURS = {
    "blue": (64, 96, 255),
    "green": (0, 255, 0),
    "red": (255, 32, 32),
    "yellow": (230, 200, 0),
    "cyan": (0, 220, 255),
    "magenta": (255, 0, 220),
    "orange": (255, 140, 0),
    "grey": (200, 200, 200),
}
_STAINS = {
    "blue": ("blue", "dapi", "hoechst", "nucle", "dna"),
    "green": ("green", "gfp", "fitc", "alexa488", "protein"),
    "red": ("red", "rfp", "mcherry", "cy3", "tubul"),
    "yellow": ("yellow", "yfp", "reticulum"),
    "cyan": ("cyan", "cfp"),
    "magenta": ("magenta", "cy5", "actin"),
    "grey": ("grey", "gray", "white", "phase", "bright", "dic"),
}


def channel_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour `#rrggbb` for each channel: by the stain that its name speaks of, else one that no other channel has.

    >>> channel_colours(["DAPI", "unknown"])
    {'DAPI': '#4060ff', 'unknown': '#00ff00'}
    """
    chosen = {name: colour for name in names if (colour := _stain(name)) is not None}
    free = cycle([colour for colour in _COLOURS if colour not in chosen.values()] or _COLOURS)
    return {name: "#{:02x}{:02x}{:02x}".format(*_COLOURS[chosen.get(name) or next(free)]) for name in names}


def _stain(name: str) -> str | None:
    return next((colour for colour, words in _STAINS.items() if any(word in name.casefold() for word in words)), None)


def composite(image: PixelArray, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(h, w, c) of any numbers as uint8 (h, w, 3), c names; a channel without contrast stays black."""
    colours = channel_colours(names)
    total = np.zeros((*image.shape[:2], 3), dtype=np.float32)
    for plane, name in enumerate(names):
        values = image[..., plane].astype(np.float32)
        low, high = np.percentile(values[:: 1 + values.shape[0] // 512, :: 1 + values.shape[1] // 512], PERCENTILES)
        colour = np.array([int(colours[name][place : place + 2], 16) for place in (1, 3, 5)], dtype=np.float32)
        total += np.clip((values - low) / max(high - low, 1e-9), 0, 1)[..., None] * colour
    return total.round().clip(0, 255).astype(np.uint8)
