"""From the network's pixels back to those of the image that it was given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from coverslip.data.geometry import Geometry

Map = npt.NDArray[np.float32]


def to_size(values: Map, height: int, width: int) -> Map:
    """A map (h, w) at another size: by straight lines where it grows, by means where it shrinks."""
    if values.shape == (height, width):
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    grown = functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False, antialias=True)
    found: Map = grown[0, 0].numpy()
    return found


def to_image(values: Map, geometry: Geometry, height: int, width: int) -> Map:
    """A map of the network's input as a map of the whole image: the way of `Geometry.apply` backwards.

    Args:
        values: float32 (h, w), of any size: it covers the network's input.
        geometry: how the image became the network's input.
        height, width: of the image, in pixels.

    Returns:
        float32 (height, width); 0 where the network did not look: outside the box, and what a crop cuts off.
    """
    top, left, rows, columns = _box(geometry, height, width)
    found = np.zeros((height, width), dtype=np.float32)
    if geometry.fit == "squash":
        found[top : top + rows, left : left + columns] = to_size(values, rows, columns)
        return found
    seen = to_size(values, geometry.height, geometry.width)
    choose = min if geometry.fit == "letterbox" else max
    ratio = choose(geometry.height / rows, geometry.width / columns)
    inner_rows, inner_columns = max(1, round(rows * ratio)), max(1, round(columns * ratio))
    if geometry.fit == "letterbox":
        up, side = (geometry.height - inner_rows) // 2, (geometry.width - inner_columns) // 2
        inner = seen[up : up + inner_rows, side : side + inner_columns]
    else:
        up, side = (inner_rows - geometry.height) // 2, (inner_columns - geometry.width) // 2
        inner = np.zeros((inner_rows, inner_columns), dtype=np.float32)
        inner[up : up + geometry.height, side : side + geometry.width] = seen
    found[top : top + rows, left : left + columns] = to_size(np.ascontiguousarray(inner), rows, columns)
    return found


def _box(geometry: Geometry, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the part of an image that is looked at, as `Geometry.apply` cuts it."""
    top, bottom = round(geometry.box[0] * height), round(geometry.box[2] * height)
    left, right = round(geometry.box[1] * width), round(geometry.box[3] * width)
    top, left = min(top, height - 1), min(left, width - 1)
    return top, left, max(bottom, top + 1) - top, max(right, left + 1) - left
