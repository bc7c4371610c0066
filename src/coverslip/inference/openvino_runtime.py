"""OpenVINO on the CPU. The package is met here, and where its files are written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.data.decoding import PixelArray
from coverslip.errors import ExportError
from coverslip.neighbours import Vectors
from coverslip.runtime import require
from coverslip.structures import FloatArray

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


class OpenVinoRuntime:
    """A graph of stored pixels: as many images at once as the processor has room for, each on its own."""

    name = "openvino"
    precision = "32"

    def __init__(self, graph: Path) -> None:
        openvino = require("openvino", EXTRA)
        self._model = compile_model(graph, batch=1, PERFORMANCE_HINT="THROUGHPUT")
        self._queue = openvino.AsyncInferQueue(self._model)
        self._queue.set_callback(_keep)
        self._alone = threading.Lock()

    def scores(self, pixels: PixelArray) -> FloatArray:
        """Calibrated scores, float64 (n, classes), of stored pixels (n, height, width, channels)."""
        return self.scores_and_features(pixels)[0]

    def scores_and_features(self, pixels: PixelArray) -> tuple[FloatArray, Vectors | None]:
        """The same, and float32 (n, features) where the graph gives them."""
        found = [np.empty((len(pixels), one.partial_shape[1].get_length())) for one in self._model.outputs]
        with self._alone:
            for row in range(len(pixels)):
                self._queue.start_async({0: np.ascontiguousarray(pixels[row : row + 1])}, (found, row))
            self._queue.wait_all()
        return found[0], found[1].astype(np.float32) if len(found) > 1 else None


def _keep(request: Any, place: tuple[list[FloatArray], int]) -> None:
    found, row = place
    for number, one in enumerate(found):
        one[row] = request.get_output_tensor(number).data[0]
