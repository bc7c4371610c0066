"""A bundle's graph by OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coverslip.data.decoding import PixelArray
from coverslip.models.openvino import ImageByImage, compile_model
from coverslip.neighbours import Vectors
from coverslip.structures import FloatArray


class OpenVinoRuntime:
    """A graph of stored pixels: as many images at once as the processor has room for, each on its own."""

    name = "openvino"
    precision = "32"

    def __init__(self, graph: Path) -> None:
        self._run = ImageByImage(compile_model(graph, batch=1, PERFORMANCE_HINT="THROUGHPUT"))

    def scores(self, pixels: PixelArray) -> FloatArray:
        """Calibrated scores, float64 (n, classes), of stored pixels (n, height, width, channels)."""
        return self.scores_and_features(pixels)[0]

    def scores_and_features(self, pixels: PixelArray) -> tuple[FloatArray, Vectors | None]:
        """The same, and float32 (n, features) where the graph gives them."""
        scores, *features = self._run(pixels)
        return scores.astype(np.float64), features[0] if features else None
