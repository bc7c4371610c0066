"""A graph whose convolutions and products are computed in 8 bits, and what that costs on a labelled set.

The ranges of the layers are taken from some images of the set, without their labels; the cost is measured on the others. ONNX Runtime's
static quantisation: weights in 8 bits a channel, layers in 8 bits. The first and the last layer with weights, and all that stands before
and behind the network, stay in float32: with them in 8 bits, too, a mobilenetv2_035 lost five times as much.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coverslip.bundle import Bundle
from coverslip.data.decoding import PixelArray
from coverslip.errors import ExportError
from coverslip.evaluation.comparison import paired_bootstrap
from coverslip.evaluation.evaluate import evaluate
from coverslip.export.parity import Score, decoded, scored
from coverslip.graphs.assembly import PIXELS
from coverslip.graphs.exporting import PREFIX
from coverslip.inference.onnx_runtime import EXTRA
from coverslip.runtime import require
from coverslip.structures import IntArray, Predictions, Table, Task

if TYPE_CHECKING:
    import onnx

MOST_CALIBRATING = 128
"""Images from which the ranges of the layers are taken; at most a third of the set."""
LEAST_MEASURED = 10
NUMBERS = {Task.MULTILABEL: ("macro_f1", "micro_f1")}
OTHER_NUMBERS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Cost:
    """What 8 bits cost, on images that the ranges were not taken from.

    Attributes:
        calibrated_on: images that the ranges of the layers were taken from.
        images: labelled images that the numbers rest on.
        numbers: by name `float32` and `int8`, each {value, low, high}, and `loss`, the first minus the second with the interval of a
            paired bootstrap.
        decisions_differ: images that are decided otherwise.
        largest_difference, mean_difference: of scores.
        bytes: size of the graph, and of that in float32.
    """

    calibrated_on: int
    images: int
    numbers: dict[str, Any]
    decisions_differ: int
    largest_difference: float
    mean_difference: float
    bytes: tuple[int, int]

    @property
    def sentence(self) -> str:
        """The main number, in words."""
        name = next(iter(self.numbers))
        loss = self.numbers[name]["loss"]
        words = name.replace("_", " ")
        small, full = (self.numbers[name][kind]["value"] for kind in ("int8", "float32"))
        kind, value, low, high = "loss", loss["value"], loss["low"], loss["high"]
        if value < 0:
            kind, value, low, high = "gain", -value, -high, -low
        return (
            f"8 bits: {words} {small:.4f} in place of {full:.4f} on {self.images} images, a {kind} of {value:.4f} "
            f"({low:.4f} to {high:.4f}); {self.decisions_differ} images decided otherwise"
        )


def calibration_rows(count: int) -> IntArray:
    """The rows from which ranges are taken, evenly spaced over the set.

    Raises:
        ExportError: too few images to take ranges from some and measure on others.
    """
    taken = min(MOST_CALIBRATING, count // 3)
    if count - taken < LEAST_MEASURED or taken == 0:
        raise ExportError(f"--quantise needs a labelled set of {LEAST_MEASURED + LEAST_MEASURED // 2} images and more; --data has {count}")
    return np.unique(np.linspace(0, count - 1, taken).round().astype(np.int64))


def quantised(graph: onnx.ModelProto, images: Iterable[PixelArray], place: Path) -> None:
    """Write the graph with its network in 8 bits.

    Args:
        graph: from raw pixels to scores.
        images: decoded images, from which the ranges of the layers are taken.
        place: the file that is written.

    Raises:
        ExportError: ONNX Runtime cannot quantise it.
    """
    quantization = require("onnxruntime.quantization", EXTRA)
    kept = [node.name for node in graph.graph.node if not node.name.startswith(PREFIX)] + first_and_last(graph)
    with _quiet():
        try:
            quantization.quantize_static(
                graph, str(place), _Reader(images), per_channel=True, nodes_to_exclude=kept, quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
        except (ValueError, RuntimeError, TypeError, KeyError) as error:
            raise ExportError(f"ONNX Runtime cannot quantise this network: {str(error)[:300]}") from error


def first_and_last(graph: onnx.ModelProto) -> list[str]:
    """The layers of the network with weights that have no other such layer before them, or none behind them."""
    inside = [node for node in graph.graph.node if node.name.startswith(PREFIX)]
    layers = {node.name for node in inside if node.op_type in ("Conv", "Gemm", "MatMul")}
    first = layers - _reached(layers, [(node.name, node.input, node.output) for node in inside])
    last = layers - _reached(layers, [(node.name, node.output, node.input) for node in reversed(inside)])
    return sorted(first | last)


def _reached(layers: set[str], steps: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> set[str]:
    """The layers that another one leads to, along steps in the order of what they take and give."""
    from_a_layer: set[str] = set()
    found = set()
    for name, takes, gives in steps:
        behind = any(value in from_a_layer for value in takes)
        if behind and name in layers:
            found.add(name)
        if behind or name in layers:
            from_a_layer.update(gives)
    return found


class _Reader:
    """Images one by one, as ONNX Runtime asks for them."""

    def __init__(self, images: Iterable[PixelArray]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, PixelArray] | None:
        """The inputs of the next run; None at the end."""
        image = next(self._images, None)
        return None if image is None else {PIXELS: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser tells the root log of what it does."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def cost_of(score: Score, bundle: Bundle, table: Table, full: Predictions, rows: IntArray, depth: int, sizes: tuple[int, int]) -> Cost:
    """Measure what 8 bits cost.

    Args:
        score: the graph in 8 bits.
        bundle: the model.
        table: the labelled images that can be read.
        full: their predictions in float32.
        rows: those that the ranges were taken from, and that are left out here.
        depth: bits of the pixels that the graph takes.
        sizes: bytes of the graph in 8 bits and in float32.

    Raises:
        ExportError: an image is deeper than the graph takes.
    """
    kept = np.setdiff1d(np.arange(len(table)), rows)
    samples = [table.samples[row] for row in kept]
    parts = []
    for images in decoded(bundle, samples, depth):
        usable = [image for image in images if image is not None]
        if len(usable) < len(images):
            raise ExportError(f"some labelled images have more than {depth} bits a pixel, which the graph does not take; say --depth 16")
        parts.append(scored(score, usable))
    scores = np.concatenate(parts)
    shorter = replace(
        full, images=tuple(full.images[row] for row in kept), scores=full.scores[kept], predicted=full.predicted[kept],
        targets=None if full.targets is None else full.targets[kept], groups=None if full.groups is None else full.groups[kept],
    )  # fmt: skip
    coarse = replace(shorter, scores=scores, predicted=bundle.decide(scores))
    reported = bundle.decision.reported
    both = {name: evaluate(one, threshold=reported) for name, one in (("float32", shorter), ("int8", coarse))}
    loss = paired_bootstrap(shorter, coarse)
    names = NUMBERS.get(bundle.task, OTHER_NUMBERS)
    decisions = [one.predicted.reshape(len(kept), -1) for one in (shorter, coarse)]
    return Cost(
        calibrated_on=len(rows),
        images=len(kept),
        numbers={name: {kind: both[kind][name] for kind in both} | {"loss": loss[name].to_json()} for name in names},
        decisions_differ=int((decisions[0] != decisions[1]).any(axis=1).sum()),
        largest_difference=float(np.abs(scores - shorter.scores).max()),
        mean_difference=float(np.abs(scores - shorter.scores).mean()),
        bytes=sizes,
    )
