"""The bundle's own network, by torch."""

from __future__ import annotations

import threading

from coverslip.bundle import Bundle
from coverslip.data.decoding import PixelArray
from coverslip.network import SCORE_BATCH
from coverslip.structures import FloatArray


class TorchRuntime:
    """Scores of the bundle itself, in the precision that its network has."""

    name = "torch"

    def __init__(self, bundle: Bundle) -> None:
        self.precision = bundle.network.precision
        self._bundle = bundle
        self._first = threading.Lock()

    def scores(self, pixels: PixelArray) -> FloatArray:
        """Calibrated scores, float64 (n, classes), of stored pixels (n, height, width, channels)."""
        with self._first:
            self._bundle.network.fold()
        return self._bundle.scores(pixels[start : start + SCORE_BATCH] for start in range(0, len(pixels), SCORE_BATCH))
