"""Writing ONNX nodes by hand: a list of nodes and constants that names its values itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coverslip.runtime import require

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""Version of the ONNX operators that are written."""

Value = str
"""The name of a value in the graph."""
Operand = Value | npt.NDArray[Any]
"""A value of the graph, or a constant."""


class GraphBuilder:
    """Nodes in the order in which they run.

    >>> graph = GraphBuilder()
    >>> graph("Add", graph("Neg", "x"), integers(1))
    'Add_1'
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._helper = require("onnx.helper", "export")
        self._numpy = require("onnx.numpy_helper", "export")

    def __call__(self, operator: str, *operands: Operand, **attributes: Any) -> Value:
        """Add a node with one output, and give the name of it."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, [self._named(one) for one in operands], [name], name=name, **attributes))
        return name

    def first_of(self, outputs: int, operator: str, *operands: Operand, **attributes: Any) -> Value:
        """Add a node with several outputs, and give the name of the first."""
        name = f"{operator}_{len(self.nodes)}"
        names = [name, *(f"{name}_{number}" for number in range(1, outputs))]
        self.nodes.append(self._helper.make_node(operator, [self._named(one) for one in operands], names, name=name, **attributes))
        return name

    def rename(self, value: Value, name: str) -> None:
        """Give a value the name of a graph's output."""
        self.nodes.append(self._helper.make_node("Identity", [value], [name], name=name))

    def cast(self, value: Operand, dtype: npt.DTypeLike) -> Value:
        """The value in another dtype."""
        return self("Cast", value, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def side(self, value: Value, axis: int) -> Value:
        """The length of one axis, int64 (1,)."""
        return self("Shape", value, start=axis, end=axis + 1)

    def mean(self, value: Value, *axes: int) -> Value:
        """The mean over some axes of (n, c, h, w), which stay; one after the other, for engines add up in float32."""
        for axis in sorted(axes, reverse=True):
            value = self("ReduceMean", value, integers(axis), keepdims=1)
        return value

    def _named(self, operand: Operand) -> Value:
        if isinstance(operand, str):
            return operand
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._numpy.from_array(operand, name))
        return name


def integers(*numbers: int) -> npt.NDArray[np.int64]:
    """An int64 constant (n,)."""
    return np.array(numbers, dtype=np.int64)


def floats(numbers: npt.ArrayLike, shape: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
    """A float32 constant, of the shape of the numbers or of another one."""
    made = np.array(numbers, dtype=np.float32)
    return made if shape is None else made.reshape(shape)
