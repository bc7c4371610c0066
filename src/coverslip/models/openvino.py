"""OpenVINO on the CPU. The package is met here, and where its files are written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.errors import ExportError
from coverslip.runtime import require

EXTRA = "openvino"
FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
"""Without it OpenVINO computes in bfloat16 where the processor can."""


def compile_model(graph: Path | bytes, *, batch: int | None = None, **properties: str) -> Any:
    """A graph, compiled for the CPU in float32.

    Args:
        graph: an ONNX or OpenVINO file, or the bytes of an ONNX file.
        batch: images of each call; any number when None.
        properties: of OpenVINO, e.g. `PERFORMANCE_HINT`.

    Raises:
        MissingExtraError: openvino is not installed.
        ExportError: it cannot run the graph.
    """
    openvino = require("openvino", EXTRA)
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a file that is mapped cannot be moved or removed on Windows
    try:
        model = core.read_model(graph)
        if batch is not None:
            shape = model.input(0).partial_shape
            shape[0] = batch
            model.reshape(shape)
        return core.compile_model(model, "CPU", {**FULL_PRECISION, **properties})
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot run the graph: {str(error).strip()[:300]}; say --runtime torch") from error


class ImageByImage:
    """A compiled graph that takes one image a call: as many calls at once as the processor has room for.

    Args:
        model: compiled for a batch of one and for throughput; its outputs are (1, width).
    """

    def __init__(self, model: Any) -> None:
        self._widths = [one.partial_shape[1].get_length() for one in model.outputs]
        self._queue = require("openvino", EXTRA).AsyncInferQueue(model)
        self._queue.set_callback(_keep)
        self._alone = threading.Lock()

    def __call__(self, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """Each output, float32 (n, width), of images (n, ...). May be called by several threads at once."""
        found = [np.empty((len(images), width), dtype=np.float32) for width in self._widths]
        with self._alone:
            for row in range(len(images)):
                self._queue.start_async({0: np.ascontiguousarray(images[row : row + 1])}, (found, row))
            self._queue.wait_all()
        return found


def _keep(request: Any, place: tuple[list[npt.NDArray[np.float32]], int]) -> None:
    found, row = place
    for number, one in enumerate(found):
        one[row] = request.get_output_tensor(number).data[0]
