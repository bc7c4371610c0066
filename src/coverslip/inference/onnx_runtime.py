"""ONNX Runtime on the CPU. The package is met here alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.data.decoding import PixelArray
from coverslip.errors import ExportError
from coverslip.runtime import cpu_count, require
from coverslip.structures import FloatArray

EXTRA = "export"
IMAGES_A_CALL = 4
"""Images that one thread takes through the network at a time: few, so that what a layer makes of them stays in the processor's cache."""


def open_session(graph: Path | bytes, threads: int) -> Any:
    """A session of ONNX Runtime.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: it cannot run the graph.
    """
    onnxruntime = require("onnxruntime", EXTRA)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it raises classes of its own, of no common base
        raise ExportError(f"ONNX Runtime cannot run the graph: {str(error)[:300]}; say --runtime torch") from error


def run_session(session: Any, pixels: npt.NDArray[Any]) -> FloatArray:
    """Scores, float64 (n, classes), of pixels in the form of the graph's input."""
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0], dtype=np.float64)


class OnnxRuntime:
    """A graph of stored pixels: each core takes some images through the whole network."""

    name = "onnx"
    precision = "32"

    def __init__(self, graph: Path) -> None:
        self._session = open_session(graph, threads=1)
        self._pool = ThreadPoolExecutor(cpu_count(), thread_name_prefix="onnx")

    def scores(self, pixels: PixelArray) -> FloatArray:
        """Calibrated scores, float64 (n, classes), of stored pixels (n, height, width, channels)."""
        size = max(1, min(IMAGES_A_CALL, -(-len(pixels) // cpu_count())))
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        found = list(self._pool.map(lambda part: run_session(self._session, part), parts))
        return np.concatenate(found) if found else run_session(self._session, pixels)
