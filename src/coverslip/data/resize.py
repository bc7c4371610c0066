"""The one resize: floating point, bilinear, antialiased (a triangle filter as wide as the reduction).

The result of torch's `interpolate(mode="bilinear", antialias=True)` in a third of its time, without torch. Each pass is the product with a
matrix that is zero away from its diagonal; it is cut into small blocks along that diagonal, and what is zero is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HALF = 0.5 - 0.0007
"""What is added before numbers are rounded down to whole ones.

Sizes of a simple ratio put many pixels halfway between two grey levels, where the order in which an engine sums decides: these all go
down, and what is added is too odd for other pixels to come as close.
"""

_ROWS, _COLUMNS = 4, 16
"""New rows that are summed together, and numbers of a new row: of those that were tried, the fastest on images of all sizes."""
_ALONE = 1 << 18
"""Multiplications up to which OpenBLAS multiplies matrices in the thread that asks; for more it wakes others, which wait for each other."""


def resize_rows(image: Floats, height: int) -> Floats:
    """The vertical pass: float32 (h, w, c) to (height, w, c), `height` in pixels."""
    if image.shape[0] == height:
        return image
    rows = image.reshape(len(image), -1)
    resized = np.empty((height, rows.shape[1]), dtype=np.float32)
    for block in _blocks(len(image), height, _ROWS):
        wide = max(1, _ALONE // block.weights.size)
        for left in range(0, rows.shape[1], wide):
            part = slice(left, left + wide)
            np.matmul(block.weights, rows[block.old, part], out=resized[block.new, part])
    return resized.reshape(height, *image.shape[1:])


def resize_columns(image: Floats, width: int) -> Floats:
    """The horizontal pass: float32 (h, w, c) to (h, width, c), `width` in pixels."""
    height, old, planes = image.shape
    if old == width:
        return image
    rows = np.ascontiguousarray(image).reshape(height, -1)
    resized = np.empty((height, width * planes), dtype=np.float32)
    for block in _interleaved_blocks(old, width, planes):
        high = max(1, _ALONE // block.weights.size)
        for top in range(0, height, high):
            part = slice(top, top + high)
            np.matmul(rows[part, block.old], block.weights, out=resized[part, block.new])
    return resized.reshape(height, width, planes)


@dataclass(frozen=True)
class _Block:
    """Some new pixels of a line, the old ones that they are sums of, and the weights."""

    new: slice
    old: slice
    weights: Floats


@lru_cache(maxsize=64)
def _blocks(old: int, new: int, size: int) -> list[_Block]:
    """The matrix (new, old) of a pass in blocks of `size` rows."""
    ratio = old / new
    reach = max(ratio, 1.0)
    centres = (np.arange(new) + 0.5) * ratio
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0).tolist()
    end = np.minimum((centres + reach + 0.5).astype(np.int64), old).tolist()
    pixels, blocks = np.arange(old) + 0.5, []
    for start in range(0, new, size):
        stop = min(start + size, new)
        some = slice(first[start], end[stop - 1])
        weights = np.maximum(0.0, 1 - np.abs(pixels[some] - centres[start:stop, None]) / reach)
        weights /= weights.sum(axis=1, keepdims=True)
        blocks.append(_Block(slice(start, stop), some, weights.astype(np.float32)))
    return blocks


@lru_cache(maxsize=64)
def _interleaved_blocks(old: int, new: int, planes: int) -> list[_Block]:
    """The transposed matrix of a pass, for lines in which the planes of each pixel lie side by side."""
    blocks = _blocks(old, new, max(1, _COLUMNS // planes))
    return [_Block(_times(block.new, planes), _times(block.old, planes), _interleaved(block.weights.T, planes)) for block in blocks]


def _times(part: slice, planes: int) -> slice:
    return slice(part.start * planes, part.stop * planes)


def _interleaved(weights: Floats, planes: int) -> Floats:
    """(old, new) as (old * planes, new * planes): every plane for itself."""
    spread = np.zeros((weights.shape[0], planes, weights.shape[1], planes), dtype=np.float32)
    for plane in range(planes):
        spread[:, plane, :, plane] = weights
    return spread.reshape(weights.shape[0] * planes, -1)
