"""The bundle's own network, by torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from coverslip.bundle import Bundle
from coverslip.data.decoding import PixelArray
from coverslip.neighbours import Vectors
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
        self._fold()
        return self._bundle.scores(_batches(pixels))

    def scores_and_features(self, pixels: PixelArray) -> tuple[FloatArray, Vectors | None]:
        """The same, and float32 (n, features); None where the bundle knows no training images."""
        if self._bundle.neighbours is None:
            return self.scores(pixels), None
        self._fold()
        scores, features = self._bundle.network.scores_and_features(_batches(pixels))
        return self._bundle.calibrated(scores), features

    def _fold(self) -> None:
        with self._first:
            self._bundle.network.fold()


def _batches(pixels: PixelArray) -> Iterator[PixelArray]:
    return (pixels[start : start + SCORE_BATCH] for start in range(0, len(pixels), SCORE_BATCH))
