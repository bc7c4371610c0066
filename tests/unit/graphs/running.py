"""Parts of a graph, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import checker, helper

from coverslip.graphs.builder import OPSET, GraphBuilder

Array = np.ndarray[Any, Any]


def outputs_of(graph: GraphBuilder, value: str, inputs: dict[str, Array], axes: int = 4) -> Array:
    """The value, when the graph's inputs are these arrays, whose sizes the graph does not know beforehand."""
    known = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim) for name, a in inputs.items()]
    asked = helper.make_tensor_value_info(value, helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)), [None] * axes)
    made = helper.make_graph(graph.nodes, "part", known, [asked], graph.constants)
    model = helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", OPSET)])
    checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run([value], inputs)[0]
    return found
