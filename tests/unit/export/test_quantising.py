from __future__ import annotations

import onnx
import pytest

from coverslip.errors import ExportError
from coverslip.export.quantising import MOST_CALIBRATING, calibration_rows, first_and_last
from coverslip.graphs import raw_graph

from .kinds import KINDS


def weighted(graph: onnx.ModelProto) -> list[str]:
    return [node.name for node in graph.graph.node if node.op_type in ("Conv", "Gemm") and node.name.startswith("network/")]


def test_the_first_and_the_last_layer_of_a_network_and_of_each_of_two() -> None:
    one = raw_graph(KINDS["grey"](), 8)
    layers = weighted(one)
    assert len(layers) > 4
    assert sorted(first_and_last(one)) == sorted((layers[0], layers[-1]))
    two = raw_graph(KINDS["groups of classes"](), 8)
    ends = first_and_last(two)
    assert len(ends) == 4
    kinds = {node.name: node.op_type for node in two.graph.node}
    assert sorted(kinds[name] for name in ends) == ["Conv", "Conv", "Gemm", "Gemm"]


def test_ranges_come_from_a_third_of_the_images_at_most() -> None:
    rows = calibration_rows(30)
    assert (len(rows), rows[0], rows[-1]) == (10, 0, 29)
    assert len(calibration_rows(5000)) == MOST_CALIBRATING
    with pytest.raises(ExportError, match="needs a labelled set of 15 images and more; --data has 9"):
        calibration_rows(9)
