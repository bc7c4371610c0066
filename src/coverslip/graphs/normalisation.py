"""`data.normalisation.Normalisation` as ONNX nodes."""

from __future__ import annotations

import numpy as np

from coverslip.data.normalisation import PERCENTILE_PIXELS, Normalisation, pixel_stride
from coverslip.graphs.builder import GraphBuilder, Operand, Value, floats, integers
from coverslip.models.networks import Size


def normalised(graph: GraphBuilder, planes: Value, normalisation: Normalisation, size: Size) -> Value:
    """The network's input, float32 (n, c, height, width), of stored pixels in that form and of that size."""
    values = _ranged(graph, planes, normalisation, size)
    if normalisation.invert:
        values = graph("Sub", floats(1), values)
    if normalisation.per_image == "none":
        return graph("Div", graph("Sub", values, _planes(normalisation.mean)), _planes(normalisation.deviation))
    axes = (1, 2, 3) if normalisation.per_image == "together" else (2, 3)
    centred = graph("Sub", values, graph.mean(values, *axes))
    deviation = graph("Sqrt", graph.mean(graph("Mul", centred, centred), *axes))
    return graph("Div", centred, graph("Max", deviation, floats(1e-4)))


def _ranged(graph: GraphBuilder, planes: Value, normalisation: Normalisation, size: Size) -> Value:
    low: Operand = _planes(normalisation.low)
    span: Operand = _planes(normalisation.high) - _planes(normalisation.low)
    if normalisation.percentiles is not None:
        low, span = _percentiles(graph, planes, normalisation.percentiles, size)
    scaled = graph("Div", graph("Sub", planes, low), span)
    return graph("Clip", scaled, floats(0), floats(1)) if normalisation.clip else scaled


def _percentiles(graph: GraphBuilder, planes: Value, percentiles: tuple[float, float], size: Size) -> tuple[Value, Value]:
    """The low percentile of each image and channel, (n, c, 1, 1), and how far the high one lies above it."""
    step = pixel_stride(size[0] * size[1], PERCENTILE_PIXELS)
    seen = graph("Slice", planes, integers(0, 0), integers(*size), integers(2, 3), integers(step, step))
    count = -(-size[0] // step) * -(-size[1] // step)
    flat = graph("Reshape", seen, integers(0, 0, count))
    ordered = graph.first_of(2, "TopK", flat, integers(count), axis=2, largest=0, sorted=1)
    low, high = (_between(graph, ordered, percentile / 100 * (count - 1), count) for percentile in percentiles)
    beyond = graph("Add", graph("Add", low, floats(1)), graph("Abs", low))
    return low, graph("Sub", graph("Where", graph("Greater", high, low), high, beyond), low)


def _between(graph: GraphBuilder, ordered: Value, place: float, count: int) -> Value:
    """The value at a place between two of (n, c, count), as (n, c, 1, 1)."""
    before, after = (graph("Gather", ordered, integers(min(int(place) + more, count - 1)), axis=2) for more in (0, 1))
    value = graph("Add", before, graph("Mul", graph("Sub", after, before), floats(place - int(place))))
    return graph("Unsqueeze", value, integers(3))


def _planes(numbers: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Numbers, one a channel or one for all, to be broadcast over (n, c, h, w)."""
    return floats(numbers, (1, -1, 1, 1))
