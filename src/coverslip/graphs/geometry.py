"""The resize, trim and choice of channels of `data.geometry.Geometry` as ONNX nodes, for images of any size.

The antialiased resize is a matrix that multiplies the columns, and one that multiplies the rows. The tap of old pixel i in new
pixel j is a triangle around it, and as the graph knows both sizes as whole numbers it is one, too:

    tap(j, i) = max(0, 2 max(old, new) - |new (2i + 1) - old (2j + 1)|)

divided by the sum over i. So the weights are those of `data.resize` to the last bit, whatever computes them. Crop and letterbox are
the same matrix with other rows: those of a larger or smaller image, beginning at an offset.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coverslip.data.geometry import GREY, RGB, WHOLE, Geometry
from coverslip.data.images import LUMA
from coverslip.data.resize import HALF
from coverslip.graphs.builder import GraphBuilder, Operand, Value, floats, integers

ROWS, COLUMNS = 2, 3
"""Axes of (n, c, h, w)."""


DIGIT_BITS = 11


class _Target(NamedTuple):
    """One axis of the resized image: its length, and which of its pixels comes first; int64 (1,) each."""

    length: Operand
    first: Operand


def resized(graph: GraphBuilder, pixels: Value, geometry: Geometry, depth: int) -> Value:
    """Stored pixels of images.

    Args:
        graph: nodes are added to it.
        pixels: (n, h, w, c) as decoded, n, h and w being any.
        geometry: what is done to them.
        depth: bits of the decoded pixels: 8, 16, or 32 for floating point.

    Returns:
        float32 (n, channels, height, width), rounded to whole numbers unless they are floating point.
    """
    planes = graph.cast(graph("Transpose", _inside(graph, pixels, geometry), perm=[0, 3, 1, 2]), np.float32)
    if geometry.bits < 32 and depth != geometry.bits:
        planes = graph("Mul", planes, floats(geometry.full / ((1 << depth) - 1)))
    old = (graph.side(planes, ROWS), graph.side(planes, COLUMNS))
    rows, columns = _targets(graph, old, geometry)
    down, filled = _matrix(graph, old[0], geometry.height, rows, geometry)
    across, also = _matrix(graph, old[1], geometry.width, columns, geometry)
    planes = _with_channels(graph, graph("MatMul", down, planes), geometry.channels)
    planes = graph("MatMul", planes, graph("Transpose", across, perm=[1, 0]))
    if geometry.fit == "letterbox":
        planes = _on_mean(graph, planes, (filled, also), (rows, columns), geometry)
    if geometry.bits == 32:
        return planes
    return graph("Clip", graph("Floor", graph("Add", planes, floats(HALF))), floats(0), floats(geometry.full))


def _inside(graph: GraphBuilder, pixels: Value, geometry: Geometry) -> Value:
    """What the box leaves, by the rounding of `Geometry`."""
    if geometry.box == WHOLE:
        return pixels
    begins, ends = [], []
    for axis in (0, 1):
        side = graph.side(pixels, 1 + axis)
        first, last = (_rounded_share(graph, side, share) for share in (geometry.box[axis], geometry.box[axis + 2]))
        begins.append(graph("Min", first, graph("Sub", side, integers(1))))
        ends.append(graph("Max", last, graph("Add", first, integers(1))))
    return graph("Slice", pixels, graph("Concat", *begins, axis=0), graph("Concat", *ends, axis=0), integers(1, 2))


def _rounded_share(graph: GraphBuilder, side: Value, share: float | Value) -> Value:
    """A share of a length, rounded half to even; float64, as Python computes it."""
    factor = np.array([share], dtype=np.float64) if isinstance(share, float) else share
    return graph.cast(graph("Round", graph("Mul", graph.cast(side, np.float64), factor)), np.int64)


def _targets(graph: GraphBuilder, old: tuple[Value, Value], geometry: Geometry) -> tuple[_Target, _Target]:
    """What rows and columns are resized to, and which part of that is kept."""
    sizes = geometry.size
    if geometry.fit == "squash":
        return _Target(integers(sizes[0]), integers(0)), _Target(integers(sizes[1]), integers(0))
    ratios = [graph("Div", np.array([size], dtype=np.float64), graph.cast(side, np.float64)) for size, side in zip(sizes, old, strict=True)]
    ratio = graph("Min" if geometry.fit == "letterbox" else "Max", *ratios)
    lengths = [graph("Max", _rounded_share(graph, side, ratio), integers(1)) for side in old]
    rows, columns = (_Target(length, _margin(graph, length, size, geometry)) for length, size in zip(lengths, sizes, strict=True))
    return rows, columns


def _margin(graph: GraphBuilder, length: Value, size: int, geometry: Geometry) -> Value:
    """How many pixels a crop leaves out before the first; how many a letterbox puts before it, negative."""
    if geometry.fit == "crop":
        return graph("Div", graph("Sub", length, integers(size)), integers(2))
    return graph("Neg", graph("Div", graph("Sub", integers(size), length), integers(2)))


def _matrix(graph: GraphBuilder, old: Value, size: int, target: _Target, geometry: Geometry) -> tuple[Value, Value]:
    """The taps, float32 (size, old), and of a letterbox which rows of it are filled, bool (size, 1)."""
    scalar = graph("Squeeze", old)
    which = graph("Range", np.array(0, dtype=np.int64), scalar, np.array(1, dtype=np.int64))
    place = graph("Add", np.arange(size, dtype=np.int64)[:, None], target.first)
    here = graph("Mul", target.length, graph("Add", graph("Mul", which, integers(2)), integers(1)))
    there = graph("Mul", old, graph("Add", graph("Mul", place, integers(2)), integers(1)))
    reach = graph("Mul", graph("Max", old, target.length), integers(2))
    taps = graph("Max", graph("Sub", reach, graph("Abs", graph("Sub", here, there))), integers(0))
    filled = ""
    if geometry.fit == "letterbox":
        filled = graph("And", graph("GreaterOrEqual", place, integers(0)), graph("Less", place, target.length))
        taps = graph("Mul", taps, graph.cast(filled, np.int64))
    total = graph("Max", graph("ReduceSum", taps, integers(1), keepdims=1), integers(1))
    return _quotient(graph, taps, total), filled


def _quotient(graph: GraphBuilder, part: Value, whole: Value) -> Value:
    """part / whole of whole numbers, 0 <= part <= whole, as the nearest float32: by long division, four digits of 11 bits.

    OpenVINO would multiply by the reciprocal, which is off in the last bit, and its int64 has 32 bits: enough for sums up to 2^20.
    """
    digits = []
    for _ in range(4):
        part = graph("Mul", part, integers(1 << DIGIT_BITS))
        digit = graph("Div", part, whole)
        part = graph("Sub", part, graph("Mul", digit, whole))
        digits.append(digit)
    pairs = [graph("Add", graph("Mul", high, integers(1 << DIGIT_BITS)), low) for high, low in (digits[:2], digits[2:])]
    first, second = (
        graph("Mul", graph.cast(pair, np.float32), floats(2.0 ** (-2 * DIGIT_BITS * place))) for place, pair in enumerate(pairs, 1)
    )
    return graph("Add", first, second)


def _on_mean(
    graph: GraphBuilder, planes: Value, filled: tuple[Value, Value], targets: tuple[_Target, _Target], geometry: Geometry
) -> Value:
    """The mean of each channel where a letterbox has no pixels; it is zero there until now."""
    mean = graph.mean(planes, ROWS, COLUMNS)
    for size, target in zip(geometry.size, targets, strict=True):
        mean = graph("Mul", mean, graph("Div", floats(size), graph.cast(target.length, np.float32)))
    return graph("Where", graph("And", filled[0], graph("Transpose", filled[1], perm=[1, 0])), planes, mean)


def _with_channels(graph: GraphBuilder, planes: Value, channels: tuple[str, ...]) -> Value:
    """Grey to RGB by copying, RGB to grey by luma, whichever the image is; other channels as they come."""
    found = graph.side(planes, 1)
    if channels == RGB:
        return graph("Tile", planes, graph("Concat", integers(1), graph("Div", integers(3), found), integers(1, 1), axis=0))
    if channels == GREY:
        every = graph.cast(graph("Equal", found, integers(3)), np.int64)
        weights = graph("Gather", floats([(1.0, 0.0, 0.0), LUMA]), every)
        weights = graph("Slice", weights, integers(0), found, integers(1))
        return graph("ReduceSum", graph("Mul", planes, graph("Reshape", weights, integers(1, -1, 1, 1))), integers(1), keepdims=1)
    return planes
