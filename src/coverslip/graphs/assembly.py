"""The whole graph: pixels, normalisation, copies, network, calibration; and what its file says of itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from coverslip.bundle import Bundle
from coverslip.data.geometry import GREY, RGB
from coverslip.graphs.builder import OPSET, GraphBuilder, Value
from coverslip.graphs.exporting import FEATURES, IMAGES, LOGITS, exported_network
from coverslip.graphs.geometry import resized
from coverslip.graphs.normalisation import normalised
from coverslip.graphs.scores import calibrated, of_the_first_copy, with_copies
from coverslip.runtime import require, to_json

if TYPE_CHECKING:
    import onnx

PIXELS, SCORES, SEEN = "pixels", "scores", "features"
"""Names of the graph's input and outputs."""
DTYPES = {8: np.uint8, 16: np.uint16, 32: np.float32}


def raw_graph(bundle: Bundle, depth: int) -> onnx.ModelProto:
    """A graph from decoded images to calibrated scores.

    Its input `pixels` is uint8, uint16 or float32 (batch, height, width, channels) with any batch, height and width: grey (1) or RGB
    (3) where the model looks at grey or colour, else the model's channels in their order. Its output `scores` is float32
    (batch, classes).

    Args:
        bundle: the model.
        depth: bits of the decoded pixels, 8 or 16; 32 for a model of floating-point images, and for no other.

    Raises:
        MissingExtraError: the extra `export` is not installed.
        ExportError: torch cannot express the architecture in ONNX.
    """
    graph = GraphBuilder()
    geometry = bundle.network.geometry
    planes = resized(graph, PIXELS, geometry, depth)
    free = not bundle.reading.channels and geometry.channels in (GREY, RGB)
    shape = ["batch", "height", "width", "channels" if free else len(geometry.channels)]
    return _finished(graph, planes, bundle, DTYPES[depth], shape)


def stored_graph(bundle: Bundle) -> onnx.ModelProto:
    """A graph from stored pixels, (batch, height, width, channels) of the bundle's size and depth, to calibrated scores.

    Where the bundle knows its training images there is a second output, `features`: what the heads see of each image.

    Raises:
        MissingExtraError: the extra `export` is not installed.
        ExportError: torch cannot express the architecture in ONNX.
    """
    graph = GraphBuilder()
    planes = graph.cast(graph("Transpose", PIXELS, perm=[0, 3, 1, 2]), np.float32)
    shape: list[str | int] = ["batch", *bundle.network.geometry.shape]
    seen = bundle.neighbours.vectors.shape[1] - 1 if bundle.neighbours is not None else 0  # the last number is their length
    return _finished(graph, planes, bundle, bundle.network.geometry.dtype, shape, features=seen)


def _finished(
    graph: GraphBuilder, planes: Value, bundle: Bundle, dtype: Any, shape: list[str | int], *, features: int = 0
) -> onnx.ModelProto:
    helper, network = require("onnx.helper", "export"), bundle.network
    core = exported_network(network)
    batch, copies = with_copies(
        graph, normalised(graph, planes, network.normalisation, network.geometry.size), network.tta, network.augment
    )
    graph.rename(batch, IMAGES)
    graph.nodes.extend(core.graph.node)
    graph.rename(calibrated(graph, LOGITS, copies, len(bundle.classes), bundle.decision), SCORES)
    if features:
        graph.rename(of_the_first_copy(graph, FEATURES, copies, features), SEEN)
    kind, real = (helper.np_dtype_to_tensor_dtype(np.dtype(one)) for one in (dtype, np.float32))
    widths = {SCORES: len(bundle.classes)} | ({SEEN: features} if features else {})
    made = helper.make_graph(
        graph.nodes,
        "coverslip",
        [helper.make_tensor_value_info(PIXELS, kind, shape)],
        [helper.make_tensor_value_info(name, real, ["batch", width]) for name, width in widths.items()],
        [*graph.constants, *core.graph.initializer],
    )
    model: onnx.ModelProto = helper.make_model(
        made, producer_name="coverslip", ir_version=core.ir_version, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    helper.set_model_props(model, {name: json.dumps(to_json(value), ensure_ascii=False) for name, value in facts_of(bundle).items()})
    require("onnx.checker", "export").check_model(model, full_check=True)
    return model


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """What another program needs to know of a graph's scores: classes in their order, and how they become decisions."""
    return {
        "task": str(bundle.task),
        "classes": bundle.classes,
        "channels": bundle.network.geometry.channels,
        "size": bundle.network.geometry.size,
        "fit": bundle.network.geometry.fit,
        "threshold": bundle.decision.reported,
        "at_least_one": bundle.decision.at_least_one,
    }
