"""ONNX Runtime on the CPU. The package is met here alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.data.decoding import PixelArray
from coverslip.errors import ExportError
from coverslip.neighbours import Vectors
from coverslip.runtime import cpu_count, require
from coverslip.structures import FloatArray

EXTRA = "export"
IMAGES_A_CALL = 4
"""Images that one thread takes through the network at a time: few, so that what a layer makes of them stays in the processor's cache."""
PIXELS_A_CALL = IMAGES_A_CALL * 224 * 224
"""Of larger images fewer are taken, down to one: a layer of a large one, in each of its test-time copies, holds hundreds of MB."""


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
    return _run(session, pixels)[0]


def _run(session: Any, pixels: npt.NDArray[Any]) -> tuple[FloatArray, Vectors | None]:
    """Scores, and features where the graph gives them."""
    scores, *features = session.run(None, {session.get_inputs()[0].name: pixels})
    return np.asarray(scores, dtype=np.float64), features[0] if features else None


def images_a_call(images: int, pixels: int) -> int:
    """How many images of so many pixels each a thread takes at a time.

    >>> images_a_call(100, 224 * 224), images_a_call(100, 512 * 512), images_a_call(1, 32 * 32)
    (4, 1, 1)
    """
    return max(1, min(IMAGES_A_CALL, PIXELS_A_CALL // pixels, -(-images // cpu_count())))


class OnnxRuntime:
    """A graph of stored pixels: each core takes some images through the whole network."""

    name = "onnx"
    precision = "32"

    def __init__(self, graph: Path) -> None:
        self._session = open_session(graph, threads=1)
        self._pool = ThreadPoolExecutor(cpu_count(), thread_name_prefix="onnx")

    def scores(self, pixels: PixelArray) -> FloatArray:
        """Calibrated scores, float64 (n, classes), of stored pixels (n, height, width, channels)."""
        return self.scores_and_features(pixels)[0]

    def scores_and_features(self, pixels: PixelArray) -> tuple[FloatArray, Vectors | None]:
        """The same, and float32 (n, features) where the graph gives them."""
        size = images_a_call(len(pixels), pixels.shape[1] * pixels.shape[2])
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)] or [pixels]
        found = list(self._pool.map(lambda part: _run(self._session, part), parts))
        features = [vectors for _, vectors in found if vectors is not None]
        return np.concatenate([scores for scores, _ in found]), np.concatenate(features) if features else None
